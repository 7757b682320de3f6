# SPDX-License-Identifier: LicenseRef-Volatility-Software-License
"""windows.unhandled: the threads of a Windows memory image that are stuck on an unhandled exception."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from volatility3.framework import interfaces, renderers
from volatility3.framework.renderers import format_hints

from throwstack.volatility import options, rows


class Unhandled(interfaces.plugins.PluginInterface):
    """Finds the threads that are stuck on an unhandled exception: what was thrown, where, and what blocks them."""

    _required_framework_version = (2, 26, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what Volatility has to provide, and the plugin's options."""
        return options.common_requirements()

    def _generator(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        survey = options.open_survey(self)
        for finding in survey.findings():
            yield 0, rows.unhandled_row(survey.machine, finding)

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
