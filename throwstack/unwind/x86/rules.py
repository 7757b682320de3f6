# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of one frame by all rules, and fills in the best result from the others.

A rule is one way to find a frame's caller. Larger rules have their own modules (see `throwstack.unwind.x86`). This
module contains the rules that use the frame pointer, exception registrations, calls of an address that is no code, and
the scan of the stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from throwstack.core.budgets import Meter
from throwstack.core.contexts import Context
from throwstack.core.frames import StackBounds, Trust
from throwstack.core.registers import SP, Registers
from throwstack.images.image import ImageMap
from throwstack.names.frame_records import FrameData, FrameDataSource
from throwstack.names.symbols import Symbols
from throwstack.unwind import trace
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.thread_start import StackEnds, led_nowhere
from throwstack.unwind.x86 import frame_data, judgement_trace
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callback import CALLBACK_DISPATCHER, interrupted_system_call
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.candidates import Candidate, Rule, best, completed
from throwstack.unwind.x86.captured_context import is_captured_return
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.fixed_layouts import after_call_only, caller_at, chain_goes_on
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.interrupted_context import DISPATCHERS, DISPATCHERS_MODULE, interrupted_context
from throwstack.unwind.x86.kept_ebp import KeptEbp
from throwstack.unwind.x86.lost_return_address import CallersFurtherOut, lost, with_gap
from throwstack.unwind.x86.nearer_caller import nearer_caller
from throwstack.unwind.x86.outermost_frames import OutermostFrames
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.rest_of_function import RestOfFunction
from throwstack.unwind.x86.return_address import BELIEVED, CERTAIN, Fit, ReturnAddresses
from throwstack.unwind.x86.stack_scan import scan_return_addresses
from throwstack.unwind.x86.switched_stack import SWITCHED, is_on_another_stack

_FOLLOWED = (Rule.EPILOGUE, Rule.FORWARD, Rule.GENERATED_CHAIN)
"""Rules that know enough of a frame outside the images to believe that a hook led to it."""
_BY_EBP = (Rule.FRAME_POINTER, Rule.GENERATED_CHAIN)
_DISPATCHERS = DISPATCHERS | {CALLBACK_DISPATCHER}
_GUESSES = (Rule.FRAME_POINTER, Rule.GENERATED_CHAIN, Rule.REGISTRATION, Rule.SCAN)
_RECORDED = (Rule.FRAME_DATA, Rule.RECORD_HERE)
_SEH_FRAMES = (0x10, 0x0C)
"""The possible distances in bytes from an exception registration up to the saved ebp of the same function.

The distance is 10h in functions with __try (8 bytes of registration, scope table, try level, ebp), and 0Ch in functions
with C++ objects to destroy (8 bytes of registration, state, ebp).
"""


class Rules:
    """Applies the rules to the frames of one address space, and keeps the analyses of code that they share."""

    def __init__(
        self,
        images: ImageMap,
        symbols: Symbols,
        source: FrameDataSource | None,
        meter: Meter | None,
        outside: CodeOutside,
    ) -> None:
        """`images` are the loaded images, whose code is analysed.

        `symbols` give the names and starts of functions. `source` supplies FrameData and FPO records of PDBs, and is
        None if there are none. `meter`, if there is one, counts the positions that are examined in the search for
        function starts. `outside` is what is known of code outside the images.
        """
        self.images = images
        self.symbols = symbols
        self._memory = images.memory
        self._is_traced = False
        self._source = source
        self._outside = outside
        self._code = Code(images, symbols, outside)
        self._callees = Callees(self._code)
        self._prologues = Prologues(self._code, self._callees)
        self._rest = RestOfFunction(self._code, self._callees)
        self._function_starts = FunctionStarts(self._code, meter)
        self._return_addresses = ReturnAddresses(self._code, self._prologues, self._function_starts)
        self._kept_ebp = KeptEbp(self._code, outside, self._callees, self._return_addresses)
        self._further_out = CallersFurtherOut(images.memory, self._return_addresses)
        self._ends = StackEnds(images.memory, outside, 4, self._return_addresses.is_return_address)
        self.outermost = OutermostFrames(self._code, self._ends)

    def begin_walk(self, work_limit: int) -> None:
        """Start to count the instructions of a new walk, which may follow at most `work_limit` of them.

        A walk that exceeds the limit raises `WorkLimitError`. After that this object must be replaced, because some of
        its analyses are incomplete.
        """
        self._code.begin_walk(work_limit)
        self._rest.begin_walk()
        self._is_traced = trace.is_on()

    @property
    def work(self) -> int:
        """Return how many instructions the current walk has followed."""
        return self._code.work_done

    def record(self, place: Place) -> FrameData | None:
        """Return the record that covers the ip of `place`: of a PDB, or outside the images of a source; else None."""
        address = place.ip - (1 if place.is_return_address else 0)
        image = self.images.find(address)
        if image is None:
            known = self._outside.function(address)
            return None if known is None else known.frame
        if self._source is None:
            return None
        return self._source.frame_data(image, address - image.base)

    def caller(
        self, place: Place, stack: StackBounds, arguments_size: int, registrations: tuple[int, ...]
    ) -> Candidate | None:
        """Return the best candidate for the caller of the frame at `place`, or None if no rule finds a credible one.

        `stack` are the bounds of the thread's stack. `arguments_size` is the size in bytes of the arguments that were
        pushed for the call of the next inner frame. `registrations` are the addresses of the thread's exception
        registrations.
        """
        candidates: list[Candidate] = []
        found = self._best(place, stack, arguments_size, registrations, candidates)
        if self._is_traced:
            trace.say(judgement_trace.lines(place, candidates, found, self.symbols))
        return found

    def _best(
        self,
        place: Place,
        stack: StackBounds,
        arguments_size: int,
        registrations: tuple[int, ...],
        candidates: list[Candidate],
    ) -> Candidate | None:
        """Return what `caller` returns, and add the candidates that were looked at to `candidates`."""
        dispatcher = self._callback_dispatcher(place)
        if dispatcher is not None:
            return self._before_callback(dispatcher, place, stack)
        kept = self._kept_ebp.candidate(place, stack)
        if kept is not None:
            return kept
        record = self.record(place)
        for rule, caller, note in self._answers(place, stack, record, arguments_size):
            has_program = record is not None and bool(record.program) and rule in _RECORDED
            candidate = self._judge(place, stack, rule, caller, note, has_program=has_program)
            if candidate is not None:
                candidates.append(candidate)
        found = best(candidates)
        if found is not None and lost(found, candidates) is not None:
            return self._after_lost(place, found, candidates, stack)
        if found is None or found.fit not in {*BELIEVED, Fit.OUTERMOST}:
            candidates.extend(self._by_registration(place, stack, registrations))
            candidates.extend(self._by_scan(place, stack))
            found = best(candidates)
        elif found.fit is Fit.OUTERMOST and found.caller.doubt:
            # A zero ends a stack, but stacks are full of zeros. One that was reached by guesses must not hide the rest
            # of the stack, so that the scan may find a return address which is certain.
            candidates.extend(self._by_scan(place, stack))
            found = best(candidates)
        elif found.rule in _BY_EBP and not place.is_return_address and not self._code.is_certainly_code(place.ip):
            found = self._nearer(place, found, stack)
        if found is None:
            return self._after_lost(place, None, candidates, stack)
        found = with_gap(completed(place, found, candidates), candidates)
        return self._led_nowhere(place, found)

    def _after_lost(
        self, place: Place, found: Candidate | None, candidates: list[Candidate], stack: StackBounds
    ) -> Candidate | None:
        gone, scan = lost(found, candidates), partial(self._by_scan, place, stack)
        if gone is None or (found is None and self.outermost.is_start_routine(place)):
            return None
        return self._further_out.after(place, gone, candidates, scan, stack)

    def _nearer(self, place: Place, found: Candidate, stack: StackBounds) -> Candidate:
        """Return a caller nearer than `found`, to which ebp leads from a place that is not code; `found` if none is."""
        if self._is_called_there(place, found):
            return found

        def find(at: Place) -> Candidate | None:
            return self._best(at, stack, 0, (), [])

        return nearer_caller(place, found, self._by_scan(place, stack), find, self.next_place) or found

    def _is_called_there(self, place: Place, found: Candidate) -> bool:
        """Say whether the call before the return address of `found` went to the unloaded image that `place` is in."""
        module = self.symbols.name(place.ip).module
        called = self._return_addresses.targets(found.caller.return_address, place)
        return bool(module) and module in {self.symbols.name(target).module for target in called}

    def _led_nowhere(self, place: Place, found: Candidate) -> Candidate:
        """Return `found`; if it was guessed for a thread that runs where no code can be, with a `gap` that says so.

        A chain of frame pointers says no more than a scan there: it is that of functions further out.
        """
        if place.is_return_address or found.rule not in _GUESSES or not self._code.is_certainly_no_code(place.ip):
            return found
        is_known = found.rule in _BY_EBP and self._is_called_there(place, found)
        return found if is_known or found.gap else replace(found, gap=led_nowhere(place.ip), trust=Trust.SCAN)

    def interrupted(self, place: Place, stack: StackBounds) -> Context | None:
        """Return the CONTEXT of the code that was interrupted to run the dispatcher at `place`.

        The dispatchers are KiUserExceptionDispatcher and KiUserApcDispatcher. The result is None for other functions,
        and if no credible CONTEXT is found.
        """
        function = self._dispatcher(place)
        context = interrupted_context(function, place, stack, self._memory)
        if context is not None and self._is_traced:
            trace.step(place.ip, f"dispatcher {function}", f"has interrupted code, CONTEXT at {context.address:#x}")
        return context

    def is_callback(self, place: Place) -> bool:
        """Say whether the frame at `place` is a frame of KiUserCallbackDispatcher that has called a routine."""
        return self._callback_dispatcher(place) is not None

    def first_place(self, registers: Registers) -> Place:
        """Return the innermost frame, whose registers come from a trap frame or a CONTEXT, as a `Place`.

        The ip of a CONTEXT that a function has captured of its caller is a return address.
        """
        if is_captured_return(registers, self._code, self._return_addresses, self._function_starts):
            return Place(registers, registers.sp, is_sp_exact=False)
        return Place(registers)

    def next_place(self, caller: Caller) -> Place:
        """Return the frame of `caller` as the `Place` from which the next caller is searched."""
        is_helper = self._rest.is_past_helper(caller.return_address)
        return Place(
            Registers(caller.return_address, caller.gpr),
            caller.call_sp,
            is_sp_exact=caller.popped is not None,
            is_past_helper=caller.is_past_helper,
            is_in_helper=is_helper and not caller.is_past_helper,
        )

    def _dispatcher(self, place: Place) -> str:
        """Return the name of the function at `place` if it is in ntdll and certain, or else an empty string.

        With exports only, many functions after KiUserExceptionDispatcher have its name, and two words of such a frame
        that look like its arguments are not rare while an exception is dispatched. A name is certain too if the code
        leads from the symbol to `place`.
        """
        image = self.images.find(place.ip)
        if image is None or image.module.label.lower() != DISPATCHERS_MODULE:
            return ""
        name = self.symbols.name(place.ip, is_return_address=place.is_return_address)
        if name.symbol not in _DISPATCHERS:
            return ""
        start = self.symbols.function_start(place.ip, is_return_address=place.is_return_address)
        is_led_to = start is not None and self._prologues.state(start, place) is not None
        return name.symbol if name.is_certain or is_led_to else ""

    def _callback_dispatcher(self, place: Place) -> int | None:
        """Return the start of KiUserCallbackDispatcher if it has called a routine at `place`, or else None."""
        if not place.is_return_address or self._dispatcher(place) != CALLBACK_DISPATCHER:
            return None
        start = self.symbols.function_start(place.ip, is_return_address=True)
        return start if start is not None and self._prologues.state(start, place) is not None else None

    def _before_callback(self, dispatcher: int, place: Place, stack: StackBounds) -> Candidate | None:
        entry = self._prologues.at_entry(dispatcher, place)
        caller = interrupted_system_call(
            place, (None,) * 8 if entry is None else entry, stack, self._code, self._return_addresses
        )
        note = "the kernel called back from this system call"
        return None if caller is None else Candidate(Rule.CALLBACK, caller, Fit.CONFIRMED, note, trust=Trust.PROLOGUE)

    def _judge(
        self, place: Place, stack: StackBounds, rule: Rule, caller: Caller, note: str = "", *, has_program: bool = False
    ) -> Candidate | None:
        """Return the candidate for what `rule` has found, or None if its slot is not on the stack above the frame."""
        has_switched = is_on_another_stack(place, rule, caller, stack, self._ends)
        if not has_switched and not stack.contains(caller.slot, 4):
            return None
        # Each frame is above the one inside it. The exception is a helper that was stopped after it had popped its
        # return address: its slot is below esp.
        has_popped = caller.is_in_register and not place.is_return_address
        if not (has_switched or has_popped) and (caller.slot < place.lowest_sp or caller.call_sp <= place.lowest_sp):
            return None
        fit = self._return_addresses.fit(place, caller.slot, caller.return_address)
        if fit is Fit.OUTERMOST and not self.outermost.is_outermost(place, caller, stack):
            fit = Fit.ZERO
        elif fit is Fit.DIVERTED and (rule not in _FOLLOWED or caller.doubt):
            fit = Fit.CONTRADICTED
        elif rule is Rule.CALLED_NOWHERE and self._code.is_code(place.ip):
            # What is there can be code or data. It was called just now, or this is not the place of its return address.
            is_called = self._return_addresses.calls_place(caller.return_address, place)
            fit = Fit.CONFIRMED if is_called else Fit.CONTRADICTED
        return Candidate(rule, caller, fit, SWITCHED if has_switched else note, has_program, has_switched=has_switched)

    def _answers(
        self, place: Place, stack: StackBounds, record: FrameData | None, arguments_size: int
    ) -> Iterator[tuple[Rule, Caller, str]]:
        if record is not None:
            yield from self._by_record(place, record, arguments_size)
        if not place.is_return_address and not self.images.is_code(place.ip):
            nowhere = after_call_only(place, self._memory)
            if nowhere is not None:
                note = "" if self._code.is_certainly_code(place.ip) else "the thread is not in code"
                yield Rule.CALLED_NOWHERE, nowhere, note
        for rule, caller in self._by_code(place):
            yield rule, caller, ""
        bp = place.registers.bp
        classic = None if bp is None else caller_at(bp, self._callees.popped_bytes(place.ip), self._memory)
        if classic is not None:
            yield self._chain_rule(place, classic, stack), classic, ""

    def _chain_rule(self, place: Place, caller: Caller, stack: StackBounds) -> Rule:
        is_outside = self._code.is_outside(place.ip) and self._code.is_code(place.ip)
        if not (is_outside or self._code.is_outside(caller.return_address)):
            return Rule.FRAME_POINTER
        goes_on = chain_goes_on(caller, stack, self._memory, self._return_addresses)
        return Rule.GENERATED_CHAIN if goes_on else Rule.FRAME_POINTER

    def _by_code(self, place: Place) -> Iterator[tuple[Rule, Caller]]:
        start = self._code.function_start(place.ip, is_return_address=place.is_return_address)
        if start is None:
            rule, whole = Rule.GUESSED_START, list(self._by_guessed_start(place))
        else:
            caller = self._prologues.caller(start, place)
            rule, whole = Rule.FUNCTION, [] if caller is None else [(start, caller)]
        ahead = self._rest.caller(place)
        if ahead is not None and not any(
            caller.slot != ahead.slot and not self._prologues.comes_back(begin, place) for begin, caller in whole
        ):
            is_straight = not ahead.doubt and not ahead.is_past_helper and self._rest.is_straight(place.ip)
            yield Rule.EPILOGUE if is_straight else Rule.FORWARD, ahead
        for _, caller in whole:
            yield rule, caller

    def _by_record(self, place: Place, data: FrameData, arguments_size: int) -> Iterator[tuple[Rule, Caller, str]]:
        popped = self._callees.popped_bytes(place.ip) if data.removed is None else data.removed
        rule = Rule.FRAME_DATA if data.program else Rule.FPO
        if not place.is_return_address or place.is_past_helper:
            rule = Rule.RECORD_HERE
        for found in frame_data.callers(data, place, arguments_size, self._memory, popped):
            if isinstance(found, frame_data.ProgramError):
                continue
            # WoW64 up to Windows 7 leaves the return address of the switch to 64-bit code on the stack while the thread
            # waits. By the record, a system call stub would then return to the very address at which the thread was
            # stopped. The real return address is one word further up, and the search finds it.
            if place.is_return_address or found.caller.return_address != place.ip:
                note = f"{found.searched} words above the recorded place" if found.searched else ""
                yield Rule.FRAME_DATA_SEARCH if found.searched else rule, found.caller, note

    def _by_guessed_start(self, place: Place) -> Iterator[tuple[int, Caller]]:
        """Yield pairs of a possible function start and the caller that is computed from it, nearest start first.

        The last pair is the first whose return address is believed to be the frame's, if there is one.
        """
        for guess in self._function_starts.guesses(place.ip - (1 if place.is_return_address else 0)):
            caller = self._prologues.caller(guess, place)
            if caller is None:
                continue
            yield guess, caller
            if (
                caller.return_address
                and self._return_addresses.fit(place, caller.slot, caller.return_address) in BELIEVED
            ):
                return

    def _by_registration(self, place: Place, stack: StackBounds, registrations: tuple[int, ...]) -> Iterator[Candidate]:
        """Yield callers that are found through the nearest exception registration above the frame.

        A registration is in the frame of the function that made it, at a fixed distance from that function's saved ebp.
        So the frame of that function can be found even where ebp is not known. A caller is yielded only if its return
        address is right after a call of the function of `place`.
        """
        nearest = next((address for address in registrations if address >= place.lowest_sp), None)
        if nearest is None:
            return
        for offset in _SEH_FRAMES:
            caller = caller_at((nearest + offset) & MASK, self._callees.popped_bytes(place.ip), self._memory)
            if caller is None:
                continue
            candidate = self._judge(place, stack, Rule.REGISTRATION, caller)
            if candidate is not None and candidate.fit in CERTAIN:
                yield candidate

    def _by_scan(self, place: Place, stack: StackBounds, lowest: int | None = None) -> Iterator[Candidate]:
        lowest = place.lowest_sp if lowest is None else lowest
        for slot, word in scan_return_addresses(self._memory, self._return_addresses, lowest, stack):
            popped = self._callees.popped_bytes(place.ip)
            gpr: list[int | None] = [None] * 8
            gpr[SP] = slot + 4 + (popped or 0)
            self._code.work()
            caller = Caller(slot, word, slot + 4, popped, tuple(gpr))
            fit = self._return_addresses.fit(place, slot, word)
            yield Candidate(Rule.SCAN, caller, fit)
            if fit in CERTAIN:
                return
