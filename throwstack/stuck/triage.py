# SPDX-License-Identifier: Apache-2.0
"""Triage finds the threads that are stuck on an unhandled exception. It tests all stacks cheaply and walks only a few.

The cheap test: does the stack hold an address inside a blocking function (`throwstack.names.blockers`)? The stack of
each stuck thread does. So do the stacks of some other threads, on which such a word is left over from an earlier call
or is plain data. A walk of the stack tells the two apart: in a stuck thread, a return address of the walk is in a
blocking function.

A thread is found not to be stuck only by proof. If its walk ends early, or ends at a zero in the middle of the stack,
the rest of the stack is searched word by word. If that finds nothing, the thread is reported as not stuck, together
with a doubt: a text that tells the user why the thread may be stuck all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from throwstack.core.frames import Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.registers import SP, Registers
from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.dispatch.fast_fail import fast_fail_at, fast_fail_exception
from throwstack.dispatch.saved_exception import SavedException
from throwstack.dispatch.search import FoundExceptions, SearchStart, exceptions_in_flight
from throwstack.dispatch.throwing_walks import throwing_walks
from throwstack.dispatch.x86 import END_OF_CHAIN
from throwstack.images.image import Image
from throwstack.names.blockers import Blocker, blocked_in, blocker_named, triage_blockers_in
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name, export_table
from throwstack.stuck.missing_names import missing_names, without_filter
from throwstack.stuck.return_words import most_promising, return_words
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.target import Target, ThreadStack, current_stack
from throwstack.unwind.x86.unwinder import registration_chain

BROKE_OFF = "the search for the saved CONTEXT broke off"
"""The beginning of the note that explains why a stuck thread has no exception."""
UNREAD_STACK = "its stack, or a part of it, cannot be read"
_MAX_FUNCTION = 0x4000
_NEAR_BASE = 0x3000
"""How far, at most, the outermost frame of a thread is from the base of the stack.

Between the two are the frame of the thread's start routine and, since Vista, a random gap of up to half a page."""


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The result of the cheap test of a thread.

    `stack` is the stack that the thread is on. `fast_fail` is the address of the int 29h at which the thread waits, or
    None. If `is_suspect` is True, the thread may be stuck. If it is False, no word of the stack that could be read is
    in a blocking function.
    """

    stack: ThreadStack
    fast_fail: int | None
    is_suspect: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """What the examination of one thread found.

    `stuck` is the stuck thread, or None if the thread was not found to be stuck. In the latter case `doubts` say why
    the thread may be stuck all the same.
    """

    stuck: StuckThread | None
    doubts: tuple[str, ...] = ()


class Triage:
    """Examines the threads of one target, one after the other."""

    def __init__(self, target: Target) -> None:
        """`target` is the process. The addresses of the blocking functions in its modules are looked up here."""
        self._target = target
        for image in without_filter(target.symbols):
            target.symbols.distrust(image)
        self._ranges = CodeRanges(_code_ranges(target), target.arch.pointer_size)
        self._extents: dict[tuple[int, int], tuple[int, int]] = {}
        self._gone_through: tuple[int, int] | None = None
        self._doubt = ""

    @cached_property
    def missing_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the modules and reasons that `throwstack.stuck.missing_names` gives for the process."""
        return missing_names(self._target.symbols)

    def look_at(self, stack: ThreadStack) -> FirstLook:
        """Make the cheap test of the thread with this stack. The thread's budgets of work begin here."""
        self._target.meter.begin_thread()
        self._extents.clear()
        self._doubt = ""
        stack = current_stack(self._target, stack)
        registers = stack.registers
        fast_fail = None if registers is None else fast_fail_at(self._target, registers.ip)
        # A thread that was running may be in a blocking function itself, which has called nothing.
        is_in_blocker = registers is not None and registers.ip in self._ranges
        return FirstLook(stack, fast_fail, fast_fail is not None or is_in_blocker or self._holds_suspect(stack))

    def examine(
        self, stack: ThreadStack, complete: Callable[[ThreadStack], ThreadStack] = lambda stack: stack
    ) -> Examination:
        """Say whether the thread with this stack is stuck, and in what.

        `complete` returns the given stack with more of the thread's registers, and does not change ip and sp. As it
        costs much, it is called only if the cheap test says that the thread may be stuck.
        """
        look = self.look_at(stack)
        stuck = self._stuck(complete(look.stack), look.fast_fail) if look.is_suspect else None
        if stuck is None:
            # Asking whether the stack is readable may spend what is left of a budget.
            unread = () if self._is_readable(look.stack) else (UNREAD_STACK,)
            doubt = (self._doubt,) if self._doubt else ()
            return Examination(None, (*unread, *self._target.meter.spent, *doubt))
        return Examination(self._with_whole_walks(stuck))

    def _with_whole_walks(self, stuck: StuckThread) -> StuckThread:
        """Return `stuck` with its throwing walks in the form that is shown.

        If this fails, the thread is reported with the walks that it has, and with a note.
        """
        notes, walks = [*stuck.notes, *self._target.meter.spent], stuck.throwing_walks
        with Guard(lambda reason: notes.append(f"throwing stack: {reason}")):
            walks = throwing_walks(self._target, stuck.stack.bounds, stuck.exceptions, walks)
        return replace(stuck, throwing_walks=walks, notes=tuple(notes))

    def _stuck(self, stack: ThreadStack, fast_fail: int | None) -> StuckThread | None:
        if stack.registers is None or fast_fail is None:
            return self._walk(stack)
        return self._failed_fast(stack, fast_fail_exception(self._target.arch, stack.registers, fast_fail))

    def _is_readable(self, stack: ThreadStack) -> bool:
        """Say whether all of the used part of the stack can be read. If not, the cheap test may have missed a word."""
        low, high = self._extent(stack)
        return (low, high) == self._gone_through or low >= high or self._target.memory.is_readable(low, high - low)

    def _holds_suspect(self, stack: ThreadStack) -> bool:
        """Say whether any aligned word in the used part of the stack is an address inside a blocking function."""
        low, high = self._extent(stack)
        is_whole = True
        for address, page in pages_between(self._target.memory, low, high):
            if page is None:
                is_whole = False
            elif any(low <= address + offset < high for offset in self._ranges.offsets(page)):
                return True
        self._gone_through = (low, high) if is_whole else None
        return False

    def _extent(self, stack: ThreadStack) -> tuple[int, int]:
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

    def _walk(self, stack: ThreadStack) -> StuckThread | None:
        notes: tuple[str, ...] = (stack.missing,) if stack.missing else ()
        if stack.registers is None:
            return self._without_walk(stack, None, 0, notes)
        walk = self._target.walk(stack.registers, stack.bounds)
        stuck = self._from_walk(stack, walk, notes, stack.registers.sp)
        if _reaches_base(walk, stack) or (stuck is not None and stuck.exceptions):
            return stuck
        reached = walk.known_to
        if walk.is_complete:
            notes += (
                f"the walk of the blocked stack ends at {reached:#x}, far from its base at {stack.bounds.base:#x}",
            )
        else:
            notes += (f"the walk of the blocked stack ended early: {walk.end.value} {walk.detail}".rstrip(),)
        further = self._without_walk(stack, walk, reached, notes)
        if stuck is None and further is None:
            self._doubt = self._may_be_in_filter(walk, notes[-1])
            if walk.is_complete and not self._doubt:
                self._doubt = self._leads_to_filter(stack, reached, notes[-1])
        if stuck is None or further is None:
            return further or (None if stuck is None else replace(stuck, notes=(*stuck.notes, *notes)))
        blockers = (*further.blocked_in, *(pair for pair in stuck.blocked_in if pair not in further.blocked_in))
        return replace(further, blocked_in=blockers)

    def _may_be_in_filter(self, walk: Walk, ending: str) -> str:
        """Return a doubt if a frame of `walk`, which ended early, may be in a function that proves an exception.

        Such a function runs only if an exception went unhandled. `ending` says how the walk ended, and the doubt begins
        with it. The result is "" if there is no such frame. Example: one bit of an entry in KERNEL32's function table
        is damaged. The walk ends at that function, and its name is doubtful because the entry no longer covers the
        address.
        """
        for frame in walk.frames:
            name = name_of(self._target.symbols, frame)
            blocker = blocker_named(name.module, name.symbol) if name.offset < _MAX_FUNCTION else None
            if blocker is not None and blocker.proves_exception and frame.trust is not Trust.SCAN:
                return f"{ending}; the frame at {frame.ip:#x} may be in {name.module}!{name.symbol}"
        return ""

    def _leads_to_filter(self, stack: ThreadStack, reached: int, ending: str) -> str:
        """Return a doubt if a word on the stack beyond `reached` may return into a function that proves an exception.

        `reached` is the stack address at which the walk ended. `ending` says how it ended, and the doubt begins with
        it. The result is "" if there is no such word.
        """
        _, high = self._extent(stack)
        for address, word in return_words(self._target, self._ranges, reached, high, self._may_return_to_filter):
            return f"{ending}; the word at {address:#x} leads to {self._target.symbols.name(word)}"
        return ""

    def _failed_fast(self, stack: ThreadStack, failure: SavedException) -> StuckThread:
        """Return the stuck thread for a thread that failed fast with the exception `failure`.

        It has the function that failed fast and the other exceptions in flight.
        """
        registers = failure.context.registers
        walk = self._target.walk(registers, stack.bounds)
        stuck = self._from_walk(stack, walk, (), registers.sp)
        if stuck is not None:
            exceptions, walks = (failure, *stuck.exceptions), (walk, *stuck.throwing_walks)
            return replace(stuck, exceptions=exceptions, throwing_walks=walks)
        name = self._target.symbols.name(registers.ip)
        blocked = SearchStart(
            walk.frames,
            registers.sp,
            is_complete=walk.is_complete,
            proves_exception=False,
            registrations=self._registrations(stack),
        )
        found = self._in_flight(stack, blocked)
        pair = (name.module, name.symbol or f"+{name.offset:#x}")
        exceptions, walks = (failure, *found.exceptions), (walk, *found.walks)
        return StuckThread(stack, (pair,), exceptions, walks, walk, found.notes)

    def _from_walk(self, stack: ThreadStack, walk: Walk, notes: tuple[str, ...], low: int) -> StuckThread | None:
        """Return the stuck thread that `walk` shows, or None if no frame of it is in a blocking function of triage.

        `low` is the stack address at which the walk starts.
        """
        names = [name_of(self._target.symbols, frame) for frame in walk.frames]
        blockers = [self._blocker(name) for name in names]
        if not any(blocker is not None and blocker.is_triage for blocker in blockers):
            return None
        pairs = [(name.module, name.symbol if blocker else "") for name, blocker in zip(names, blockers, strict=True)]
        proofs = [index for index, blocker in enumerate(blockers) if blocker is not None and blocker.proves_exception]
        blocked = SearchStart(
            walk.frames,
            max(low, walk.frames[proofs[0]].sp) if proofs else low,
            is_complete=walk.is_complete,
            proves_exception=bool(proofs),
            registrations=self._registrations(stack),
        )
        found = self._in_flight(stack, blocked)
        notes = (*notes, *found.notes)
        if proofs and not found.exceptions:
            notes += ("the saved CONTEXT was not found",)
        return StuckThread(stack, blocked_in(pairs), found.exceptions, found.walks, walk, notes)

    def _in_flight(self, stack: ThreadStack, blocked: SearchStart) -> FoundExceptions:
        """Return the exceptions in flight on the thread, which is known to be stuck.

        If the search fails, the result has no exceptions and a note, so that the thread is reported all the same.
        """
        found: list[FoundExceptions] = []
        notes: list[str] = []
        with Guard(lambda reason: notes.append(f"{BROKE_OFF}: {reason}")):
            found.append(exceptions_in_flight(self._target, stack.bounds, blocked))
        return found[0] if found else FoundExceptions(notes=tuple(notes))

    def _without_walk(
        self, stack: ThreadStack, walk: Walk | None, reached: int, notes: tuple[str, ...]
    ) -> StuckThread | None:
        """Return the stuck thread that a walk from a word on the stack shows, or None if no such walk finds one.

        The words tried are those from the address `reached` on that may be return addresses into a function that proves
        an exception. Such a word may be left over from an earlier call, and a note of the result says so. `walk` is the
        thread's own walk, or None if there is none.
        """
        size, meter = self._target.arch.pointer_size, self._target.meter
        low, high = self._extent(stack)
        found = tuple(return_words(self._target, self._ranges, max(low, reached), high, self._may_return_to_filter))
        chosen = most_promising(self._target, found, meter.left(meter.budgets.resumed), high)
        for address, word in chosen:
            if not meter.take(meter.budgets.resumed):
                break
            gpr = [None] * len(self._target.arch.register_names)
            registers = Registers(word, (*gpr[:SP], address + size, *gpr[SP + 1 :]))
            resumed = self._target.walk(registers, stack.bounds, trust=Trust.SCAN)
            stuck = self._from_walk(stack, resumed, notes, address)
            if stuck is not None and stuck.exceptions and self._is_active(stack, address, stuck.exceptions[0]):
                guess = f"found by the word at {address:#x}, which may be of an earlier time"
                return replace(stuck, blocked_walk=walk, notes=(*stuck.notes, guess))
        if len(chosen) < len(found):
            meter.refuse(meter.budgets.resumed)
        return None

    def _may_return_to_filter(self, word: int) -> bool:
        """Say whether `word` may be a return address into a function that runs only if an exception went unhandled."""
        return (
            self._proves_exception(self._target.symbols.name(word, is_return_address=True))
            and is_after_call(self._target.memory, word) is not False
        )

    def _registrations(self, stack: ThreadStack) -> tuple[int, ...] | None:
        if not self._target.arch.facts.has_exception_list or stack.exception_list is None:
            return None
        chain = registration_chain(self._target.memory, stack.exception_list, stack.bounds)
        return chain if chain or stack.exception_list == END_OF_CHAIN else None

    def _is_active(self, stack: ThreadStack, low: int, exception: SavedException) -> bool:
        """Say whether the thread's exception registrations allow that `exception` is in flight.

        `low` is the address of the frame of UnhandledExceptionFilter. On x86 UnhandledExceptionFilter is called from a
        handler, and while a handler runs, ExecuteHandler's registration is in the chain, between that frame and the
        CONTEXT. An exception that a module reports itself, without dispatching it, has no such registration, but its
        CONTEXT is in a global variable of the module and not on the stack. The result is True if the registrations are
        not known or the CONTEXT is not on the stack.
        """
        registrations = self._registrations(stack)
        if registrations is None or not stack.bounds.contains(exception.context.address):
            return True
        return any(low <= node < exception.context.address for node in registrations)

    def _proves_exception(self, name: Name) -> bool:
        blocker = self._blocker(name)
        return blocker is not None and blocker.proves_exception

    def _blocker(self, name: Name) -> Blocker | None:
        """Return the blocking function that `name` names, or None.

        A name is doubtful if the address may be in another function after the named one. On x64 the result for a
        doubtful name is None. On x86 a name is doubtful merely because the address is far from the symbol, and
        UnhandledExceptionFilter is long: on Windows XP its call of ReportFault returns to +0x55b. So on x86 a doubtful
        name is accepted if its function proves an exception, that is, runs only if one went unhandled.
        """
        blocker = blocker_named(name.module, name.symbol) if name.offset < _MAX_FUNCTION else None
        if blocker is None or not name.is_doubtful:
            return blocker
        return None if self._target.arch.facts.has_function_table or not blocker.proves_exception else blocker


def _reaches_base(walk: Walk, stack: ThreadStack) -> bool:
    """Say whether `walk` went through all of the stack.

    The outermost frame of a thread has the return address 0. A walk that went wrong (the code of a called function is
    on an absent page, or an entry of unwind data is damaged) may read a 0 in the middle of the stack and take it for
    that return address. So the last frame must also be near the base of the stack.
    """
    above = stack.bounds.base - walk.frames[-1].sp if walk.frames else 0  # negative on a stack that is a fiber's
    return walk.is_complete and above <= _NEAR_BASE


def _code_ranges(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (first, last) address inside each blocking function of the target's modules.

    The first byte of a function is left out: no return address points to it.
    """
    highest = (1 << 8 * target.arch.pointer_size) - 1
    for image in target.images:
        for blocker in triage_blockers_in(image.module.label):
            rva = target.symbols.rva_of(image, blocker.symbol)
            # A damaged export may point outside the address space. No word of a stack is an address there.
            if rva is not None and image.base + rva < highest:
                yield image.base + rva + 1, min(image.base + rva + _longest(image, blocker, rva), highest)


def _longest(image: Image, blocker: Blocker, rva: int) -> int:
    """Return how far from the start of the function `blocker` at `rva` a return address into it may be.

    Most functions end at the latest where the next export begins. A function that proves an exception, such as
    UnhandledExceptionFilter, may have parts after the next export, so that only a fixed limit applies.
    """
    following = None if blocker.proves_exception else export_table(image).next_after(rva)
    return _MAX_FUNCTION if following is None else min(_MAX_FUNCTION, following - rva)
