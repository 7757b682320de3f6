# SPDX-License-Identifier: Apache-2.0
"""Which threads are stuck on an unhandled exception: a cheap question for all, a walk for the few that say yes.

The cheap question: does the stack hold an address inside a blocking function (`throwstack.names.blockers`)? It does
for every stuck thread and for a few others, whose words are stale or plain data. The walk tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from throwstack.core.frames import Trust, Walk
from throwstack.core.guard import Guard
from throwstack.core.registers import SP, Registers
from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.dispatch.fast_fail import failed_fast
from throwstack.dispatch.saved import Route, SavedException
from throwstack.dispatch.search import Blocked, InFlight, exceptions_in_flight
from throwstack.dispatch.x86 import END_OF_CHAIN
from throwstack.images.image import Image
from throwstack.names.blockers import Blocker, BlockerKind, blocked_in, blocker_named, triage_blockers_in
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name, export_table
from throwstack.stuck.missing_names import missing_names, without_filter
from throwstack.stuck.suspects import places, worth_resuming
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.target import Target, ThreadStack, current_stack
from throwstack.unwind.x86.unwinder import registration_chain

BROKE_OFF = "the search for the saved CONTEXT broke off"
"""How the note begins that explains why a stuck thread has no exception."""
_MAX_FUNCTION = 0x4000
_NEAR_BASE = 0x3000
"""Bytes above a thread's outermost frame: its start routine's, and since Vista up to half a page that is random."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A thread that is stuck: in what, on which exceptions (innermost first), on which stack.

    `blocked_in` holds (module label, symbol) pairs: first the function that explains the wait, then the others from
    the outermost inwards.
    """

    target: Target
    stack: ThreadStack
    blocked_in: tuple[tuple[str, str], ...]
    exceptions: tuple[SavedException, ...]
    walk: Walk | None
    notes: tuple[str, ...]

    @property
    def kinds(self) -> tuple[BlockerKind, ...]:
        """Return what kinds of blockers the thread is stuck in."""
        found = (blocker_named(module, symbol) for module, symbol in self.blocked_in)
        kinds = tuple(blocker.kind for blocker in found if blocker is not None)
        is_fast = any(Route.FAST_FAIL in exception.routes for exception in self.exceptions)
        return (*kinds, BlockerKind.FAIL_FAST) if is_fast and BlockerKind.FAIL_FAST not in kinds else kinds

    def throwing_walk(self, exception: SavedException) -> Walk:
        """Unwind the stack that threw `exception`, from its saved CONTEXT.

        An x86 stack has no return address where the kernel interrupted it. Where the walk has not found its way through
        the dispatcher of an exception further out, the stack goes on from that one's own CONTEXT.
        """
        walk = self.target.unwinder.walk(exception.context.registers, self.stack.bounds)
        if not self.target.arch.facts.has_exception_list:
            return walk
        for outer in self.exceptions[self.exceptions.index(exception) + 1 :]:
            if any((frame.ip, frame.sp) == outer.key for frame in walk.frames):
                continue
            inside = tuple(frame for frame in walk.frames if frame.sp < outer.context.address)
            beyond = self.target.unwinder.walk(outer.context.registers, self.stack.bounds)
            if not inside or not beyond.frames:
                break
            gap = "" if len(inside) < len(walk.frames) else f"; the frames between are not known: {walk.end.value}"
            code = f"{outer.record.code:#010x}"
            first = replace(beyond.frames[0], note=f"raised {code}, whose dispatch led to the frame inside{gap}")
            walk = replace(beyond, frames=(*inside, first, *beyond.frames[1:]))
        return walk


class Triage:
    """Examines the threads of one target; where its blocking functions lie is found once."""

    def __init__(self, target: Target) -> None:
        """Find the blocking functions among the modules of `target`."""
        self._target = target
        for image in without_filter(target.symbols):
            target.symbols.distrust(image)
        self._ranges = CodeRanges(_code_ranges(target), target.arch.pointer_size)
        self._extents: dict[tuple[int, int], tuple[int, int]] = {}
        self._gone_through: tuple[int, int] | None = None
        self.doubt = ""
        """Why the last thread that was examined may be stuck though it is not said to be; empty if nothing says so."""

    @cached_property
    def missing_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the modules no function of which has a name, so that nobody is found there, and reasons for others.

        See `throwstack.stuck.missing_names`.
        """
        return missing_names(self._target.symbols)

    @property
    def spent(self) -> tuple[str, ...]:
        """Return which budgets were less than the last thread wanted, which may have hidden something."""
        return self._target.meter.spent

    @property
    def pages_looked_at(self) -> int:
        """Return how many pages of stacks were gone through so far, each that comes again once."""
        return self._ranges.pages_looked_at

    def is_readable(self, stack: ThreadStack) -> bool:
        """Say whether all of the stack that is in use can be read, or else `is_suspect` may have missed something."""
        low, high = self._extent(current_stack(self._target, stack))
        return (low, high) == self._gone_through or low >= high or self._target.memory.is_readable(low, high - low)

    def is_suspect(self, stack: ThreadStack) -> bool:
        """Ask the cheap question: False means that the thread is not stuck. The budgets of a thread begin here."""
        self._target.meter.begin_thread()
        self._extents.clear()
        self.doubt = ""
        if self._stands_in_blocker(stack) or failed_fast(self._target, stack.registers) is not None:
            return True
        return self._holds_suspect(current_stack(self._target, stack))

    def examine(self, stack: ThreadStack) -> Stuck | None:
        """Say what the thread with this stack is stuck in, or return None if it is not stuck."""
        stack = current_stack(self._target, stack)
        failure = failed_fast(self._target, stack.registers)
        if failure is not None:
            stuck: Stuck | None = self._failed_fast(stack, failure)
        else:
            is_suspect = self._stands_in_blocker(stack) or self._holds_suspect(stack)
            stuck = self._walk(stack) if is_suspect else None
        return stuck if stuck is None or not self.spent else replace(stuck, notes=(*stuck.notes, *self.spent))

    def _stands_in_blocker(self, stack: ThreadStack) -> bool:
        """Say whether the thread is in a blocking function itself, which may have called nothing: it was running."""
        return stack.registers is not None and stack.registers.ip in self._ranges

    def _holds_suspect(self, stack: ThreadStack) -> bool:
        """Say whether any aligned word of the stack lies inside a blocking function."""
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
        """Return the first and the last address of the part that is in use, as far as the budget goes."""
        low = stack.bounds.limit if stack.registers is None else stack.registers.sp
        size = self._target.arch.pointer_size
        low = (low + size - 1) & -size
        key = low, stack.bounds.base
        if key not in self._extents:
            meter = self._target.meter
            self._extents[key] = low, low + meter.take(meter.budgets.stack, max(stack.bounds.base - low, 0))
        return self._extents[key]

    def _walk(self, stack: ThreadStack) -> Stuck | None:
        notes: tuple[str, ...] = (stack.missing,) if stack.missing else ()
        if stack.registers is None:
            return self._without_walk(stack, None, 0, notes)
        walk = self._target.walk(stack.registers, stack.bounds)
        stuck = self._from_walk(stack, walk, notes, stack.registers.sp)
        if _reaches_base(walk, stack) or (stuck is not None and stuck.exceptions):
            return stuck
        reached = walk.frames[-1].sp if walk.frames else 0
        if walk.is_complete:
            notes += (
                f"the walk of the blocked stack ends at {reached:#x}, far from its base at {stack.bounds.base:#x}",
            )
        else:
            notes += (f"the walk of the blocked stack ended early: {walk.end.value} {walk.detail}".rstrip(),)
        further = self._without_walk(stack, walk, reached, notes)
        if stuck is None and further is None:
            self.doubt = self._may_be_in_filter(walk, notes[-1])
            if walk.is_complete and not self.doubt:
                self.doubt = self._leads_to_filter(stack, reached, notes[-1])
        if stuck is None or further is None:
            return further or (None if stuck is None else replace(stuck, notes=(*stuck.notes, *notes)))
        blockers = (*further.blocked_in, *(pair for pair in stuck.blocked_in if pair not in further.blocked_in))
        return replace(further, blocked_in=blockers)

    def _may_be_in_filter(self, walk: Walk, ending: str) -> str:
        """Say that a walk which ended early went through what may be a function that proves an exception.

        A damaged entry of the image's function table makes the name of its own function doubtful and ends the walk.
        """
        for frame in walk.frames:
            name = name_of(self._target.symbols, frame)
            blocker = blocker_named(name.module, name.symbol) if name.offset < _MAX_FUNCTION else None
            if blocker is not None and blocker.proves_exception and frame.trust is not Trust.SCAN:
                return f"{ending}; the frame at {frame.ip:#x} may be in {name.module}!{name.symbol}"
        return ""

    def _leads_to_filter(self, stack: ThreadStack, reached: int, ending: str) -> str:
        """Say that a word leads into a function that proves an exception, on the part that a walk did not reach."""
        _, high = self._extent(stack)
        for address, word in places(self._target, self._ranges, reached, high, self._may_return_to_filter):
            return f"{ending}; the word at {address:#x} leads to {self._target.symbols.name(word)}"
        return ""

    def _failed_fast(self, stack: ThreadStack, failure: SavedException) -> Stuck:
        """Say in which function the thread failed fast, and what was being handled when it did."""
        registers = failure.context.registers
        walk = self._target.walk(registers, stack.bounds)
        stuck = self._from_walk(stack, walk, (), registers.sp)
        if stuck is not None:
            return replace(stuck, exceptions=(failure, *stuck.exceptions))
        name = self._target.symbols.name(registers.ip)
        blocked = Blocked(
            walk.frames,
            registers.sp,
            is_complete=walk.is_complete,
            proves_exception=False,
            registrations=self._registrations(stack),
        )
        found = self._in_flight(stack, blocked)
        pair = (name.module, name.symbol or f"+{name.offset:#x}")
        return Stuck(self._target, stack, (pair,), (failure, *found.exceptions), walk, found.notes)

    def _from_walk(self, stack: ThreadStack, walk: Walk, notes: tuple[str, ...], low: int) -> Stuck | None:
        """Say what a walk that starts at the stack address `low` shows the thread to be stuck in, or None."""
        names = [name_of(self._target.symbols, frame) for frame in walk.frames]
        blockers = [self._blocker(name) for name in names]
        if not any(blocker is not None and blocker.is_triage for blocker in blockers):
            return None
        pairs = [(name.module, name.symbol if blocker else "") for name, blocker in zip(names, blockers, strict=True)]
        proofs = [index for index, blocker in enumerate(blockers) if blocker is not None and blocker.proves_exception]
        blocked = Blocked(
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
        return Stuck(self._target, stack, blocked_in(pairs), found.exceptions, walk, notes)

    def _in_flight(self, stack: ThreadStack, blocked: Blocked) -> InFlight:
        """Return the exceptions in flight; the thread is stuck by now, so that a fault here must not cost its row."""
        found: list[InFlight] = []
        notes: list[str] = []
        with Guard(lambda reason: notes.append(f"{BROKE_OFF}: {reason}")):
            found.append(exceptions_in_flight(self._target, stack.bounds, blocked))
        return found[0] if found else InFlight(notes=tuple(notes))

    def _without_walk(
        self, stack: ThreadStack, walk: Walk | None, reached: int, notes: tuple[str, ...]
    ) -> Stuck | None:
        """Take a word from `reached` on as a return address into a blocker if a saved exception follows on the stack.

        The stack is walked once more from there. What the words tell may be of an earlier time, and the row says so.
        """
        size, meter = self._target.arch.pointer_size, self._target.meter
        low, high = self._extent(stack)
        found = tuple(places(self._target, self._ranges, max(low, reached), high, self._may_return_to_filter))
        chosen = worth_resuming(self._target, found, meter.left(meter.budgets.resumed), high)
        for address, word in chosen:
            if not meter.take(meter.budgets.resumed):
                break
            gpr = [None] * len(self._target.arch.register_names)
            registers = Registers(word, (*gpr[:SP], address + size, *gpr[SP + 1 :]))
            resumed = self._target.walk(registers, stack.bounds, trust=Trust.SCAN)
            stuck = self._from_walk(stack, resumed, notes, address)
            if stuck is not None and stuck.exceptions and self._is_active(stack, address, stuck.exceptions[0]):
                guess = f"found by the word at {address:#x}, which may be of an earlier time"
                return replace(stuck, walk=walk, notes=(*stuck.notes, guess))
        if len(chosen) < len(found):
            meter.refuse(meter.budgets.resumed)
        return None

    def _may_return_to_filter(self, word: int) -> bool:
        """Say whether a word is one that a call in a function that proves an exception may have left."""
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
        """Say whether the thread's registrations leave room for a dispatch of `exception` that reaches down to `low`.

        On x86 a handler is being asked, so that a registration of the dispatcher lies between the two; or the exception
        never was dispatched, and its CONTEXT is a global of the module that reported it.
        """
        registrations = self._registrations(stack)
        if registrations is None or not stack.bounds.contains(exception.context.address):
            return True
        return any(low <= node < exception.context.address for node in registrations)

    def _proves_exception(self, name: Name) -> bool:
        blocker = self._blocker(name)
        return blocker is not None and blocker.proves_exception

    def _blocker(self, name: Name) -> Blocker | None:
        """Return the blocker that a name is; None where another function may lie behind the symbol.

        On x86 distance alone makes a name doubtful, and UnhandledExceptionFilter is long (its call of ReportFault on
        Windows XP returns to +0x55b): there a doubtful name still counts where it would prove an exception.
        """
        blocker = blocker_named(name.module, name.symbol) if name.offset < _MAX_FUNCTION else None
        if blocker is None or not name.is_doubtful:
            return blocker
        return None if self._target.arch.facts.has_function_table or not blocker.proves_exception else blocker


def _reaches_base(walk: Walk, stack: ThreadStack) -> bool:
    """Say whether a walk went through all of a stack.

    A return address of zero ends a walk as the start of a thread does. In the midst of a stack it is that of a walk
    that went wrong: a callee's code on an absent page, a damaged entry of unwind data.
    """
    above = stack.bounds.base - walk.frames[-1].sp if walk.frames else 0  # negative on a stack that is a fiber's
    return walk.is_complete and above <= _NEAR_BASE


def _code_ranges(target: Target) -> Iterator[tuple[int, int]]:
    """Yield [first, last] of every blocking function that the target's modules hold, as addresses inside it."""
    highest = (1 << 8 * target.arch.pointer_size) - 1
    for image in target.images:
        for blocker in triage_blockers_in(image.module.label):
            rva = target.symbols.rva_of(image, blocker.symbol)
            # A damaged export may point beyond the address space: no word of a stack is an address there.
            if rva is not None and image.base + rva < highest:
                yield image.base + rva + 1, min(image.base + rva + _longest(image, blocker, rva), highest)


def _longest(image: Image, blocker: Blocker, rva: int) -> int:
    """Return how far behind the start of a function a return address into it may lie.

    What lies behind the next export has that one's name. UnhandledExceptionFilter may have parts there all the same.
    """
    following = None if blocker.proves_exception else export_table(image).next_after(rva)
    return _MAX_FUNCTION if following is None else min(_MAX_FUNCTION, following - rva)
