# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.cxrstack: the stacks that threw, unwound from the CONTEXT records saved with the exceptions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from volatility3.framework import interfaces, renderers
from volatility3.framework.configuration import requirements

if find_spec("throwstack") is None:
    # Given with -p and not installed: the engine is beside the plugins of a checkout, around those of a wheel.
    sys.path += [
        str(root) for root in Path(__file__).resolve().parents[2:4] if (root / "throwstack/cli/main.py").is_file()
    ]

from throwstack.core.text import escape
from throwstack.files.needed_files import manifest
from throwstack.volatility import cxr, options, rows

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
            requirements.ChoiceRequirement(
                name="wow64",
                choices=[side.value for side in cxr.WhichSide],
                description="Of stuck threads of WoW64 processes: the 32-bit stack that threw, or the native one",
                default=cxr.WhichSide.X86.value,
                optional=True,
            ),
            *options.frame_requirements(),
            requirements.BooleanRequirement(
                name="symbols_needed",
                description="List the PDBs and images that the stacks call for, and write them as a symchk manifest",
                default=False,
                optional=True,
            ),
        ]

    def _stacks(self) -> Iterator[cxr.ThrowingStack]:
        survey = options.open_survey(self)
        address = self.config.get("cxr")
        if address is not None:
            return cxr.stack_at(survey, address)
        side = cxr.WhichSide(self.config.get("wow64") or cxr.WhichSide.X86.value)
        return cxr.throwing_stacks(survey, of_wow64=side)

    def _frames(self) -> Iterator[tuple[int, rows.Row]]:
        style = options.name_style(self)
        for stack in self._stacks():
            for row in rows.frame_rows(
                stack,
                with_registers=self.config.get("registers", False),
                style=style,
                with_fpo=self.config.get("kv", False),
            ):
                yield 0, row

    def _needed(self) -> Iterator[tuple[int, rows.Row]]:
        files = cxr.files_needed(self._stacks())
        try:
            with self.open(_MANIFEST) as out:
                out.write(manifest(files).encode())
        except OSError as error:
            log.warning("%s cannot be written: %s; its lines are in the table", _MANIFEST, error.strerror or error)
        for file in files:
            yield 0, (file.manifest_line, escape(file.module), file.why)

    def run(self) -> renderers.TreeGrid:
        """Return one row per frame, innermost first, stack after stack; or one per file that the stacks call for."""
        if self.config.get("symbols_needed", False):
            return renderers.TreeGrid([("Manifest", str), ("Module", str), ("Why", str)], self._needed())
        registers = rows.REGISTER_COLUMNS if self.config.get("registers", False) else []
        fpo = rows.FPO_COLUMNS if self.config.get("kv", False) else []
        return renderers.TreeGrid([*rows.FRAME_COLUMNS, *fpo, *registers, *rows.NOTES_COLUMN], self._frames())
