# SPDX-License-Identifier: Apache-2.0
"""From a thread of Windows to the runtime's Thread structure of it.

The runtime keeps a pointer to its Thread in its block of static thread-local storage: TEB.ThreadLocalStoragePointer, an
array that the image's TLS index selects from. .NET Framework keeps it in one of TEB.TlsSlots. At which offset it is
differs by version, so that all pointers there are looked at: a Thread has both the thread's id and the TEB's own
address in its first 1,024 bytes. The two offsets are the same for all threads of the process, and the threads vote on
them. For example, one heap block beside a Thread looked alike in a process of .NET Core 3.1; no other thread agreed
with it.

With a contract, the two offsets are known. Offsets of the TEB are those of all versions of Windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.stack_words import words_equal
from throwstack.images.image import Image
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import RuntimeMemory

_SEARCHED = 0x400
_VOTERS, _VOTERS_BY_STACK = 48, 12
"""How many threads vote; more than these agree with them or are no threads of the runtime."""
_MAX_BLOCK = 0x2000
_SEARCHED_STACK = 0x20000
"""How many bytes of a stack, from its base on, are searched for the address of the Thread."""
_MAX_CONTRACT_THREADS = 1 << 14
_SEEN = {(0x204, 0xA0), (0x1D8, 0x98), (0x1B8, 0x98), (0x130, 0x30), (0x148, 0x6C)}
"""Where id and TEB are in .NET Core 2.1, 3.1, .NET 8, .NET 10 (x64) and .NET Core 2.1 (x86): tried first in a tie."""
_TLS_DIRECTORY = 9
_OPTIONAL_HEADER = 24
_SLOTS = 64

Offsets = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Teb:
    """Offsets in a TEB: ThreadLocalStoragePointer, TlsSlots; and of the directories in the PE's optional header."""

    storage: int
    slots: int
    directories: int


_TEBS = {4: _Teb(0x2C, 0xE10, 96), 8: _Teb(0x58, 0x1480, 112)}


@dataclass(frozen=True, slots=True)
class RuntimeThread:
    """A Thread of the runtime: its address, and the offset in it of the id of Windows' thread, both in bytes."""

    address: int
    id_at: int


class RuntimeThreads:
    """The Thread structures of the runtime `runtime`, by the thread id of Windows."""

    __slots__ = ("_asked", "_layout", "_memory", "_offsets", "_runtime", "_tebs", "_threads")

    def __init__(
        self, memory: RuntimeMemory, layout: RuntimeLayout, runtime: Image, threads: Sequence[tuple[int, int]]
    ) -> None:
        """`threads` are pairs (thread id, address of the TEB), of the side of the process on which the runtime is."""
        self._memory = memory
        self._layout = layout
        self._runtime = runtime
        self._threads = threads
        self._tebs = dict(threads)
        self._offsets: tuple[Offsets, ...] | None = None
        self._asked: dict[int, RuntimeThread | None] = {}

    def thread(self, tid: int) -> RuntimeThread | None:
        """Return the Thread of thread `tid`; None if the runtime has none, or none is found.

        Raises BudgetSpent.
        """
        if tid not in self._asked:
            self._asked[tid] = self._find(tid)
        return self._asked[tid]

    def teb(self, tid: int) -> int:
        """Return the address of the TEB of thread `tid`, 0 if it is not known."""
        return self._tebs.get(tid, 0)

    def places(self, tid: int) -> list[tuple[str, int, int]]:
        """Return where a pointer to the Thread of `tid` may be: what is there, its address, its size in bytes."""
        teb, at = self.teb(tid), _TEBS[self._memory.size]
        blocks = [("block of thread-local storage", place, size) for place, size in self._block(teb)] if teb else []
        return [*blocks, ("TlsSlots", teb + at.slots, _SLOTS * self._memory.size)] if teb else []

    def learnt(self) -> list[str]:
        """Return where a Thread has the thread's id and its TEB, and how many Threads were found, in words."""
        places = ", ".join(f"{id_at:#x} and {teb_at:#x}" for id_at, teb_at in self._offsets or ())
        found = sum(thread is not None for thread in self._asked.values())
        return [f"id and TEB in a Thread: at {places or 'no place'}; {found} of {len(self._asked)} Threads were found"]

    def _find(self, tid: int) -> RuntimeThread | None:
        teb = self._tebs.get(tid, 0)
        if teb:
            if self._offsets is None:
                self._offsets = self._vote()
            for at in self._offsets:
                for thread in self._pointers(teb):
                    if at in self._offsets_in(thread, tid, teb):
                        return RuntimeThread(thread, at[0])
        return self._of_contract(tid) or (self._on_stack(tid, teb) if teb else None)

    def _vote(self) -> tuple[Offsets, ...]:
        """Return the offsets of thread id and TEB in a Thread that most threads have; the likeliest first."""
        contract = self._layout.contract
        if contract is not None:
            known = contract.fields.get("Thread", {})
            if "OSId" in known and "TEB" in known:
                return ((known["OSId"], known["TEB"]),)
        return self._elected(self._threads[:_VOTERS], self._pointers) or (
            # The page of the storage is lost, or the runtime's own headers are: the addresses are on the stacks too.
            self._elected(self._threads[:_VOTERS_BY_STACK], self._stack_pointers)
        )

    def _elected(
        self, threads: Sequence[tuple[int, int]], pointers: Callable[[int], Iterator[int]]
    ) -> tuple[Offsets, ...]:
        votes: Counter[Offsets] = Counter()
        for tid, teb in threads:
            votes.update({at for thread in pointers(teb) for at in self._offsets_in(thread, tid, teb)})
        most = max(votes.values(), default=0)
        elected = [at for at, count in votes.items() if count == most]
        return tuple(sorted(elected, key=lambda at: at not in _SEEN))

    def _offsets_in(self, thread: int, tid: int, teb: int) -> Iterator[Offsets]:
        """Yield each pair of offsets at which the structure at `thread` has the id of a thread and its TEB."""
        memory = self._memory
        memory.spend()
        data = memory.memory.read_available(thread, _SEARCHED)
        tebs = list(words_equal(data, teb, memory.size))
        if tebs:
            for id_at in words_equal(data, tid, 4):
                for teb_at in tebs:
                    yield id_at, teb_at

    def _pointers(self, teb: int) -> Iterator[int]:
        """Yield the addresses to which the runtime's thread-local storage points, and the slots of the TEB."""
        memory, at = self._memory, _TEBS[self._memory.size]
        seen: set[int] = set()
        for place, size in (*self._block(teb), (teb + at.slots, _SLOTS * memory.size)):
            for value in memory.words(place, size // memory.size):
                if memory.is_new(value, seen) and memory.is_pointer(value):
                    yield value

    def _block(self, teb: int) -> Iterator[tuple[int, int]]:
        """Yield address and size in bytes of the runtime's block of static thread-local storage, if there is one."""
        memory, at = self._memory, _TEBS[self._memory.size]
        base, size = self._runtime.base, memory.size
        try:
            header = base + memory.memory.u32(base + 0x3C) + _OPTIONAL_HEADER
            rva = memory.memory.u32(header + at.directories + 8 * _TLS_DIRECTORY)
            if not rva or not self._runtime.module.contains(base + rva):
                return
            first, end, index_at = (memory.word(base + rva + step * size) for step in range(3))
            zeros = memory.memory.u32(base + rva + 4 * size)
            index = memory.memory.u32(index_at)
            if index >= 1 << 16:
                return
            block = memory.word(memory.word(teb + at.storage) + index * size)
        except MemoryUnreadable:
            return
        if memory.is_pointer(block):
            yield block, min(max(end - first, 0) + zeros, _MAX_BLOCK)

    def _on_stack(self, tid: int, teb: int) -> RuntimeThread | None:
        """Return the Thread of thread `tid` by the words of its stack: functions of the runtime have it there."""
        for value in self._stack_pointers(teb):
            for at in self._offsets or ():
                if at in self._offsets_in(value, tid, teb):
                    return RuntimeThread(value, at[0])
        return None

    def _stack_pointers(self, teb: int) -> Iterator[int]:
        """Yield the addresses to which the words of a thread's stack point, those nearest to its base first.

        Words below the stack pointer count as well: they are of the same thread. Pages that are absent are passed over:
        most stacks are committed for less than what is searched.
        """
        memory = self._memory
        try:
            base = memory.word(teb + memory.size)
        except MemoryUnreadable:
            return
        seen = {teb}
        for page in range(base - PAGE_SIZE, base - _SEARCHED_STACK - PAGE_SIZE, -PAGE_SIZE):
            for value in reversed(memory.words(page, PAGE_SIZE // memory.size)):
                if memory.is_new(value, seen) and memory.is_pointer(value):
                    yield value

    def _of_contract(self, tid: int) -> RuntimeThread | None:
        """Return the Thread of thread `tid` from the runtime's own list, which only a contract names."""
        contract, memory = self._layout.contract, self._memory
        if contract is None:
            return None
        known, store = contract.fields.get("Thread", {}), contract.fields.get("ThreadStore", {})
        variable = contract.globals.get("ThreadStore", 0)
        if not variable or not {"LinkNext", "OSId"} <= known.keys() or "FirstThreadLink" not in store:
            return None
        try:
            link = memory.word(memory.word(variable) + store["FirstThreadLink"])
            seen: set[int] = set()
            while memory.is_pointer(link) and link not in seen and len(seen) < _MAX_CONTRACT_THREADS:
                seen.add(link)
                memory.spend()
                thread = link - known["LinkNext"]
                if memory.memory.u32(thread + known["OSId"]) == tid:
                    return RuntimeThread(thread, known["OSId"])
                link = memory.word(link)
        except MemoryUnreadable:
            pass
        return None
