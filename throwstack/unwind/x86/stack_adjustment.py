# SPDX-License-Identifier: Apache-2.0
"""Finds how many bytes of arguments are removed after a call, and whether the callee or the caller removes them.

The callee removes them with `ret n` (stdcall, thiscall, fastcall), or the caller does after the call (cdecl). Where the
callee is not known (`call [eax]`), the code after the call gives hints.
"""

from __future__ import annotations

import heapq

from throwstack.core.registers import SP
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Indirect, Instruction, Opcode
from throwstack.unwind.x86.symbolic_state import register_of

MAX_ARGUMENT_BYTES = 0x400
"""No function takes more bytes of arguments than this (256 words)."""

_SEARCH_LIMIT = 2000
_LOOK_AHEAD = 8
_TAKEN_BACK_AHEAD = 3
_ENDS_LOOK_AHEAD = (
    *(Opcode.CALL, Opcode.JUMP, Opcode.BRANCH, Opcode.RETURN, Opcode.STOP),
    *(Opcode.LEAVE, Opcode.PUSH, Opcode.ENTER, Opcode.PUSH_ALL, Opcode.PUSH_FLAGS),
)
_ECX = 1


def popped_bytes(code: Code, address: int) -> int | None:
    """Return how many bytes of arguments the code at `address` removes when it returns, or None if no `ret` is found.

    That is the operand of its `ret`, or 0 for a `ret` without one. If several are reached, the one with the fewest
    calls before it is used.
    """
    queue: list[tuple[int, int, int]] = [(0, 0, address)]
    seen: set[int] = set()
    order = 0
    while queue and len(seen) < _SEARCH_LIMIT:
        code.work()
        calls, _, address = heapq.heappop(queue)
        instruction = code.at(address)
        if address in seen or instruction is None:
            continue
        seen.add(address)
        op = instruction.op
        if op is Opcode.RETURN:
            operand = instruction.operand(0)
            return operand.value if isinstance(operand, Immediate) else 0
        following: list[int] = []
        if op in {Opcode.JUMP, Opcode.BRANCH}:
            target = code.target(instruction)
            following = [target] if target is not None else code.table(instruction)
        if op not in {Opcode.JUMP, Opcode.STOP} and not (op is Opcode.CALL and code.is_function_start(instruction.end)):
            following.append(instruction.end)
        for next_address in following:
            order += 1
            heapq.heappush(queue, (calls + (op is Opcode.CALL), order, next_address))
    return None


def reallocated_bytes(code: Code, address: int) -> int:
    """Return how many bytes the code after a call allocates again because the callee has removed them, or 0.

    `address` is the return address of the call. GCC reserves stack space for the arguments of all calls below its
    locals, and stores arguments there instead of pushing them. A stdcall callee removes a part of that space, and GCC
    allocates it again: `call [eax]; sub esp, 8`. The same instruction before `fstp qword ptr [esp]` allocates space for
    an argument of the next call, and the result is 0.
    """
    for _ in range(_TAKEN_BACK_AHEAD):
        following = code.at(address)
        if following is None or following.op in _ENDS_LOOK_AHEAD:
            return 0
        size, after = following.operand(1), code.at(following.end)
        if following.op is Opcode.SUB and register_of(following.operand(0)) == SP and isinstance(size, Immediate):
            target = after.operand(0) if after is not None and after.op is Opcode.OTHER else None
            stores = isinstance(target, Indirect) and target.base == SP
            return size.value if size.value <= MAX_ARGUMENT_BYTES and not stores else 0
        address = following.end
    return 0


def dropped_bytes(code: Code, address: int) -> tuple[int, bool]:
    """Return how many bytes the code after a call removes from the stack, and whether these can only be arguments.

    `address` is the return address of the call. For example, `call f; add esp, 8; push eax` removes two arguments. In
    `call f; add esp, 8; ret` the 8 bytes may be the function's own locals instead.
    """
    size = 0
    for _ in range(_LOOK_AHEAD):
        following = code.at(address)
        if following is None or following.op in _ENDS_LOOK_AHEAD:
            return size, following is not None and following.op is not Opcode.RETURN
        first, source = register_of(following.operand(0)), following.operand(1)
        if following.op is Opcode.ADD and first == SP and isinstance(source, Immediate):
            if size:
                return size, True
            size = source.value
        elif following.op is Opcode.POP:
            if first != _ECX:
                return size, False
            size += 4
        address = following.end
    return size, True


def is_add_esp_4(instruction: Instruction) -> bool:
    """Say whether an instruction is `add esp, 4`."""
    return (
        instruction.op is Opcode.ADD
        and register_of(instruction.operand(0)) == SP
        and instruction.operand(1) == Immediate(4)
    )
