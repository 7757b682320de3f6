# SPDX-License-Identifier: Apache-2.0
"""The most memory that this process has had resident since a point in time, as far as the system can tell.

Linux keeps the peak since it was last reset (`man 5 proc`: `clear_refs`, `VmHWM`). Other systems keep that of the whole
life of a process, which is then what is returned.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_LINUX = Path("/proc/self")


def restart_peak() -> None:
    """Begin a new measurement, where the system can."""
    with suppress(OSError):
        (_LINUX / "clear_refs").write_bytes(b"5")


def peak_memory() -> int | None:
    """Return the most bytes that were resident, or None if the system does not tell."""
    with suppress(OSError, ValueError):
        for line in (_LINUX / "status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    platform: str = sys.platform  # declared as str, or mypy takes the branches of other systems for unreachable
    if platform == "win32":
        import psutil  # noqa: PLC0415 comes with distributed

        return int(psutil.Process().memory_info().peak_wset)
    resource: Any = import_module("resource")  # which Windows has not
    most = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return most if platform == "darwin" else most * 1024
