# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.cxrstack: the stacks that threw, unwound from the CONTEXT records saved with the exceptions."""

from __future__ import annotations

import logging
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

from throwstack.volatility import number_options, options

if TYPE_CHECKING:
    from throwstack.volatility.cxr import ThrowingStack
    from throwstack.volatility.survey import Survey
    from throwstack.volatility.tables.output import Output

log = logging.getLogger(__name__)

_MANIFEST = "symbols-needed.txt"


class CxrStack(interfaces.plugins.PluginInterface):
    """Prints the stack that threw, for every thread stuck on an unhandled exception or for a CONTEXT at an address."""

    _required_framework_version = (2, 26, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what Volatility has to provide, and the plugin's options."""
        return [
            *options.common_requirements(),
            number_options.AddressRequirement(
                "cxr", "Address of a CONTEXT record in the process given with --pid, as WinDbg prints it"
            ),
            requirements.BooleanRequirement(
                name="registers",
                description="Show the registers and the instruction at each frame, as .cxr does",
                default=False,
                optional=True,
            ),
            options.wow64_requirement(
                "Of stuck threads of 32-bit processes on 64-bit Windows: the stack that threw, whichever side it is on "
                "(both); only if it is the 32-bit one (x86); the native stack, also where 32-bit code threw (native)",
                default="both",
            ),
            *options.frame_requirements(),
            requirements.BooleanRequirement(
                name="symbols_needed",
                description="List the PDBs and images that the stacks call for, and write them as a symchk manifest",
                default=False,
                optional=True,
            ),
        ]

    def _stacks(self, survey: Survey) -> Iterator[ThrowingStack]:
        from throwstack.volatility import cxr  # noqa: PLC0415 see throwstack.volatility.options

        address = self.config.get("cxr")
        return cxr.throwing_stacks(survey) if address is None else cxr.stack_at(survey, address)

    def _why_empty(self, survey: Survey) -> str:
        from throwstack.volatility import none_stuck  # noqa: PLC0415 see throwstack.volatility.options

        address = self.config.get("cxr")
        return none_stuck.none_stuck(survey) if address is None else none_stuck.no_context(survey, address)

    def _frames(self, survey: Survey, output: Output) -> renderers.TreeGrid:
        from throwstack.volatility import cxr, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.tables import frame_table  # noqa: PLC0415

        detail = plugin_runs.frame_detail(self)
        every = frame_table.throwing_columns(
            options.name_style(self),
            with_fpo=detail.fpo,
            with_registers=detail.registers,
            is_brief=output.is_brief,
        )
        table = output.columns(every, frame_table.FRAMES_SHOWN)

        def generate() -> Iterator[tuple[int, tuple[Any, ...]]]:
            rows = cxr.frame_rows(self._stacks(survey), detail)
            for depth, row in frame_table.below_headings(rows) if output.is_brief else ((0, row) for row in rows):
                yield depth, output.row(table, row)
                for variable in frame_table.variable_rows(row):
                    yield depth + 1, output.row(table, variable)

        return output.grid(table, generate(), lambda: self._why_empty(survey))

    def _needed(self, survey: Survey, output: Output) -> renderers.TreeGrid:
        from throwstack.files.needed_files import manifest  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility import cxr  # noqa: PLC0415
        from throwstack.volatility.tables.frame_table import NEEDED_COLUMNS  # noqa: PLC0415

        stacks: list[ThrowingStack] = []

        def generate() -> Iterator[tuple[int, tuple[Any, ...]]]:
            stacks.extend(self._stacks(survey))
            files = cxr.files_needed(stacks)
            try:
                with self.open(_MANIFEST) as out:
                    out.write(manifest(files).encode())
            except OSError as error:
                log.warning("%s cannot be written: %s; its lines are in the table", _MANIFEST, error.strerror or error)
            for file in files:
                yield 0, output.row(NEEDED_COLUMNS, file)

        def why_empty() -> str:
            return "no file is missing: all modules on the stacks have theirs" if stacks else self._why_empty(survey)

        return output.grid(NEEDED_COLUMNS, generate(), why_empty)

    def run(self) -> renderers.TreeGrid:
        """Return one row per frame, innermost first, stack after stack; or one row per file with `--symbols-needed`.

        With `--locals`, the variables of a frame are rows below it. A person sees a row for each stack as well.
        """
        from throwstack.volatility import plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.tables.output import output_of  # noqa: PLC0415

        output, survey = output_of(self), plugin_runs.open_survey(self)
        make = self._needed if self.config.get("symbols_needed", False) else self._frames
        return make(survey, output)
