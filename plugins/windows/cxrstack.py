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

from throwstack.volatility import options

if TYPE_CHECKING:
    from throwstack.volatility.cxr import ThrowingStack

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
            requirements.IntRequirement(
                name="cxr",
                description="Address (0x...) of a CONTEXT record in the process given with --pid",
                optional=True,
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

    def _stacks(self) -> Iterator[ThrowingStack]:
        from throwstack.volatility import cxr, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options

        survey = plugin_runs.open_survey(self)
        address = self.config.get("cxr")
        if address is not None:
            return cxr.stack_at(survey, address)
        return cxr.throwing_stacks(survey)

    def _frames(self) -> renderers.TreeGrid:
        from throwstack.volatility import cxr, plugin_runs  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility.tables import columns, frame_table  # noqa: PLC0415

        detail = plugin_runs.frame_detail(self)
        table = frame_table.throwing_columns(
            options.name_style(self), with_fpo=detail.fpo, with_registers=detail.registers
        )

        def generate() -> Iterator[tuple[int, tuple[Any, ...]]]:
            for row in cxr.frame_rows(self._stacks(), detail):
                yield 0, columns.row(table, row)
                for variable in frame_table.variable_rows(row):
                    yield 1, columns.row(table, variable)

        return renderers.TreeGrid(columns.headings(table), generate())

    def _needed(self) -> renderers.TreeGrid:
        from throwstack.files.needed_files import manifest  # noqa: PLC0415 see throwstack.volatility.options
        from throwstack.volatility import cxr  # noqa: PLC0415
        from throwstack.volatility.tables import columns, frame_table  # noqa: PLC0415

        def generate() -> Iterator[tuple[int, tuple[Any, ...]]]:
            files = cxr.files_needed(self._stacks())
            try:
                with self.open(_MANIFEST) as out:
                    out.write(manifest(files).encode())
            except OSError as error:
                log.warning("%s cannot be written: %s; its lines are in the table", _MANIFEST, error.strerror or error)
            for file in files:
                yield 0, columns.row(frame_table.NEEDED_COLUMNS, file)

        return renderers.TreeGrid(columns.headings(frame_table.NEEDED_COLUMNS), generate())

    def run(self) -> renderers.TreeGrid:
        """Return one row per frame, innermost first, stack after stack; or one row per file with `--symbols-needed`.

        With `--locals`, the variables of a frame are rows below it.
        """
        return self._needed() if self.config.get("symbols_needed", False) else self._frames()
