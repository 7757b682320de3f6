# SPDX-License-Identifier: Apache-2.0
"""Finds the user-mode lock that a thread waits for, and the thread that owns it.

An RTL_CRITICAL_SECTION (winnt.h) records its owner: {DebugInfo, LockCount, RecursionCount, OwningThread, LockSemaphore,
SpinCount}. An SRW lock records no owner.

The address of the lock is an argument of the functions that wait for it. On x86 the argument is on the stack. On x64 it
was in a register, which one of the frames may have saved; so all saved words are candidates for the address. A
candidate is accepted if the memory there looks like a critical section that another thread holds.

LockCount has two forms. Before Server 2003 SP1 it is the number of waiting threads, or -1 if the section is free. Since
then bit 0 is clear if the section is held, and the bits from bit 2 on are the complement of the number of waiters.
Example: a section that is held, with two waiters, has LockCount 2 in the old form and -10 in the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from throwstack.core.frames import Frame
from throwstack.core.memory import MemoryUnreadable
from throwstack.names.frame_names import name_of
from throwstack.unwind.target import Target

_SECTION_FUNCTIONS = frozenset(
    {
        *("RtlEnterCriticalSection", "RtlpWaitOnCriticalSection", "RtlpEnterCriticalSectionContended"),
        *("RtlpWaitForCriticalSection", "RtlpUnWaitCriticalSection", "RtlpEnterCriticalSection"),
    }
)
_SRW_FUNCTIONS = frozenset(
    {
        *("RtlAcquireSRWLockExclusive", "RtlAcquireSRWLockShared"),
        *("RtlpAcquireSRWLockExclusiveContended", "RtlpAcquireSRWLockSharedContended"),
    }
)
_INTERRUPTIONS = "KiUser"
"""How the names of those functions begin that the kernel starts on a thread to deliver an exception or an APC."""
_SEARCHED_FRAMES = 16
_MAX_RECURSION = 0xFFFF
_MAX_WAITERS = 0xFFFF
_MAX_SPAN = 0x400


class LockKind(Enum):
    """What a thread waits for in user mode."""

    CRITICAL_SECTION = "critical section"
    SRW = "SRW lock"


@dataclass(frozen=True, slots=True)
class LockWait:
    """A lock that a thread waits for.

    `address` is the address of the lock, or None if it could not be found for certain. `owner` is the id of the owning
    thread that the lock records, or None. `is_lost` says that the owning thread does not exist any more. `recursion` is
    how many times the owner has entered the lock. `waiters` is how many threads wait for the lock. `name` is the symbol
    at its address, or "".
    """

    kind: LockKind
    address: int | None = None
    owner: int | None = None
    is_lost: bool = False
    recursion: int = 0
    waiters: int = 0
    name: str = ""

    def __str__(self) -> str:
        """Return a line like `critical section 0x404010, owned by thread 2576, 2 waiting`."""
        where = "" if self.address is None else f" {self.address:#x}"
        text = f"{self.kind.value}{where}" + (f" {self.name}" if self.name else "")
        if self.owner is None:
            unknown = "its owner is not recorded" if self.kind is LockKind.SRW else "it cannot be told which"
            return f"{text}, {unknown}"
        lost = ", which no longer exists" if self.is_lost else ""
        times = f" {self.recursion} times" if self.recursion > 1 else ""
        return f"{text}, owned{times} by thread {self.owner}{lost}, {self.waiters} waiting"


@dataclass(frozen=True, slots=True)
class _Section:
    address: int
    owner: int
    recursion: int
    waiters: int
    points_back: bool
    """The section's DebugInfo points to a structure that points back to the section.

    This is strong evidence that there is a section.
    """


class Locks:
    """Finds the locks for which threads of one process wait."""

    def __init__(self, target: Target, tids: Collection[int]) -> None:
        """`target` is the process. `tids` are the ids of all its threads: any other owner no longer exists."""
        self._target = target
        self._tids = tids
        self._word = target.arch.pointer_size

    def wait(self, frames: Sequence[Frame], tid: int) -> LockWait | None:
        """Return the lock for which thread `tid` waits, or None. `frames` are its user frames, innermost first."""
        for names, kind in ((_SECTION_FUNCTIONS, LockKind.CRITICAL_SECTION), (_SRW_FUNCTIONS, LockKind.SRW)):
            span = self._span(frames, names)
            if span:
                return self._critical_section(span, tid) if kind is LockKind.CRITICAL_SECTION else self._srw(span)
        return None

    def _span(self, frames: Sequence[Frame], names: frozenset[str]) -> list[Frame]:
        """Return the innermost adjacent frames that are in the functions `names` of ntdll.

        The frames further in than these must be in ntdll, too. Only the innermost of all may be in code of no module,
        which is the stub of the system call. If frames of an exception's dispatch are further in, the thread crashed
        while it entered the lock. It does not wait for the lock then, and the result is empty.
        """
        found: list[Frame] = []
        for depth, frame in enumerate(frames[:_SEARCHED_FRAMES]):
            name = name_of(self._target.symbols, frame)
            is_ntdll = name.module.lower() == "ntdll"
            if is_ntdll and name.symbol in names and not name.is_doubtful:
                found.append(frame)
            elif found or name.symbol.startswith(_INTERRUPTIONS) or not (is_ntdll or (depth == 0 and not name.module)):
                break
        return found

    def _srw(self, span: Sequence[Frame]) -> LockWait:
        arguments = list(self._arguments(span[-1:]))
        return LockWait(LockKind.SRW, arguments[0] if arguments else None)

    def _critical_section(self, span: Sequence[Frame], tid: int) -> LockWait:
        section = self._by_argument(span, tid) or self._by_search(span, tid)
        if section is None:
            return LockWait(LockKind.CRITICAL_SECTION)
        named = self._target.symbols.name(section.address)
        return LockWait(
            LockKind.CRITICAL_SECTION,
            section.address,
            section.owner,
            section.owner not in self._tids,
            section.recursion,
            section.waiters,
            str(named) if named.symbol and not named.offset else "",
        )

    def _by_argument(self, span: Sequence[Frame], tid: int) -> _Section | None:
        """Return the critical section to which the first argument of a frame of `span` points, or None.

        Only x86 has arguments on the stack. The outermost frame is tried first. A section whose DebugInfo does not
        point back to it is accepted only if a thread of this process owns it.
        """
        for address in self._arguments(tuple(reversed(span))):
            section = self._section(address, tid)
            if section is not None and (section.points_back or section.owner in self._tids):
                return section
        return None

    def _by_search(self, span: Sequence[Frame], tid: int) -> _Section | None:
        """Return the one critical section to which a register or a saved word of `span` points, or None.

        Only sections that a thread of this process owns are considered. If there are several, those whose DebugInfo
        points back to them are preferred, then those with waiters. If the preferred ones are still several, the result
        is None.
        """
        found = {}
        for address in dict.fromkeys(self._words(span)):
            section = self._section(address, tid)
            if section is not None and section.owner in self._tids:
                found[address] = section
        certain = [section for section in found.values() if section.points_back]
        waited_for = [section for section in found.values() if section.waiters]
        candidates = certain or waited_for or list(found.values())
        return candidates[0] if len(candidates) == 1 else None

    def _arguments(self, frames: Iterable[Frame]) -> Iterator[int]:
        if not self._target.arch.facts.arguments_on_stack:
            return
        for frame in frames:
            if frame.return_slot is not None:
                word = self._pointer(frame.return_slot + 4)
                if word is not None:
                    yield word

    def _words(self, span: Sequence[Frame]) -> Iterator[int]:
        for frame in span:
            yield from (value for value in frame.registers.gpr if value is not None)
        low, slot = span[0].sp & -self._word, span[-1].return_slot
        high = (low if slot is None else slot) + 2 * self._word
        for address in range(low, min(high, low + _MAX_SPAN), self._word):
            word = self._pointer(address)
            if word is not None:
                yield word

    def _section(self, address: int, tid: int) -> _Section | None:
        """Return the critical section at `address`, or None if no thread other than `tid` holds one there."""
        word = self._word
        if address < 0x10000 or address % word:
            return None
        try:
            raw = self._target.memory.read(address, 2 * word + 8)
        except (MemoryUnreadable, OverflowError):
            return None
        debug = int.from_bytes(raw[:word], "little")
        lock_count = int.from_bytes(raw[word : word + 4], "little", signed=True)
        recursion = int.from_bytes(raw[word + 4 : word + 8], "little", signed=True)
        owner = int.from_bytes(raw[word + 8 : 2 * word + 8], "little")
        waiters = _waiters(lock_count)
        if waiters is None or not 1 <= recursion <= _MAX_RECURSION or owner == tid or not owner or owner % 4:
            return None
        none = (0, (1 << 8 * word) - 1)
        points_back = debug not in none and self._pointer(debug + word) == address
        if debug not in none and not points_back:
            return None
        return _Section(address, owner, recursion, waiters, points_back)

    def _pointer(self, address: int) -> int | None:
        try:
            return self._target.memory.pointer(address, self._word)
        except (MemoryUnreadable, OverflowError):
            return None


def _waiters(lock_count: int) -> int | None:
    """Return how many threads wait for a section with this LockCount.

    The result is None if the section is free or the number is too large to be true.
    """
    count = lock_count if lock_count >= 0 else ~lock_count >> 2
    is_held = lock_count >= 0 or not lock_count & 1
    return count if is_held and count <= _MAX_WAITERS else None
