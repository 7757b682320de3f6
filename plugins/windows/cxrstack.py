# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.cxrstack: the stacks that threw, unwound from the CONTEXT records saved with the exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from volatility3.framework import interfaces, renderers
from volatility3.framework.configuration import requirements
from volatility3.framework.renderers import format_hints

from throwstack.volatility import cxr, options, rows


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
                name="cxr", description="Address of a CONTEXT record in the process given with --pid", optional=True
            ),
            requirements.BooleanRequirement(
                name="registers",
                description="Show the registers and the instruction at each frame, as .cxr does",
                default=False,
                optional=True,
            ),
        ]

    def _generator(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        survey = options.open_survey(self)
        address = self.config.get("cxr")
        stacks = cxr.throwing_stacks(survey) if address is None else cxr.stack_at(survey, address)
        for stack in stacks:
            for row in rows.frame_rows(stack, with_registers=self.config.get("registers", False)):
                yield 0, row

    def run(self) -> renderers.TreeGrid:
        """Return one row per frame, innermost first, stack after stack."""
        registers = [("Registers", str), ("Instruction", str)] if self.config.get("registers", False) else []
        return renderers.TreeGrid(
            [
                ("PID", int),
                ("Process", str),
                ("TID", int),
                ("Frame", int),
                ("Child-SP", format_hints.Hex),
                ("RetAddr", format_hints.Hex),
                ("Args", str),
                ("IP", format_hints.Hex),
                ("Call Site", str),
                ("Source", str),
                ("Trust", str),
                *registers,
                ("Notes", str),
            ],
            self._generator(),
        )
