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


Return = tuple[int, int]
"""The `ret` to which code leads: how many calls are before it, and how many bytes of arguments it removes."""


def popped_bytes(code: Code, address: int, known: dict[int, Return] | None = None) -> int | None:
    """Return how many bytes of arguments the code at `address` removes when it returns, or None if no `ret` is found.

    That is the operand of its `ret`, or 0 for a `ret` without one. If several are reached, the one with the fewest
    calls before it is used. `known` has the result for addresses on the way to a `ret` that was found before, and gets
    those of this one. With it, many addresses in one function cost no more than the function's code.
    """
    known = {} if known is None else known
    queue: list[tuple[int, int, int, int | None, int | None]] = [(0, 0, address, None, None)]
    seen: dict[int, tuple[int, int | None]] = {}
    order = 0
    while queue and len(seen) < _SEARCH_LIMIT:
        code.work()
        calls, _, address, previous, popped = heapq.heappop(queue)
        if popped is not None:
            return _remember(known, seen, address, (calls, popped))
        instruction = code.at(address)
        if address in seen or instruction is None:
            continue
        seen[address] = calls, previous
        if address in known:
            ahead, popped = known[address]
            if not ahead:
                return _remember(known, seen, address, (calls, popped))
            order += 1
            heapq.heappush(queue, (calls + ahead, order, address, previous, popped))
            continue
        op = instruction.op
        if op is Opcode.RETURN:
            operand = instruction.operand(0)
            popped = operand.value if isinstance(operand, Immediate) else 0
            return _remember(known, seen, address, (calls, popped))
        for next_address in _following(code, instruction):
            order += 1
            heapq.heappush(queue, (calls + (op is Opcode.CALL), order, next_address, address, None))
    return None


def _following(code: Code, instruction: Instruction) -> list[int]:
    """Return the addresses at which the function of `instruction`, which is no `ret`, goes on after it."""
    op = instruction.op
    following: list[int] = []
    if op is Opcode.JUMP or op is Opcode.BRANCH:
        target = code.target(instruction)
        following = [target] if target is not None else code.table(instruction)
    if op is Opcode.JUMP or op is Opcode.STOP or (op is Opcode.CALL and code.is_function_start(instruction.end)):
        return following
    return [*following, instruction.end]


def _remember(known: dict[int, Return], seen: dict[int, tuple[int, int | None]], address: int, found: Return) -> int:
    """Note in `known` where the way to `address` leads, from which code leads to the `ret` that was `found`.

    `seen` has, of each address, how many calls are before it and from which address it was reached.
    """
    total, popped = found
    at: int | None = address
    while at is not None:
        calls, before = seen[at]
        known[at] = total - calls, popped
        at = before
    return popped


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
