# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.unhandled: the threads of a Windows memory image that are stuck on an unhandled exception."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from volatility3.framework import interfaces, renderers
from volatility3.framework.configuration import requirements
from volatility3.framework.renderers import format_hints
from volatility3.plugins.windows import pslist

from throwstack.volatility import rows, survey
from throwstack.volatility.machine import Machine


class Unhandled(interfaces.plugins.PluginInterface):
    """Finds the threads that are stuck on an unhandled exception: what was thrown, where, and what blocks them."""

    _required_framework_version = (2, 11, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what Volatility has to provide, and the plugin's options."""
        return [
            requirements.ModuleRequirement(
                name="kernel", description="Windows kernel", architectures=["Intel32", "Intel64"]
            ),
            requirements.VersionRequirement(name="pslist", component=pslist.PsList, version=(3, 0, 0)),
            requirements.ListRequirement(
                name="pid", element_type=int, description="Look only at processes with these IDs", optional=True
            ),
            requirements.ListRequirement(
                name="tid", element_type=int, description="Look only at threads with these IDs", optional=True
            ),
        ]

    def _generator(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        machine = Machine(self.context, self.config["kernel"], self.config_path)
        selection = survey.Selection(self.config.get("pid") or (), self.config.get("tid") or ())
        for finding in survey.Survey(machine, selection, self._progress_callback).findings():
            yield 0, rows.unhandled_row(machine, finding)

    def run(self) -> renderers.TreeGrid:
        """Return one row per stuck thread."""
        return renderers.TreeGrid(
            [
                ("PID", int),
                ("Process", str),
                ("TID", int),
                ("Arch", str),
                ("Blocked In", str),
                ("Code", format_hints.Hex),
                ("Exception", str),
                ("Address", format_hints.Hex),
                ("Thrown At", str),
                ("Record", format_hints.Hex),
                ("Context", format_hints.Hex),
                ("Found By", str),
                ("Blocked Since", datetime.datetime),
                ("Notes", str),
            ],
            self._generator(),
        )
