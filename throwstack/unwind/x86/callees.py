# SPDX-License-Identifier: Apache-2.0
"""What a call does to the stack pointer and the nonvolatile registers of its caller.

Most functions keep ebx, ebp, esi and edi, and remove 0 (cdecl) or a fixed number of argument bytes (stdcall,
thiscall, fastcall: `ret n`). A few helpers of the compilers build or remove their caller's frame instead
(`__SEH_prolog`, `__EH_prolog3`, `__SEH_epilog4`, …), or move its esp down by eax (`_chkstk`, `_alloca_probe`). They
are known by what their code does, not by name: stripped images have them too.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from enum import Enum

from throwstack.registers import SP, X86_NONVOLATILE
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Indirect, Instruction, Op
from throwstack.unwind.x86.effects import read
from throwstack.unwind.x86.flow import Flow, Return
from throwstack.unwind.x86.state import CONSTANT, INITIAL, State, Value, constant, register_of, value

_HELPER_LIMIT = 64
_MAX_DEPTH = 3
_PROBE_LIMIT = 40
_SEARCH_LIMIT = 2000
_AHEAD_LIMIT = 400
_LOOK_AHEAD = 8
_TAKEN_BACK_AHEAD = 3
_MAX_CLEANED = 0x400
_ENDS_LOOK_AHEAD = (
    *(Op.CALL, Op.JUMP, Op.BRANCH, Op.RETURN, Op.STOP, Op.LEAVE, Op.PUSH, Op.ENTER, Op.PUSH_ALL, Op.PUSH_FLAGS),
)
_VOLATILE = (0, 1, 2)
_EAX, _ECX = 0, 1
_MIN_PAGE_MASK = 0x1000


class CalleeKind(Enum):
    """How a callee treats its caller's frame."""

    ORDINARY = "keeps it"
    HELPER = "builds or removes it"
    PROBE = "allocates eax bytes in it"


@dataclass(frozen=True, slots=True)
class Callee:
    """What is known of a callee.

    `popped` is the bytes of arguments it removes, None if no `ret` was found (or if a probe rounds eax up first).
    """

    kind: CalleeKind
    popped: int | None


class Callees:
    """Analyses of callees, each done once."""

    __slots__ = ("_ahead", "_callees", "_code", "_depth", "_sizes")

    def __init__(self, code: Code) -> None:
        """Look at functions of `code`."""
        self._code = code
        self._callees: dict[int, Callee] = {}
        self._sizes: dict[int, int | None] = {}
        self._depth = 0
        self._ahead: dict[int, int | None] = {}

    def after_call(self, state: State, instruction: Instruction) -> State | None:
        """Return the state after a call, or None if it is not known to come back anywhere."""
        target = self.target(state, instruction)
        if target == instruction.end:
            return state.push(constant(target))  # call $+5; pop ebx
        callee = self.at(target) if target is not None else Callee(CalleeKind.ORDINARY, None)
        if target is not None and callee.kind is CalleeKind.HELPER:
            after = self._run_helper(state, instruction, target)
            if after is not None:
                return after
            callee = Callee(CalleeKind.ORDINARY, self.return_size(target))
        if callee.kind is CalleeKind.PROBE:
            return _allocate(state, instruction, rounds=callee.popped is None)
        popped, doubt = callee.popped, 0
        if popped is None:
            popped, doubt = self._guess(state, instruction)
        sp = state.sp
        after = state.without(_VOLATILE).with_register(SP, sp.plus(popped) if sp is not None else None)
        pushed = max(state.pushed - popped, 0)
        return replace(after, pushed=pushed, doubt=state.doubt + doubt, may_have_pushed=False)

    def target(self, state: State, instruction: Instruction) -> int | None:
        """Return what a call calls, or None: directly, through an import, or through a register that holds one."""
        target = self._code.target(instruction)
        if target is None:
            found = read(state, instruction.operand(0))
            if found is None or found.base != CONSTANT:
                return None
            address = found.offset & 0xFFFFFFFF
            target = self._code.pointer(address) if found.is_word else address
            if target is None or not self._code.is_code(target):
                return None
        return self._code.behind_thunks(target)

    def at(self, start: int) -> Callee:
        """Return what the function at `start` does to its caller."""
        callee = self._callees.get(start)
        if callee is None:
            self._depth += 1
            callee = self._classify(start)
            self._depth -= 1
            if not self._depth:
                self._callees[start] = callee
        return callee

    def return_size(self, address: int) -> int | None:
        """Return the operand of the `ret` that the code at `address` leads to past the fewest calls, or None."""
        if address not in self._sizes:
            self._sizes[address] = self._search_return(address)
        return self._sizes[address]

    def _search_return(self, address: int) -> int | None:
        queue: list[tuple[int, int, int]] = [(0, 0, address)]
        seen: set[int] = set()
        order = 0
        while queue and len(seen) < _SEARCH_LIMIT:
            calls, _, address = heapq.heappop(queue)
            instruction = self._code.at(address)
            if address in seen or instruction is None:
                continue
            seen.add(address)
            op = instruction.op
            if op is Op.RETURN:
                operand = instruction.operand(0)
                return operand.value if isinstance(operand, Immediate) else 0
            following: list[int] = []
            if op in {Op.JUMP, Op.BRANCH}:
                target = self._code.target(instruction)
                following = [target] if target is not None else self._code.table(instruction)
            if op not in {Op.JUMP, Op.STOP} and not (op is Op.CALL and self._code.is_function_start(instruction.end)):
                following.append(instruction.end)
            for next_address in following:
                order += 1
                heapq.heappush(queue, (calls + (op is Op.CALL), order, next_address))
        return None

    def _classify(self, start: int) -> Callee:
        probe = self._probe(start)
        if probe is not None:
            return probe
        flow = Flow(self._code, start, State(is_from_entry=True), self._after_call_in_helper, limit=_HELPER_LIMIT)
        found = flow.first_return()
        if found is not None and found.state.doubt == 0 and _changes_caller(found):
            return Callee(CalleeKind.HELPER, None)
        return Callee(CalleeKind.ORDINARY, self.return_size(start))

    def _probe(self, start: int) -> Callee | None:
        """Recognise code that switches to a stack pointer computed from eax: `xchg eax, esp` or `mov esp, ecx`.

        `_alloca_probe_16` rounds eax up (`and ecx, 15`) and goes on in `_chkstk`.
        """
        address, rounds = start, False
        for _ in range(_PROBE_LIMIT):
            instruction = self._code.at(address)
            if instruction is None or instruction.op in {Op.CALL, Op.RETURN, Op.STOP, Op.LEAVE}:
                return None
            first, second = (register_of(instruction.operand(index)) for index in range(2))
            if (instruction.op is Op.XCHG and {first, second} == {_EAX, SP}) or (
                instruction.op is Op.MOV and first == SP and second in _VOLATILE
            ):
                return Callee(CalleeKind.PROBE, None if rounds else 0)
            mask = instruction.operand(1)
            rounds |= instruction.op is Op.AND and isinstance(mask, Immediate) and mask.value < _MIN_PAGE_MASK
            target = self._code.target(instruction) if instruction.op is Op.JUMP else instruction.end
            if target is None:
                return None
            address = target
        return None

    def _run_helper(self, state: State, instruction: Instruction, target: int) -> State | None:
        """Follow a helper from the call to the `ret` that comes back behind it."""
        inside = state.push(constant(instruction.end))
        flow = Flow(self._code, target, inside, self._after_call_in_helper, limit=_HELPER_LIMIT)
        after = flow.state_at(instruction.end)
        return None if after is None else replace(after, pushed=0)

    def _after_call_in_helper(self, state: State, instruction: Instruction) -> State | None:
        """Apply a call in a helper (`__SEH_epilog4_GS` checks the cookie); None: no helper makes such a call."""
        target = None if state.pushed else self.target(state, instruction)
        if target is None or self._depth > _MAX_DEPTH or self.at(target).kind is not CalleeKind.ORDINARY:
            return None
        popped = self.return_size(target)
        if popped is None:
            return None
        sp = state.sp
        return state.without(_VOLATILE).with_register(SP, sp.plus(popped) if sp is not None else None)

    def _guess(self, state: State, instruction: Instruction) -> tuple[int, int]:
        """Return how many bytes an unknown callee removed, and 1 if that is only a guess."""
        operand, following = instruction.operand(0), self._code.at(instruction.end)
        if isinstance(operand, Indirect) and operand.has_segment and following is not None and _drops_word(following):
            # WoW64 up to Windows 7: `call fs:[0C0h]; add esp, 4; ret n`. The switch to 64-bit mode comes back without
            # popping the return address.
            return -4, 0
        sp = state.sp
        if state.is_from_entry and sp is not None and sp.base == SP:
            distance = self._distance(instruction.end)
            cleaned = -distance - sp.offset if distance is not None else -1
            if 0 <= cleaned <= _MAX_CLEANED and cleaned % 4 == 0:
                return cleaned, 0
        if not state.pushed:
            taken_back = self._taken_back(instruction.end)
            return (taken_back, 0) if taken_back else (0, 1 if state.may_have_pushed else 0)
        cleaned_after, is_certain = self._cleaned_after(instruction.end)
        if cleaned_after >= state.pushed:
            return 0, 0 if is_certain else 1
        return state.pushed, 1

    def _taken_back(self, address: int) -> int:
        """Return how many bytes the code behind a call takes back that the callee removed, or 0.

        gcc keeps room for all arguments below its locals and stores them there instead of pushing them; what a stdcall
        callee removes it allocates again: `call [eax]; sub esp, 8`. The same before `fstp [esp]` makes room for the
        next call.
        """
        for _ in range(_TAKEN_BACK_AHEAD):
            following = self._code.at(address)
            if following is None or following.op in _ENDS_LOOK_AHEAD:
                return 0
            size, after = following.operand(1), self._code.at(following.end)
            if following.op is Op.SUB and register_of(following.operand(0)) == SP and isinstance(size, Immediate):
                target = after.operand(0) if after is not None and after.op is Op.OTHER else None
                stores = isinstance(target, Indirect) and target.base == SP
                return size.value if size.value <= _MAX_CLEANED and not stores else 0
            address = following.end
        return 0

    def _cleaned_after(self, address: int) -> tuple[int, bool]:
        """Return how many bytes the code behind a call drops, and whether those can be nothing but arguments.

        `add esp, 8; ret` may as well remove the function's own locals.
        """
        size = 0
        for _ in range(_LOOK_AHEAD):
            following = self._code.at(address)
            if following is None or following.op in _ENDS_LOOK_AHEAD:
                return size, following is not None and following.op is not Op.RETURN
            first, source = register_of(following.operand(0)), following.operand(1)
            if following.op is Op.ADD and first == SP and isinstance(source, Immediate):
                if size:
                    return size, True
                size = source.value
            elif following.op is Op.POP:
                if first != _ECX:
                    return size, False
                size += 4
            address = following.end
        return size, True

    def _distance(self, address: int) -> int | None:
        """Return how far above esp the return address lies at `address`, if the code from there says so."""
        if address in self._ahead:
            return self._ahead[address]
        self._ahead[address] = None
        flow = Flow(self._code, address, State(), self.after_call, limit=_AHEAD_LIMIT)
        found = flow.first_return()
        if found is not None and found.state.doubt == 0 and found.target is not None:
            target = found.target
            if target.is_word and target.base == SP:
                self._ahead[address] = target.offset
        return self._ahead[address]


def _drops_word(instruction: Instruction) -> bool:
    return (
        instruction.op is Op.ADD
        and register_of(instruction.operand(0)) == SP
        and instruction.operand(1) == Immediate(4)
    )


def _changes_caller(found: Return) -> bool:
    state, target = found.state, found.target
    if any(state.registers[number] not in {INITIAL[number], None} for number in X86_NONVOLATILE):
        return True
    if target != Value(SP, 0, is_word=True):
        return target is not None and state.sp is not None
    return state.sp != value(SP, 4 + found.popped)


def _allocate(state: State, instruction: Instruction, *, rounds: bool) -> State:
    sp, size = state.sp, state.registers[_EAX]
    amount = size.constant if size is not None and not rounds else None
    after = state.without(_VOLATILE)
    if amount is None or sp is None:
        return after.set_sp(Value(instruction.address, 0))
    return replace(after.with_register(SP, sp.plus(-amount)), pushed=0)
