# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.stackwalk: every thread's whole stack, kernel to user, with what the thread waits for."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volatility3.framework import interfaces, renderers
from volatility3.framework.configuration import requirements

if find_spec("throwstack") is None:
    # Given with -p and not installed: the engine is beside the plugins of a checkout, around those of a wheel.
    sys.path += [
        str(root) for root in Path(__file__).resolve().parents[2:4] if (root / "throwstack/cli/main.py").is_file()
    ]

from throwstack.volatility import options

if TYPE_CHECKING:
    from throwstack.volatility.survey import Survey
    from throwstack.volatility.tables.thread_table import FoldedStack, ThreadTable

log = logging.getLogger(__name__)


class StackWalk(interfaces.plugins.PluginInterface):
    """Prints the stacks of threads, kernel frames and user frames, with what each thread waits for and who has it."""

    _required_framework_version = (2, 26, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what Volatility has to provide, and the plugin's options."""
        return [
            *options.common_requirements(),
            options.wow64_requirement(
                "Of threads of 32-bit processes on 64-bit Windows: the 32-bit stack (x86), the native one, both",
                default="x86",
            ),
            requirements.StringRequirement(
                name="findstack",
                description="Show only stacks with a frame whose call site matches this regular expression",
                optional=True,
            ),
            requirements.BooleanRequirement(
                name="unique",
                description="Show equal stacks once, most frequent first, with their number",
                default=False,
                optional=True,
            ),
            requirements.BooleanRequirement(
                name="brief",
                description="Say what there is to say of a thread in one sentence, not in columns",
                default=False,
                optional=True,
            ),
            *options.frame_requirements(),
        ]

    def _stacks(self, survey: Survey, table: ThreadTable) -> Iterator[FoldedStack]:
        from throwstack.volatility import plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.thread_stacks import thread_stack  # noqa: PLC0415
        from throwstack.volatility.thread_survey import ThreadSurvey  # noqa: PLC0415
        from throwstack.volatility.types_wanted import TypesWanted  # noqa: PLC0415

        text = self.config.get("findstack")
        try:
            pattern = re.compile(text, re.IGNORECASE) if text else None
        except re.error as error:
            log.warning("--findstack %r is not a regular expression: %s", text, error)
            return
        detail = plugin_runs.frame_detail(self)
        wanted = TypesWanted()
        for report in ThreadSurvey(survey).reports():
            for part in report.sides if detail.variables else ():
                wanted.add(part.target, (frame.ip for frame in part.frames))
            stack = table.stack(thread_stack(survey.machine, report, detail), report.owner.address)
            if pattern is None or stack.matches(pattern):
                yield stack
        wanted.say()

    def run(self) -> renderers.TreeGrid:
        """Return a row per thread, and below it one per frame, innermost first."""
        from throwstack.volatility import none_stuck, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.tables import thread_table  # noqa: PLC0415
        from throwstack.volatility.tables.output import output_of  # noqa: PLC0415

        unique = bool(self.config.get("unique", False))
        output, survey = output_of(self), plugin_runs.open_survey(self)
        table = thread_table.ThreadTable(
            options.name_style(self),
            is_brief=bool(self.config.get("brief", False)),
            with_fpo=bool(self.config.get("kv", False)),
            unique=unique,
            output=output,
            is_64bit=survey.machine.is_64bit,
        )

        def generate() -> Iterator[tuple[int, tuple[Any, ...]]]:
            stacks = self._stacks(survey, table)
            for stack in thread_table.fold(stacks) if unique else stacks:
                yield from table.rows(stack)

        return output.grid(table.columns, generate(), lambda: none_stuck.no_thread(survey))
