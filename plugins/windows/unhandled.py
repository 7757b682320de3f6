# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.unhandled: the threads of a Windows memory image that are stuck on an unhandled exception."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from volatility3.framework import interfaces, renderers
from volatility3.plugins import timeliner

if find_spec("throwstack") is None:
    # Given with -p and not installed: the engine is beside the plugins of a checkout, around those of a wheel.
    sys.path += [
        str(root) for root in Path(__file__).resolve().parents[2:4] if (root / "throwstack/cli/main.py").is_file()
    ]

from throwstack.volatility import options, rows


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
        ]

    def _generator(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        survey = options.open_survey(self)
        for finding in survey.findings():
            yield 0, rows.unhandled_row(survey.machine, finding)

    def generate_timeline(self) -> Iterator[tuple[str, timeliner.TimeLinerType, datetime.datetime]]:
        """Yield when each stuck thread began to wait, for the timeliner."""
        survey = options.open_survey(self)
        names = [name for name, _ in rows.UNHANDLED_COLUMNS]
        for finding in survey.findings():
            row = dict(zip(names, rows.unhandled_row(survey.machine, finding), strict=True))
            since = row["Blocked Since"]
            if isinstance(since, datetime.datetime):
                text = f"{row['Process']} (PID {row['PID']}, TID {row['TID']}) {row['Verdict']}"
                if finding.stuck.exceptions:
                    text = f"Unhandled exception: {text}: {row['Exception']} at {row['Thrown At']}"
                else:
                    text = f"Stuck thread: {text}: in {row['Blocked In']}"
                yield text, timeliner.TimeLinerType.MODIFIED, since

    def run(self) -> renderers.TreeGrid:
        """Return one row per stuck thread."""
        return renderers.TreeGrid(rows.UNHANDLED_COLUMNS, self._generator())
