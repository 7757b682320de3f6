# SPDX-License-Identifier: Apache-2.0
"""Executes one instruction on a symbolic state. Jumps, calls and returns are left to `control_flow`."""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.registers import BP, SP
from throwstack.unwind.x86.decode import MASK, Immediate, Indirect, Instruction, Opcode, Operand, Register
from throwstack.unwind.x86.symbolic_state import CONSTANT, SymbolicState, SymbolicValue, constant, register_of

_ECX = Register(1)


def execute(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    """Return the state after an instruction that is neither a jump nor a call nor a return."""
    handler = _HANDLERS.get(instruction.op, _other)
    return handler(state, instruction)


def operand_value(state: SymbolicState, operand: Operand | None) -> SymbolicValue | None:
    """Return the symbolic value of a 32-bit operand in `state`, or None if it is unknown or of another size."""
    if isinstance(operand, Immediate):
        return constant(operand.value)
    if isinstance(operand, Indirect):
        return state.load(state.address(operand)) if operand.size == 4 else None
    number = register_of(operand)
    return None if number is None else state.registers[number]


def _write(
    state: SymbolicState, operand: Operand | None, new: SymbolicValue | None, instruction: Instruction
) -> SymbolicState:
    if isinstance(operand, Indirect):
        return state.store(state.address(operand), new, operand.size)
    number = register_of(operand)
    if number is None:
        return state.without(instruction.written)
    if number != SP:
        return state.with_register(number, new)
    if new is None:
        new = SymbolicValue(instruction.address, 0)
    return state.with_register(SP, new) if _is_relative(instruction) else state.set_sp(new)


def _is_relative(instruction: Instruction) -> bool:
    """Say whether an instruction that sets esp computes it from esp, so that earlier guesses about esp still matter."""
    if instruction.op in {Opcode.ADD, Opcode.SUB, Opcode.AND}:
        return True
    source = instruction.operand(1)
    return instruction.op is Opcode.LEA and isinstance(source, Indirect) and source.base == SP


def _push(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    return state.push(operand_value(state, instruction.operand(0)))


def _pop(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    popped, after = state.pop()
    if state.doubt and not (popped is not None and popped.base == CONSTANT and instruction.operand(0) == _ECX):
        # With a doubtful esp this may be another word than the one that was pushed. One is certain all the same: a
        # helper's `pop ecx` takes the return address of the call that entered it, which is a constant here.
        popped = None
    return _write(after, instruction.operand(0), popped, instruction)


def _push_all(state: SymbolicState, _: Instruction) -> SymbolicState:
    registers = state.registers
    for number in range(8):
        state = state.push(registers[number])
    return state


def _pop_all(state: SymbolicState, _: Instruction) -> SymbolicState:
    for number in range(7, -1, -1):
        popped, state = state.pop()
        if number != SP:
            state = state.with_register(number, None if state.doubt else popped)
    return state


def _mov(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    return _write(state, instruction.operand(0), operand_value(state, instruction.operand(1)), instruction)


def _lea(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    source = instruction.operand(1)
    address = state.address(source) if isinstance(source, Indirect) else None
    return _write(state, instruction.operand(0), address, instruction)


def _add(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    target, source = instruction.operand(0), operand_value(state, instruction.operand(1))
    old = operand_value(state, target)
    amount = source.constant if source is not None else None
    if amount is not None and instruction.op is Opcode.SUB:
        amount = -amount
    new = old.plus(amount) if old is not None and amount is not None else None
    after = _write(state, target, new, instruction)
    if register_of(target) == SP and amount is not None:
        # `add esp, 8` drops arguments. After `sub esp, 20h`, a block of locals, nothing below is an argument either.
        return replace(after, pushed=0 if instruction.op is Opcode.SUB else max(after.pushed - amount, 0))
    return after


def _and(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    target = instruction.operand(0)
    source, old = operand_value(state, instruction.operand(1)), operand_value(state, target)
    new: SymbolicValue | None = None
    if source is not None and source.constant is not None:
        if source.constant == 0:
            new = constant(0)
        elif old is not None and old.constant is not None:
            new = constant(old.constant & source.constant)
    elif target == instruction.operand(1):
        new = old
    return _write(state, target, new, instruction)


def _or(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    source = operand_value(state, instruction.operand(1))
    is_ones = source is not None and source.constant == MASK
    return _write(state, instruction.operand(0), constant(MASK) if is_ones else None, instruction)


def _xor(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    target = instruction.operand(0)
    return _write(state, target, constant(0) if target == instruction.operand(1) else None, instruction)


def _xchg(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    first, second = instruction.operand(0), instruction.operand(1)
    old, new = operand_value(state, first), operand_value(state, second)
    return _write(_write(state, first, new, instruction), second, old, instruction)


def _leave(state: SymbolicState, _: Instruction) -> SymbolicState:
    state = state.set_sp(state.registers[BP])
    popped, state = state.pop()
    return state.with_register(BP, popped)


def _enter(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    size, level = instruction.operand(0), instruction.operand(1)
    state = state.push(state.registers[BP])
    state = state.with_register(BP, state.sp)
    if not isinstance(size, Immediate) or not isinstance(level, Immediate) or level.value:
        return state.set_sp(None)
    sp = state.sp
    return replace(state.with_register(SP, sp.plus(-size.value) if sp is not None else None), pushed=0)


def _flags(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    return state.push(None) if instruction.op is Opcode.PUSH_FLAGS else state.pop()[1]


def _other(state: SymbolicState, instruction: Instruction) -> SymbolicState:
    target = instruction.operand(0)
    if instruction.writes_memory and isinstance(target, Indirect):
        state = state.store(state.address(target), None, target.size)
    if SP in instruction.written:
        state = state.set_sp(None)
    return state.without(instruction.written)


_HANDLERS = {
    Opcode.PUSH: _push,
    Opcode.PUSH_ALL: _push_all,
    Opcode.PUSH_FLAGS: _flags,
    Opcode.POP: _pop,
    Opcode.POP_ALL: _pop_all,
    Opcode.POP_FLAGS: _flags,
    Opcode.MOV: _mov,
    Opcode.LEA: _lea,
    Opcode.ADD: _add,
    Opcode.SUB: _add,
    Opcode.AND: _and,
    Opcode.OR: _or,
    Opcode.XOR: _xor,
    Opcode.XCHG: _xchg,
    Opcode.LEAVE: _leave,
    Opcode.ENTER: _enter,
}
