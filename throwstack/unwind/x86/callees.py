# SPDX-License-Identifier: Apache-2.0
"""Finds what a call does to the stack pointer and the nonvolatile registers of its caller.

Most functions keep ebx, ebp, esi and edi, and remove a fixed number of argument bytes: 0 (cdecl) or n (`ret n`).

A few helper functions of the compilers are different. For example, a Visual C++ function with __try begins with
`push 10h; push offset scopetable; call __SEH_prolog4`. When that call returns, ebp is set up, ebx, esi and edi are
saved and 10h bytes of locals are allocated, all in the frame of the function that called the helper. `__SEH_epilog4`
removes all of this again, and `_chkstk` and `_alloca_probe` move their caller's esp down by eax. A walk that takes such
a call for an ordinary one looks for the return address in the wrong slot.

Helpers are recognized by what their code does, not by their names, because stripped images have them too. The code of
a helper is then run symbolically in the place of the call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from throwstack.core.registers import SP, X86
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.control_flow import ControlFlow, ReturnPoint
from throwstack.unwind.x86.decode import MASK, Immediate, Indirect, Instruction, Opcode
from throwstack.unwind.x86.stack_adjustment import (
    MAX_ARGUMENT_BYTES,
    Return,
    dropped_bytes,
    is_add_esp_4,
    popped_bytes,
    reallocated_bytes,
)
from throwstack.unwind.x86.symbolic_execution import operand_value
from throwstack.unwind.x86.symbolic_state import (
    CONSTANT,
    INITIAL,
    SymbolicState,
    SymbolicValue,
    constant,
    register_of,
    value,
)

_HELPER_LIMIT = 64
_MAX_DEPTH = 3
_PROBE_LIMIT = 40
_AHEAD_LIMIT = 400
_VOLATILE = (0, 1, 2)
_EAX = 0
_MIN_PAGE_MASK = 0x1000


class CalleeKind(Enum):
    """How a callee treats its caller's frame."""

    ORDINARY = "keeps it"
    HELPER = "builds or removes it"
    PROBE = "allocates eax bytes in it"


@dataclass(frozen=True, slots=True)
class Callee:
    """What a function does to the frame of its caller.

    `kind` is the kind of change. `popped` is how many bytes of arguments the function removes. It is None if no `ret`
    was found, and for every helper. For a stack probe `popped` is 0, or None if the probe rounds eax up before it
    allocates that many bytes: the size of the allocation is not known in that case.
    """

    kind: CalleeKind
    popped: int | None


class Callees:
    """Finds what calls do to the frames of their callers. Each callee is analysed once."""

    __slots__ = ("_ahead", "_callees", "_code", "_depth", "_probes", "_returns", "_sizes")

    def __init__(self, code: Code) -> None:
        """`code` is the address space's code, from which the called functions are decoded."""
        self._code = code
        self._callees: dict[int, Callee] = {}
        self._probes: dict[int, Callee | None] = {}
        self._sizes: dict[int, int | None] = {}
        self._returns: dict[int, Return] = {}
        self._depth = 0
        self._ahead: dict[int, int | None] = {}

    def after_call(self, state: SymbolicState, instruction: Instruction) -> SymbolicState | None:
        """Return the symbolic state after a call, as the code that follows the call finds it.

        `state` is the state before the call, and `instruction` is the call. If the stack adjustment of the callee has
        to be guessed, the result says so in `doubt`.
        """
        target = self.target(state, instruction)
        if target == instruction.end:
            return state.push(constant(target))  # call $+5; pop ebx
        if target is None:
            return self._after_ordinary(state, instruction, None)
        callee = self.at(target)
        if callee.kind is CalleeKind.PROBE:
            return _allocate(state, instruction, rounds=callee.popped is None)
        if callee.kind is CalleeKind.HELPER:
            after = self._run_helper(state, instruction, target)
            return after or self._after_ordinary(state, instruction, self.popped_bytes(target))
        return self._after_ordinary(state, instruction, callee.popped)

    def _after_ordinary(self, state: SymbolicState, instruction: Instruction, popped: int | None) -> SymbolicState:
        """Return the state after a call of an ordinary function that removes `popped` bytes, None if not known."""
        doubt = 0
        if popped is None:
            popped, doubt = self._guess(state, instruction)
        sp = state.sp
        after = state.without(_VOLATILE).with_register(SP, sp.plus(popped) if sp is not None else None)
        pushed = max(state.pushed - popped, 0)
        return replace(after, pushed=pushed, doubt=state.doubt + doubt, may_have_pushed=False)

    def target(self, state: SymbolicState, instruction: Instruction) -> int | None:
        """Return the address of the function that `instruction`, a call, calls, or None if that is not known.

        The call may be direct, or go through an import, or through a register whose value `state` knows. Compilers
        write the last one for a function that is called more than once: `mov esi, [__imp__Sleep]; call esi`.
        """
        found = operand_value(state, instruction.operand(0))
        if found is None or found.base != CONSTANT:
            return None
        address = found.offset & MASK
        target = self._code.pointer(address) if found.is_word else address
        return self._code.after_thunks(target) if target is not None and self._code.is_code(target) else None

    def at(self, start: int) -> Callee:
        """Return what the function at `start` does to the frame of its caller."""
        callee = self._callees.get(start)
        if callee is None:
            self._depth += 1
            callee = self._classify(start)
            self._depth -= 1
            if not self._depth:
                self._callees[start] = callee
        return callee

    def popped_bytes(self, address: int) -> int | None:
        """Return how many bytes of arguments the code at `address` removes when it returns, or None if not known.

        The result is that of `stack_adjustment.popped_bytes`, which is called once for each address.
        """
        if address not in self._sizes:
            self._sizes[address] = popped_bytes(self._code, address, self._returns)
        return self._sizes[address]

    def _classify(self, start: int) -> Callee:
        if start not in self._probes:
            self._probes[start] = self._probe(start)
        probe = self._probes[start]
        if probe is not None:
            return probe
        flow = ControlFlow(
            self._code, start, SymbolicState(is_from_entry=True), self._after_call_in_helper, limit=_HELPER_LIMIT
        )
        found = flow.first_return()
        if found is not None and _changes_caller(found):
            return Callee(CalleeKind.HELPER, None)
        return Callee(CalleeKind.ORDINARY, self.popped_bytes(start))

    def _probe(self, start: int) -> Callee | None:
        """Return the stack probe at `start`, or None if the function there is no stack probe.

        A stack probe allocates eax bytes, and touches each page of them so that the guard page grows the stack. It is
        recognized by an `xchg eax, esp` or a `mov esp, ecx` that is reached without a call or a `ret`.
        `_alloca_probe_16` first rounds eax up (`and ecx, 15`) and then jumps to `_chkstk`.
        """
        address, rounds = start, False
        for _ in range(_PROBE_LIMIT):
            instruction = self._code.at(address)
            if instruction is None or instruction.op in {Opcode.CALL, Opcode.RETURN, Opcode.STOP, Opcode.LEAVE}:
                return None
            first, second = (register_of(instruction.operand(index)) for index in range(2))
            if (instruction.op is Opcode.XCHG and {first, second} == {_EAX, SP}) or (
                instruction.op is Opcode.MOV and first == SP and second in _VOLATILE
            ):
                return Callee(CalleeKind.PROBE, None if rounds else 0)
            mask = instruction.operand(1)
            rounds |= instruction.op is Opcode.AND and isinstance(mask, Immediate) and mask.value < _MIN_PAGE_MASK
            target = self._code.target(instruction) if instruction.op is Opcode.JUMP else instruction.end
            if target is None:
                return None
            address = target
        return None

    def _run_helper(self, state: SymbolicState, instruction: Instruction, target: int) -> SymbolicState | None:
        """Return the state after a helper has returned to its caller, or None if its code does not lead back.

        `state` is the state before the call, `instruction` is the call, and `target` is the start of the helper.
        """
        # What is pushed here are the arguments of the helper, and not those of a function that the helper calls.
        inside = replace(state.push(constant(instruction.end)), pushed=0)
        flow = ControlFlow(self._code, target, inside, self._after_call_in_helper, limit=_HELPER_LIMIT)
        after = flow.state_at(instruction.end)
        return None if after is None else replace(after, pushed=0)

    def _after_call_in_helper(self, state: SymbolicState, instruction: Instruction) -> SymbolicState | None:
        """Return the state after a call inside a helper, or None for a call that helpers do not make.

        Helpers call only ordinary functions that are known, and push no arguments for them. For example,
        `__SEH_epilog4_GS` calls `__security_check_cookie`, which takes its argument in ecx.
        """
        target = None if state.pushed else self.target(state, instruction)
        if target is None or self._depth > _MAX_DEPTH or self.at(target).kind is not CalleeKind.ORDINARY:
            return None
        popped = self.popped_bytes(target)
        if popped is None:
            return None
        sp = state.sp
        return state.without(_VOLATILE).with_register(SP, sp.plus(popped) if sp is not None else None)

    def _guess(self, state: SymbolicState, instruction: Instruction) -> tuple[int, int]:
        """Return how many bytes an unknown callee has removed from the stack, and 1 if that is a guess, else 0."""
        operand, following = instruction.operand(0), self._code.at(instruction.end)
        if isinstance(operand, Indirect) and operand.has_segment and following is not None and is_add_esp_4(following):
            # The system call stubs of WoW64 up to Windows 7: `call fs:[0C0h]; add esp, 4; ret n`. The 64-bit code jumps
            # back to the return address and leaves it on the stack, and `add esp, 4` removes it.
            return -4, 0
        sp = state.sp
        if state.is_from_entry and sp is not None and sp.base == SP:
            # From the function's start it is known how far the return address is above esp before the call, and from
            # the code up to the `ret` how far it is after the call. The difference is what the callee has removed.
            distance = self._distance(instruction.end)
            cleaned = None if distance is None else -distance - sp.offset
            if cleaned is not None and 0 <= cleaned <= MAX_ARGUMENT_BYTES and not cleaned % 4:
                return cleaned, 0
        if not state.pushed:
            size = reallocated_bytes(self._code, instruction.end)
            return (size, 0) if size else (0, 1 if state.may_have_pushed else 0)
        dropped, is_certain = dropped_bytes(self._code, instruction.end)
        if dropped >= state.pushed:
            return 0, 0 if is_certain else 1
        return state.pushed, 1

    def _distance(self, address: int) -> int | None:
        """Return how many bytes the return address is above esp at `address`, or None if that is not certain.

        The code is followed from `address` to a `ret`, and must show where esp is there without a guess.
        """
        if address in self._ahead:
            return self._ahead[address]
        self._ahead[address] = None
        flow = ControlFlow(self._code, address, SymbolicState(), self.after_call, limit=_AHEAD_LIMIT)
        found = flow.first_return()
        if found is not None and found.state.doubt == 0 and found.target is not None:
            target = found.target
            if target.is_word and target.base == SP:
                self._ahead[address] = target.offset
        return self._ahead[address]


def _changes_caller(found: ReturnPoint) -> bool:
    """Say whether a function that ends with the `ret` in `found` changes its caller's frame, as only helpers do."""
    state, target = found.state, found.target
    if any(state.registers[number] not in {INITIAL[number], None} for number in X86.nonvolatile):
        return True
    if target != SymbolicValue(SP, 0, is_word=True):
        return target is not None
    return state.sp != value(SP, 4 + found.popped)


def _allocate(state: SymbolicState, instruction: Instruction, *, rounds: bool) -> SymbolicState:
    """Return the state after a call of a stack probe, which moves esp down by eax.

    `state` is the state before the call, and `instruction` is the call. `rounds` says whether the probe rounds eax up.
    If the size is not known, esp gets a new symbolic base (see `symbolic_state.CONSTANT`).
    """
    sp, size = state.sp, state.registers[_EAX]
    amount = size.constant if size is not None and not rounds else None
    after = state.without(_VOLATILE)
    if amount is None or sp is None:
        return after.set_sp(SymbolicValue(instruction.address, 0))
    return replace(after.with_register(SP, sp.plus(-amount)), pushed=0)
