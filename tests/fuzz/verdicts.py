# SPDX-License-Identifier: Apache-2.0
"""What a mutant may not lead to, and the means to notice it: faults, a limit on work, a limit on memory, clean text."""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[2]
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what a terminal obeys or does not show: control, format and bidi marks, half pairs, unknown
characters, line ends."""


class Overdue(BaseException):
    """A mutant took more processor time than it may. No `except Exception` keeps it."""


@dataclass(frozen=True)
class Fault:
    """Something that must not be. `kind` is traceback, hang, memory, control, lost, changed or crash."""

    kind: str
    where: str
    """Equal for faults that have one cause, as far as that can be told."""
    text: str


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raise `Overdue` after so much processor time of this process."""

    def stop(_signal: int, frame: FrameType | None) -> None:
        raise Overdue("".join(traceback.format_stack(frame, limit=12)))

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory(more: int) -> None:
    """Let this process have `more` bytes of address space beyond those it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def control_characters(text: str) -> str:
    """Return the first character of `text` that should have been escaped, as an escape; empty if there is none."""
    if text.isprintable():
        return ""
    found = next((character for character in text if unicodedata.category(character) in _UNSHOWN), "")
    return ascii(found)[1:-1]


def place_of(error: BaseException) -> str:
    """Return the type of an error and the innermost place in throwstack that it came through."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if "throwstack" in path.parts or "plugins" in path.parts:
            place = f"{'/'.join(path.parts[-2:])}:{line}"
    return f"{type(error).__name__} at {place or 'a place outside throwstack'}"


def fault_of(error: BaseException) -> Fault:
    """Return the fault that an exception out of the tested code is."""
    if isinstance(error, Overdue):
        place = next((line for line in reversed(str(error).splitlines()) if "throwstack" in line), "?").strip()
        return Fault("hang", place.partition("File ")[2] or place, str(error))
    kind = "memory" if isinstance(error, MemoryError) else "traceback"
    return Fault(kind, place_of(error), "".join(traceback.format_exception(error)))
