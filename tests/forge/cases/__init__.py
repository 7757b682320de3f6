# SPDX-License-Identifier: Apache-2.0
"""The machines that can be forged, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.forge.describe import Machine
from tests.forge.images import ImageBuilder
from tests.forge.truth import Truth


@dataclass
class Case:
    """A machine, what must be found in it, and the images whose symbol files come with it."""

    machine: Machine
    truth: Truth
    images: list[ImageBuilder] = field(default_factory=list)


def builders() -> dict[str, tuple[Callable[[], Case], str]]:
    """Return each case's builder and a line on what it is."""
    from tests.forge.cases import ftp_2003, service_x64  # noqa: PLC0415 - cases import this module

    modules = {"ftp-2003": ftp_2003, "service-x64": service_x64}
    return {name: (module.build, (module.__doc__ or "").split("\n")[0]) for name, module in modules.items()}
