# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.unhandled: the threads of a Windows memory image that are stuck on an unhandled exception."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from volatility3.framework import interfaces, renderers
from volatility3.plugins import timeliner

if find_spec("throwstack") is None:
    # Given with -p and not installed: the engine is beside the plugins of a checkout, around those of a wheel.
    sys.path += [
        str(root) for root in Path(__file__).resolve().parents[2:4] if (root / "throwstack/cli/main.py").is_file()
    ]

from throwstack.volatility import options

if TYPE_CHECKING:
    from throwstack.volatility.survey import Survey
    from throwstack.volatility.tables.crash_table import CrashRow


class Unhandled(interfaces.plugins.PluginInterface, timeliner.TimeLinerInterface):
    """Finds the threads that are stuck on an unhandled exception: what was thrown, where, and what blocks them."""

    _required_framework_version = (2, 26, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what Volatility has to provide, and the plugin's options."""
        return [
            *options.common_requirements(),
            options.wow64_requirement(
                "Of 32-bit processes on 64-bit Windows: threads that are stuck in 32-bit code (x86), in native code, "
                "in either (both)",
                default="both",
            ),
            options.handled_requirement(),
        ]

    def _crashes(self, survey: Survey) -> Iterator[CrashRow]:
        from throwstack.volatility import crashes  # noqa: PLC0415 see throwstack.volatility.options

        for finding in survey.findings():
            yield crashes.crash_row(survey.machine, finding)

    def generate_timeline(self) -> Iterator[tuple[str, timeliner.TimeLinerType, datetime.datetime]]:
        """Yield when each stuck thread began to wait, for the timeliner."""
        from throwstack.volatility import crashes, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options

        for crash in (row.crash for row in self._crashes(plugin_runs.open_survey(self))):
            if crash.blocked_since is not None:
                yield crashes.timeline_text(crash), timeliner.TimeLinerType.MODIFIED, crash.blocked_since

    def run(self) -> renderers.TreeGrid:
        """Return one row per stuck thread."""
        from throwstack.volatility import none_stuck, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.tables import crash_table  # noqa: PLC0415
        from throwstack.volatility.tables.output import output_of  # noqa: PLC0415

        output, survey = output_of(self), plugin_runs.open_survey(self)
        table = output.columns(crash_table.CRASH_COLUMNS, crash_table.CRASH_SHOWN)
        rows = ((0, output.row(table, row)) for row in self._crashes(survey))
        return output.grid(table, rows, lambda: none_stuck.none_stuck(survey))
