# SPDX-License-Identifier: Apache-2.0
"""Locks of user mode that a thread waits for, whose they are, and waits that form a circle.

An RTL_CRITICAL_SECTION (winnt.h) records its owner: {DebugInfo, LockCount, RecursionCount, OwningThread,
LockSemaphore, SpinCount}. Its address is an argument of the functions that wait for it: on x86 it lies on the stack, on
x64 it went through a register that one of their frames may have saved. What is found must look like a section that
another thread holds. LockCount has two forms: before Server 2003 SP1 the number of threads beyond the owner, -1 when
free; since then bit 0 clear when held, and from bit 2 on the complement of the number of waiters. An SRW lock records
no owner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from throwstack.core.frames import Frame
from throwstack.core.memory import MemoryUnreadable
from throwstack.names.frame_names import name_of
from throwstack.unwind.target import Target

Node = TypeVar("Node")

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
"""How the functions begin that the kernel starts on top of what a thread was doing: for an exception, an APC."""
_SEARCHED_FRAMES = 16
_MAX_RECURSION = 0xFFFF
_MAX_WAITERS = 0xFFFF
_MAX_SPAN = 0x400
_NODE_LIMIT = 1 << 17


class LockKind(Enum):
    """What a thread waits for in user mode."""

    CRITICAL_SECTION = "critical section"
    SRW = "SRW lock"


@dataclass(frozen=True, slots=True)
class LockWait:
    """A lock that a thread waits for.

    `address` is None where it could not be found for certain. `owner` is the thread id that the lock records, `is_lost`
    says that no such thread is left. `waiters` counts the threads that wait for it.
    """

    kind: LockKind
    address: int | None = None
    owner: int | None = None
    is_lost: bool = False
    recursion: int = 0
    waiters: int = 0
    name: str = ""

    def __str__(self) -> str:
        """Return it in a line: `critical section 0x404010, owned by thread 2576, 2 waiting`."""
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
    """Its debug information names this section: strong evidence that it is one."""


@dataclass(frozen=True)
class Locks:
    """Finds the locks of one process's threads, whose ids are `tids`."""

    target: Target
    tids: Collection[int]
    _word: int = field(init=False, repr=False, default=4)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_word", self.target.arch.pointer_size)

    def wait(self, frames: Sequence[Frame], tid: int) -> LockWait | None:
        """Return the lock that thread `tid` waits for, by its user frames, innermost first; None if it is none."""
        for names, kind in ((_SECTION_FUNCTIONS, LockKind.CRITICAL_SECTION), (_SRW_FUNCTIONS, LockKind.SRW)):
            span = self._span(frames, names)
            if span:
                return self._critical_section(span, tid) if kind is LockKind.CRITICAL_SECTION else self._srw(span)
        return None

    def _span(self, frames: Sequence[Frame], names: frozenset[str]) -> list[Frame]:
        """Return the frames that are in such functions: those of the innermost run of them.

        Further in there is only ntdll, and at the very edge of the kernel perhaps code of no module. A thread that
        crashed while it entered a section is no longer waiting for it.
        """
        found: list[Frame] = []
        for depth, frame in enumerate(frames[:_SEARCHED_FRAMES]):
            name = name_of(self.target.symbols, frame)
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
        named = self.target.symbols.name(section.address)
        return LockWait(
            LockKind.CRITICAL_SECTION,
            section.address,
            section.owner,
            section.owner not in self.tids,
            section.recursion,
            section.waiters,
            str(named) if named.symbol and not named.offset else "",
        )

    def _by_argument(self, span: Sequence[Frame], tid: int) -> _Section | None:
        """Return the section that an x86 function was given: its first argument, outermost function first."""
        for address in self._arguments(tuple(reversed(span))):
            section = self._section(address, tid)
            if section is not None and (section.points_back or section.owner in self.tids):
                return section
        return None

    def _by_search(self, span: Sequence[Frame], tid: int) -> _Section | None:
        """Return the one section, held by a thread of this process, that registers and saved words lead to."""
        found = {}
        for address in dict.fromkeys(self._words(span)):
            section = self._section(address, tid)
            if section is not None and section.owner in self.tids:
                found[address] = section
        certain = [section for section in found.values() if section.points_back]
        waited_for = [section for section in found.values() if section.waiters]
        candidates = certain or waited_for or list(found.values())
        return candidates[0] if len(candidates) == 1 else None

    def _arguments(self, frames: Iterable[Frame]) -> Iterator[int]:
        if not self.target.arch.facts.arguments_on_stack:
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
        """Return the section at `address` if what lies there is one that another thread than `tid` holds."""
        word = self._word
        if address < 0x10000 or address % word:
            return None
        try:
            raw = self.target.memory.read(address, 2 * word + 8)
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
            return self.target.memory.pointer(address, self._word)
        except (MemoryUnreadable, OverflowError):
            return None


def _waiters(lock_count: int) -> int | None:
    """Return how many threads wait for a section with this LockCount, or None if none holds it or the figure is wild.

    A count of 0 is that of an old section without waiters, or of one that somebody is about to wait for.
    """
    count = lock_count if lock_count >= 0 else ~lock_count >> 2
    is_held = lock_count >= 0 or not lock_count & 1
    return count if is_held and count <= _MAX_WAITERS else None


class Circles(Generic[Node]):
    """Finds circles of waits. What was found out of a node is remembered: each is asked once, however many starts."""

    def __init__(self, waits_for: Callable[[Node], Iterable[Node]]) -> None:
        """Take what gives the nodes that a node waits for."""
        self._waits_for = waits_for
        self._found: dict[Node, tuple[tuple[Node, ...], int]] = {}
        """For each node that was asked, a circle that its waits are in or lead to, and where they enter it."""

    def of(self, start: Node) -> tuple[Node, ...]:
        """Return a circle of waits that `start` is in or that its waits lead to; the last node waits for the first.

        The first is where the waits of `start` enter it. Empty if there is none among the nodes that may be asked.
        """
        if start not in self._found:
            self._explore(start)
        nodes, first = self._found.get(start, ((), 0))
        return (*nodes[first:], *nodes[:first])

    def _explore(self, start: Node) -> None:
        path = {start: iter(self._waits_for(start))}
        while path and len(self._found) + len(path) < _NODE_LIMIT:
            current = next(reversed(path))
            node = next(path[current], None)
            if node is None:
                del path[current]
                self._found[current] = (), 0
            elif node in path:
                nodes = list(path)
                entry = nodes.index(node)
                circle = tuple(nodes[entry:])
                self._found.update((inner, (circle, index)) for index, inner in enumerate(circle))
                self._found.update((outer, (circle, 0)) for outer in nodes[:entry])
                return
            elif node not in self._found:
                path[node] = iter(self._waits_for(node))
            elif self._found[node][0]:
                self._found.update((outer, self._found[node]) for outer in path)
                return
