# SPDX-License-Identifier: Apache-2.0
"""The cheap test of a thread: does its stack hold an address in a blocking function or in the dispatcher?

Blocking functions are those of `throwstack.names.blockers`, the dispatcher's those of
`throwstack.names.dispatch_functions`. The stack of each stuck thread holds such an address. So do the stacks of some
other threads, on which it is left over from an earlier call or is plain data: a walk tells the two apart. If none of
ntdll's names could be read, a CONTEXT on the stack is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.core.stop import Stop
from throwstack.dispatch.context_scan import context_offsets
from throwstack.dispatch.fast_fail import fast_fail_at
from throwstack.images.image import Image
from throwstack.names.blockers import linked_blockers, triage_blockers_in
from throwstack.names.dispatch_functions import DISPATCHERS_MODULE, DispatchRole, role_of, searched_in
from throwstack.names.symbols import Name, export_table
from throwstack.unwind.target import Target, ThreadStack, current_stack

MAX_FUNCTION = 0x4000
"""How far from its start, at most, an address is taken to be in a function, if nothing says for certain that it is."""
_SEARCHED_CODE, _CALL = 0x80, b"\xe8"
_OF_WINDOWS = re.compile(r"\\(windows|winnt)\\", re.IGNORECASE)
_MAX_PROGRAM_IMAGES = 256


def may_be_in_function(name: Name) -> bool:
    """Say whether the address of `name` may be in the function that it names.

    A part that the linker put apart from its function may be far from the function's start. Such a name is certain.
    """
    return name.is_certain or name.offset < MAX_FUNCTION


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The result of the cheap test of a thread.

    `stack` is the stack that the thread is on. `fast_fail` is the address of the int 29h at which the thread waits, or
    None. If `is_suspect` is True, the thread may be stuck. If it is False, no word of the stack that could be read is
    in a blocking function or in the dispatcher.
    """

    stack: ThreadStack
    fast_fail: int | None
    is_suspect: bool


class Suspects:
    """Makes the cheap test of the threads of one target, one after the other."""

    def __init__(self, target: Target) -> None:
        """`target` is the process. The addresses of the functions in its modules are looked up here."""
        self._target = target
        dispatch = list(_dispatch_ranges(target))
        self.dispatch = CodeRanges(dispatch, target.arch.pointer_size)
        """The code ranges of the dispatcher's functions."""
        blocking = chain(_blocking_ranges(target), _linked_ranges(target))
        self.ranges = CodeRanges(chain(blocking, dispatch), target.arch.pointer_size)
        """These, and the code ranges of the blocking functions."""
        self._is_ntdll_unnamed = _is_ntdll_unnamed(target)
        self._extents: dict[tuple[int, int], tuple[int, int]] = {}
        self._gone_through: tuple[int, int] | None = None

    def look_at(self, stack: ThreadStack) -> FirstLook:
        """Make the cheap test of the thread with this stack. The thread's budgets of work begin here."""
        self._target.meter.begin_thread()
        self._extents.clear()
        stack = current_stack(self._target, stack)
        registers = stack.registers
        fast_fail = None if registers is None else fast_fail_at(self._target, registers.ip)
        # A thread that was running may be in a blocking function itself, which has called nothing.
        is_in_blocker = registers is not None and registers.ip in self.ranges
        return FirstLook(stack, fast_fail, fast_fail is not None or is_in_blocker or self._holds_suspect(stack))

    def is_readable(self, stack: ThreadStack) -> bool:
        """Say whether all of the used part of the stack can be read. If not, the cheap test may have missed a word."""
        low, high = self.extent(stack)
        return (low, high) == self._gone_through or low >= high or self._target.memory.is_readable(low, high - low)

    def extent(self, stack: ThreadStack) -> tuple[int, int]:
        """Return the addresses between which the used part of the stack is.

        The part is cut to the bytes that the thread's budget still allows.
        """
        low = stack.bounds.limit if stack.registers is None else stack.registers.sp
        size = self._target.arch.pointer_size
        low = (low + size - 1) & -size
        key = low, stack.bounds.base
        if key not in self._extents:
            meter = self._target.meter
            self._extents[key] = low, low + meter.take(meter.budgets.stack, max(stack.bounds.base - low, 0))
        return self._extents[key]

    def _holds_suspect(self, stack: ThreadStack) -> bool:
        """Say whether any aligned word in the used part of the stack is in one of the ranges."""
        low, high = self.extent(stack)
        is_whole = True
        for address, page in pages_between(self._target.memory, low, high):
            if page is None:
                is_whole = False
            elif any(low <= address + offset < high for offset in self._offsets(page)):
                return True
        self._gone_through = (low, high) if is_whole else None
        return False

    def _offsets(self, page: bytes) -> Iterable[int]:
        """Return where in a page of stack something makes a suspect: words in the ranges.

        Where ntdll has no names, the dispatcher has no range, and a CONTEXT makes a suspect.
        """
        if not self._is_ntdll_unnamed:
            return self.ranges.offsets(page)
        return chain(self.ranges.offsets(page), context_offsets(page, self._target.arch))


def _is_ntdll_unnamed(target: Target) -> bool:
    """Say whether no function of ntdll's dispatcher can be found by name."""
    images = [image for image in target.images if image.module.label.lower() == DISPATCHERS_MODULE]
    return bool(images) and not any(
        target.symbols.rva_of(image, symbol) is not None for image in images for symbol in searched_in("ntdll")
    )


def _blocking_ranges(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (first, last) address inside each blocking function of the target's modules."""
    for image in target.images:
        blockers = triage_blockers_in(image.module.label)
        if not blockers:
            continue
        found = zip(blockers, target.symbols.rvas_of(image, [one.symbol for one in blockers]), strict=True)
        for blocker, rva in found:
            if rva is not None:
                yield from _range(target, image, rva, _longest(image, rva, has_parts=blocker.proves_exception))


def _linked_ranges(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (first, last) address inside each function of a C runtime that is linked into a module of the program.

    Only a PDB names such a function. To look for the PDBs of all programs on servers would take long and tell the
    servers much, so that this is done for PDBs that are in a directory of the symbol path.
    """
    pdb_of = target.symbols.at_hand
    if pdb_of is None:
        return
    program = (image for image in target.images if not _OF_WINDOWS.search(image.module.path))
    for image in islice(program, _MAX_PROGRAM_IMAGES):
        table = pdb_of(image)
        if table is not None:
            extents = (table.extent_of(blocker.symbol, MAX_FUNCTION) for blocker in linked_blockers())
            yield from chain.from_iterable(_range(target, image, *extent) for extent in extents if extent is not None)


def _dispatch_ranges(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (first, last) address inside each of the dispatcher's functions in the target's modules."""
    for image in target.images:
        symbols = searched_in(image.module.label)
        if not symbols:
            continue
        for symbol, rva in zip(symbols, target.symbols.rvas_of(image, symbols), strict=True):
            if rva is None:
                continue
            yield from _range(target, image, rva, _longest(image, rva, has_parts=False))
            if role_of(symbol) is DispatchRole.DISPATCHER:
                yield from _searcher_range(target, image, rva)


def _searcher_range(target: Target, image: Image, rva: int) -> Iterator[tuple[int, int]]:
    """Yield the range of RtlDispatchException, which is not exported: what the dispatcher at `rva` calls first."""
    code = image.memory.read_available(image.base + rva, _SEARCHED_CODE)
    at = code.find(_CALL)
    while 0 <= at <= len(code) - 5:
        called = rva + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
        if called > 0 and image.is_code(image.base + called) and _begins_function(target, image, called):
            yield from _range(target, image, called, _longest(image, called, has_parts=False))
            return
        at = code.find(_CALL, at + 1)


def _begins_function(target: Target, image: Image, rva: int) -> bool:
    """Say whether a function begins at `rva`, as far as the image's function table tells."""
    if not target.arch.facts.has_function_table:
        return True
    table = image.function_table
    entry = None if table is None else table.nearest(rva)
    return entry is not None and not isinstance(entry, Stop) and entry.begin == rva


def _range(target: Target, image: Image, rva: int, longest: int) -> Iterator[tuple[int, int]]:
    """Yield the range of the function at `rva`, without its first byte: no return address points to that.

    A damaged export may point outside the address space. No word of a stack is an address there.
    """
    highest = (1 << 8 * target.arch.pointer_size) - 1
    if image.base + rva < highest:
        yield image.base + rva + 1, min(image.base + rva + longest, highest)


def _longest(image: Image, rva: int, *, has_parts: bool) -> int:
    """Return how far from the start of the function at `rva` a return address into it may be.

    Most functions end at the latest where the next export begins. A function that `has_parts`, such as
    UnhandledExceptionFilter, may go on after that, so that only a fixed limit applies.
    """
    following = None if has_parts else export_table(image).next_after(rva)
    return MAX_FUNCTION if following is None else min(MAX_FUNCTION, following - rva)
