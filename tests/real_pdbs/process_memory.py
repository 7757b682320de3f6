# SPDX-License-Identifier: Apache-2.0
"""How much memory this process has used at most, of which the peak can be set back (Linux)."""

from __future__ import annotations

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def restart_peak() -> int:
    """Let the peak count from now on; return what is used now, in kilobytes."""
    _CLEAR.write_text("5", encoding="ascii")
    return _field("VmRSS")


def peak_kilobytes() -> int:
    """Return the largest resident set since `restart_peak`, in kilobytes; pages of mapped files count."""
    return _field("VmHWM")


def _field(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    message = f"no {name} in {_STATUS}"
    raise RuntimeError(message)
