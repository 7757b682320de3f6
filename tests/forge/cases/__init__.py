# SPDX-License-Identifier: Apache-2.0
"""The machines that can be forged, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.forge.describe import Machine
from tests.forge.images import ImageBuilder
from tests.forge.truth import Truth
from tests.support.pdb_writer import Pdb


@dataclass
class Case:
    """A machine, what must be found in it, and the images whose symbol files come with it; PDBs by file name."""

    machine: Machine
    truth: Truth
    images: list[ImageBuilder] = field(default_factory=list)
    pdbs: dict[str, Pdb] = field(default_factory=dict)


def builders() -> dict[str, tuple[Callable[[], Case], str]]:
    """Return each case's builder and a line on what it is."""
    # The cases import this module.
    from tests.forge.cases import (  # noqa: PLC0415
        deadlock,
        decoys_x86,
        dispatch_cases,
        ftp_2003,
        handlers_x64,
        handlers_x86,
        more_x64,
        quiet_x86,
        service_x64,
        wow64_service,
    )

    return {
        "ftp-2003": (ftp_2003.build, _line(ftp_2003.__doc__)),
        "service-x64": (service_x64.build, _line(service_x64.__doc__)),
        "quiet": (more_x64.quiet, _line(more_x64.quiet.__doc__)),
        "quiet-x86": (quiet_x86.build, _line(quiet_x86.__doc__)),
        "paged-peb": (more_x64.paged_peb, _line(more_x64.paged_peb.__doc__)),
        "deadlock": (deadlock.build, _line(deadlock.__doc__)),
        "peers": (more_x64.peers, _line(more_x64.peers.__doc__)),
        "nested": (dispatch_cases.nested, _line(dispatch_cases.nested.__doc__)),
        "decoys-x64": (dispatch_cases.decoys, _line(dispatch_cases.decoys.__doc__)),
        "wow64-service": (wow64_service.build, _line(wow64_service.__doc__)),
        "decoys-x86": (decoys_x86.build, _line(decoys_x86.__doc__)),
        "shutdown-hang": (dispatch_cases.shutdown_hang, _line(dispatch_cases.shutdown_hang.__doc__)),
        "handlers-x64": (handlers_x64.build, _line(handlers_x64.build.__doc__)),
        "handlers-x86": (handlers_x86.build, _line(handlers_x86.build.__doc__)),
        "fleet": (more_x64.fleet, _line(more_x64.fleet.__doc__)),
    }


def _line(text: str | None) -> str:
    return (text or "").split("\n")[0]
