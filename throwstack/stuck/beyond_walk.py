# SPDX-License-Identifier: Apache-2.0
"""Looks at the stack beyond the part that a walk has proven, word by word.

A walk may end early, end at a zero in the middle of the stack, or go on with a guess. Then a word further out may be
the return address into UnhandledExceptionFilter or into the dispatcher that the walk has missed. A walk from such a
word shows whether the saved exception is there. The word may be left over from an earlier time all the same, so that
what is found has a note, or is only a doubt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from throwstack.core.exception_record import UNWINDING
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.registers import BP, SP, Registers
from throwstack.core.stack_words import pages_between
from throwstack.dispatch.context_scan import scan_contexts
from throwstack.dispatch.saved_exception import SavedException
from throwstack.dispatch.taken import shows_start_of_dispatch
from throwstack.dispatch.x86 import from_registrations
from throwstack.exceptions.debugger_signals import is_debugger_signal
from throwstack.names.blockers import blocker_named
from throwstack.names.dispatch_functions import DISPATCHERS_MODULE
from throwstack.names.frame_names import name_of
from throwstack.stuck.outermost import NEAR_BASE, ends_at_base, return_address_above
from throwstack.stuck.return_words import StackWord, most_promising, return_words
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.stuck.suspects import Suspects, may_be_in_function
from throwstack.stuck.walk_evidence import WalkEvidence
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target, ThreadStack
from throwstack.unwind.thread_start import says_overwritten


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is beyond the proven part of a walk: a stuck thread, or a doubt, which says why there may be one, or ""."""

    stuck: StuckThread | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Proven:
    """How far a walk is proven: to the stack address `reached`. `ending` says why not further; "" if all of it is.

    `is_whole` is True if nothing is doubtful but the frame pointer of the innermost frame, which is outside the images.
    """

    reached: int
    ending: str = ""
    is_whole: bool = False


class BeyondWalk:
    """Searches the stacks of one target's threads where their walks prove nothing."""

    def __init__(self, target: Target, suspects: Suspects, evidence: WalkEvidence) -> None:
        """`suspects` knows the code ranges to search for, and `evidence` reads the walks from the words found."""
        self._target = target
        self._suspects = suspects
        self._evidence = evidence

    def proven(self, walk: Walk, stack: ThreadStack, start: str = "the walk of the blocked stack") -> Proven:
        """Say how far `walk` is proven. `start` are the words for it.

        The outermost frame of a thread has the return address 0. A walk that went wrong (the code of a called function
        is on an absent page, or an entry of unwind data is damaged) may read a 0 in the middle of the stack and take it
        for that return address. So the last frame must also be near the base of the stack, not in the dispatcher, and
        no word further out may lead into the dispatcher or a blocking function.
        """
        frames = walk.frames
        guess, is_at_base = self._first_guess(frames, stack), walk.is_complete or ends_at_base(walk, stack)
        if guess is not None:
            is_whole = is_at_base and first_guess(self._target, frames) is None
            return Proven(frames[max(guess - 1, 0)].sp, f"{start} is a guess from {frames[guess].ip:#x} on", is_whole)
        reached = frames[-1].sp if frames else 0
        if not is_at_base:
            return Proven(reached, f"{start} ended early: {walk.end.in_words(walk.detail)}")
        base = stack.bounds.base
        if not frames or base - reached > NEAR_BASE:  # on a stack that is a fiber's the difference is negative
            return Proven(reached, f"{start} ends at {reached:#x}, far from its base at {base:#x}")
        if frames[-1].ip in self._suspects.dispatch or self._has_words(reached, base):
            return Proven(reached, f"{start} ends at {reached:#x}, where no thread starts")
        caller = return_address_above(self._target, frames[-1], stack)
        return Proven(reached, f"{start} ends below a return address at {caller:#x}" if caller else "")

    def _first_guess(self, frames: Sequence[Frame], stack: ThreadStack) -> int | None:
        """Return the index of the first frame of a walk that does not prove what is not on the stack, or None.

        Beside guesses it is the caller of code outside the images in which the thread waits, and of which there is no
        unwind data. Example: a copy of a system call's stub. It leaves rbp (ebp) as it is, so that its return address
        is right. But if rbp belongs to a function further out, the frame of the caller ends there, and all between is
        jumped over. It cannot where the frames from the caller on are found without rbp as well.
        """
        guess = first_guess(self._target, frames)
        if len(frames) < 2 or guess == 0 or self._is_known(frames[0].ip):
            return guess
        is_followed = frames[1].trust is Trust.PROLOGUE and self._needs_no_frame_pointer(frames[1:], stack)
        return guess if frames[1].trust in {Trust.CFI, Trust.FPO} or is_followed else 1

    def _needs_no_frame_pointer(self, frames: Sequence[Frame], stack: ThreadStack) -> bool:
        """Say whether a walk from the first of `frames` finds the others although the frame pointer is not known."""
        caller = frames[0].registers
        unknown = Registers(caller.ip, (*caller.gpr[:BP], None, *caller.gpr[BP + 1 :]))
        again = self._target.walk(unknown, stack.bounds, trust=Trust.SCAN)
        return [(frame.ip, frame.sp) for frame in again.frames] == [(frame.ip, frame.sp) for frame in frames]

    def _is_known(self, ip: int) -> bool:
        return self._target.images.is_code(ip) or self._target.keeps_frame_pointer(ip)

    def _has_words(self, low: int, high: int) -> bool:
        """Say whether a word on the stack from `low` to `high` is in a function that is searched for."""
        pages = pages_between(self._target.memory, low, high)
        return any(
            low <= address + offset < high
            for address, page in pages
            if page is not None
            for offset in self._suspects.ranges.offsets(page)
        )

    def search(self, stack: ThreadStack, walk: Walk | None, proven: Proven, notes: tuple[str, ...]) -> Beyond:
        """Return what walks from the words beyond `proven.reached` show.

        The words tried are those that may be return addresses into a function that proves an exception, or into the
        dispatcher. `walk` is the thread's own walk, or None if there is none.
        """
        meter = self._target.meter
        low, high = self._suspects.extent(stack)
        words = return_words(self._target, self._suspects.ranges, max(low, proven.reached), high, self._may_matter)
        found = tuple(words)
        chosen = most_promising(self._target, found, meter.left(meter.budgets.resumed), high)
        doubt = ""
        for word in chosen:
            if not meter.take(meter.budgets.resumed):
                break
            outcome = self._from_word(stack, walk, word, proven, notes)
            if outcome.stuck is not None:
                return outcome
            doubt = doubt or outcome.doubt
        if len(chosen) < len(found):
            meter.refuse(meter.budgets.resumed)
        doubt = self._may_be_in_filter(walk, proven.ending) or doubt or self._ends_in_dispatch(walk, proven)
        doubt = doubt or self._not_proven(stack, walk, proven) or self._may_be_blocked(stack, proven, high)
        return Beyond(None, doubt)

    def missed(self, stack: ThreadStack, walk: Walk, proven: Proven, stuck: StuckThread, high: int) -> str:
        """Return a doubt if an exception between `proven.reached` and `high` may have been missed, or "".

        `walk` is the walk on which it would have been found, a guess from there on. Example: a crash filter faults, and
        the return address from the dispatch of this second fault was overwritten. The walk of the blocked stack goes on
        with the dispatch of the first one, whose frames are sound. If the return address from the dispatch of the first
        fault was overwritten, it is missing on the stack that threw the second.
        """
        if not proven.ending:
            return ""
        known = {item.key for item in stuck.exceptions}
        low, end = max(self._suspects.extent(stack)[0], proven.reached), self._suspects.extent(stack)[1]
        if not low < high <= end:
            return ""
        meter = self._target.meter
        for word in return_words(self._target, self._suspects.ranges, low, high, self._may_matter):
            if not meter.take(meter.budgets.resumed):
                break
            found = self._evidence.stuck(stack, self._resumed(stack, word), (), word[0])
            others = [] if found is None else [item for item in found.exceptions if item.key not in known]
            if others:
                code = others[0].record.code
                return f"{self._leads(proven.ending, word)}, where exception {code:#010x} was dispatched"
        return self._ends_in_dispatch(walk, proven) or self._jumped_over(stack, proven, known, low, high)

    def _jumped_over(
        self, stack: ThreadStack, proven: Proven, known: Collection[tuple[int, int]], low: int, high: int
    ) -> str:
        """Return a doubt if the CONTEXT of an exception that is not `known` is on the stack between `low` and `high`.

        Example: the return address into KiUserExceptionDispatcher was overwritten, and the function that it has called
        has no name. Nothing else shows that there is a dispatch.
        """
        for found in scan_contexts(self._target, replace(stack.bounds, base=high), low):
            if found.key in known or found.record.flags & UNWINDING or is_debugger_signal(found.record.code):
                continue
            if self._is_active(stack, low, found):
                return f"{proven.ending}; exception {found.record.code:#010x} is at {found.record.location:#x}"
        return ""

    def _leads(self, ending: str, word: StackWord) -> str:
        why = ending or "there is no walk of the blocked stack"
        return f"{why}; the word at {word[0]:#x} leads to {self._target.symbols.name(word[1])}"

    def _from_word(
        self, stack: ThreadStack, walk: Walk | None, word: StackWord, proven: Proven, notes: tuple[str, ...]
    ) -> Beyond:
        """Return what the walk from one word of the stack shows."""
        address, value = word
        resumed = self._resumed(stack, word)
        is_proof = self._evidence.proves_exception(self._target.symbols.name(value, is_return_address=True))
        stuck = self._evidence.stuck(stack, resumed, notes, address if is_proof else max(proven.reached, 0))
        doubt = self._leads(proven.ending, word)
        if stuck is None or not stuck.exceptions:
            return Beyond(None, doubt if is_proof else self._has_context(stack, resumed, address, doubt))
        exception = stuck.exceptions[0]
        if is_proof and not self._is_active(stack, address, exception):
            return Beyond()
        if not is_proof and not self._is_registered(stack, exception):
            return Beyond(None, f"{doubt}, where exception {exception.record.code:#010x} was dispatched")
        guess = f"found by the word at {address:#x}, which may be of an earlier time"
        return Beyond(replace(stuck, blocked_walk=walk, notes=(*stuck.notes, guess)))

    def _resumed(self, stack: ThreadStack, word: StackWord) -> Walk:
        """Return the walk that begins where the return address `word` leads."""
        address, value = word
        gpr = [None] * len(self._target.arch.register_names)
        registers = Registers(value, (*gpr[:SP], address + self._target.arch.pointer_size, *gpr[SP + 1 :]))
        return self._target.walk(registers, stack.bounds, trust=Trust.SCAN)

    def _has_context(self, stack: ThreadStack, resumed: Walk, low: int, doubt: str) -> str:
        """Return `doubt` if the walk `resumed` from the dispatcher breaks off and a saved exception is above `low`.

        Example: the return address into KiUserExceptionDispatcher was overwritten, so that the walk from the return
        address into RtlDispatchException ends there. The CONTEXT is a little further out.
        """
        if shows_start_of_dispatch(self._target, resumed.frames):
            return ""
        found = next(scan_contexts(self._target, stack.bounds, low), None)
        if found is None or found.record.flags & UNWINDING or is_debugger_signal(found.record.code):
            return ""
        return f"{doubt}, and exception {found.record.code:#010x} is at {found.record.location:#x}"

    def _ends_in_dispatch(self, walk: Walk | None, proven: Proven) -> str:
        """Return a doubt if the last frame that is proven is in the dispatcher, so that its caller is not known."""
        frames = () if walk is None else tuple(frame for frame in walk.frames if frame.sp <= proven.reached)
        name = name_of(self._target.symbols, frames[-1]) if frames else None
        if name is None or name.address not in self._suspects.dispatch:
            return ""
        return f"{proven.ending}; the frame at {name.address:#x} is in the dispatcher of exceptions"

    def _may_matter(self, word: int) -> bool:
        """Say whether `word` may be a return address into the dispatcher or a function that proves an exception."""
        name = self._target.symbols.name(word, is_return_address=True)
        is_wanted = word in self._suspects.dispatch or self._evidence.proves_exception(name)
        return is_wanted and is_after_call(self._target.memory, word) is not False

    def _is_active(self, stack: ThreadStack, low: int, exception: SavedException) -> bool:
        """Say whether the thread's exception registrations allow that `exception` is in flight.

        `low` is the address of the frame of UnhandledExceptionFilter. On x86 UnhandledExceptionFilter is called from a
        handler, and while a handler runs, ExecuteHandler's registration is in the chain, between that frame and the
        CONTEXT. An exception that a module reports itself, without dispatching it, has no such registration, but its
        CONTEXT is in a global variable of the module and not on the stack. The result is True if the registrations are
        not known or the CONTEXT is not on the stack.
        """
        registrations = self._evidence.registrations(stack)
        if registrations is None or not stack.bounds.contains(exception.context.address):
            return True
        return any(low <= node < exception.context.address for node in registrations)

    def _is_registered(self, stack: ThreadStack, exception: SavedException) -> bool:
        """Say whether a registration of ExecuteHandler in the thread's chain is for `exception`: it is in flight."""
        chain = self._evidence.registrations(stack)
        found: Iterator[SavedException] = from_registrations(self._target, stack.bounds, chain or ())
        return any(known.key == exception.key for known in found)

    def _not_proven(self, stack: ThreadStack, walk: Walk | None, proven: Proven) -> str:
        """Return a doubt if the walk of a suspect broke off, whatever words there are beyond; "" if it did not.

        The word that would lead on may be lost itself. Example: the return address of ntdll's dispatcher into
        KiUserExceptionDispatcher was overwritten, and nothing but this word shows that an exception is being
        dispatched. It is not said of walks that had to guess or found nothing to guess from, as those of x86 programs
        without a PDB and of code without unwind data do on sound memory. In ntdll, where threads wait, the return
        address is always found on sound memory. Nor is it said of threads that wait in a stub outside the images, as
        programs with hooks do: no word was lost, and those of frames that may have been jumped over were looked at.
        """
        if walk is None or proven.is_whole:
            return ""
        if walk.end is End.NO_RETURN_ADDRESS and not says_overwritten(walk.gap):
            ips = [frame.ip for frame in walk.frames]
            is_waiting = len(ips) == 1 and self._target.symbols.name(ips[0]).module.lower() == DISPATCHERS_MODULE
            return proven.ending if is_waiting else ""
        has_guessed = self._target.arch.facts.has_exception_list and first_guess(self._target, walk.frames) is not None
        is_at_base = walk.is_complete or ends_at_base(walk, stack)
        return "" if has_guessed and is_at_base else proven.ending

    def _may_be_blocked(self, stack: ThreadStack, proven: Proven, high: int) -> str:
        """Return a doubt if the walk from a word between `proven.reached` and `high` goes through a blocking function.

        It is for walks whose end says little (`_not_proven`). Example: a thread of x86 hangs in CorExitProcess, and the
        return address of its innermost frame was overwritten. No exception and no dispatcher is on its stack, and only
        the return address into CorExitProcess shows that it is stuck.
        """
        meter, start = self._target.meter, max(self._suspects.extent(stack)[0], proven.reached)
        for word in return_words(self._target, self._suspects.ranges, start, high, self._is_call_of_blocker):
            if not meter.take(meter.budgets.resumed):
                break
            resumed = self._resumed(stack, word)
            if self._evidence.stuck(stack, resumed, (), word[0]) is not None:
                return self._leads(proven.ending, word)
        return ""

    def _is_call_of_blocker(self, word: int) -> bool:
        """Say whether `word` is after a call in a function that is searched for and is not the dispatcher's."""
        blocker = self._evidence.blocker(self._target.symbols.name(word, is_return_address=True))
        return blocker is not None and is_after_call(self._target.memory, word) is True

    def _may_be_in_filter(self, walk: Walk | None, ending: str) -> str:
        """Return a doubt if a frame of `walk`, which ended early, may be in a function that proves an exception.

        Such a function runs only if an exception went unhandled. `ending` says how the walk ended, and the doubt begins
        with it. The result is "" if there is no such frame. Example: one bit of an entry in KERNEL32's function table
        is damaged. The walk ends at that function, and its name is doubtful because the entry no longer covers the
        address.
        """
        for frame in () if walk is None else walk.frames:
            name = name_of(self._target.symbols, frame)
            blocker = blocker_named(name.module, name.symbol) if may_be_in_function(name) else None
            if blocker is not None and blocker.proves_exception and frame.trust is not Trust.SCAN:
                return f"{ending}; the frame at {frame.ip:#x} may be in {name.module}!{name.symbol}"
        return ""
