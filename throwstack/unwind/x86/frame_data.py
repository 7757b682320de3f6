# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of a frame by the FrameData programs and old FPO_DATA of its PDB.

A FrameData program computes the registers of the caller, in postfix notation. An example is
`$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =`. The operators are `+ - * / %`, `@` (align the first operand down to a
multiple of the second), `^` (the word at an address) and `=` (assign). The variables are the registers
`$eip $esp $ebp $ebx $esi $edi`, temporaries (`$T0`), and the values of the record (`.raSearch`, `.cbLocals` and
others). Programs are documented for IDiaFrameData::get_program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import BP, SP, X86
from throwstack.names.frame_records import FrameData
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.decode import MASK

_MAX_TOKENS = 1024
_MAX_NUMBER = 12
_SEARCH_WORDS = 3


class ProgramError(Enum):
    """Why a FrameData program (the postfix expressions in a PDB that compute an x86 frame's caller) gave no caller."""

    MALFORMED = "malformed"
    TOO_LONG = "too long"
    UNKNOWN_VARIABLE = "a variable has no value"
    DIVISION_BY_ZERO = "division by zero"
    UNREADABLE = "memory is not readable"
    NO_CALLER = "does not set $eip and $esp"
    NO_PROGRESS = "stack pointer does not increase"
    NO_RETURN_ADDRESS = "$eip is not the word below $esp"


def run_program(program: str, variables: Mapping[str, int], memory: Memory) -> dict[str, int] | ProgramError:
    """Run a FrameData program, and return the variables that it assigned or the reason why it failed.

    `variables` are the values of the variables before the program runs, by their names (`$esp`, `.raSearch`). `memory`
    is read for the operator `^`. Numbers wrap around at 32 bits.
    """
    tokens = program.split()
    if len(tokens) > _MAX_TOKENS:
        return ProgramError.TOO_LONG
    assigned: dict[str, int] = {}
    stack: list[int | str] = []
    for token in tokens:
        if token == "=":  # noqa: S105 - a word of a program
            error = _assign(stack, variables, assigned)
        elif token == "^":  # noqa: S105
            error = _load(stack, variables, assigned, memory)
        elif token in _OPERATORS:
            error = _compute(token, stack, variables, assigned)
        else:
            error = None
            operand = _operand(token)
            if operand is None:
                return ProgramError.MALFORMED
            stack.append(operand)
        if error is not None:
            return error
    return assigned if not stack else ProgramError.MALFORMED


_OPERATORS = frozenset("+-*/%@")


def _operand(token: str) -> int | str | None:
    if token[0] in "$.":
        return token
    digits = token[1:] if token[0] == "-" else token
    if len(digits) > _MAX_NUMBER or not (digits.isascii() and digits.isdigit()):
        return None
    return int(token) & MASK


def _pop(stack: list[int | str], variables: Mapping[str, int], assigned: Mapping[str, int]) -> int | ProgramError:
    if not stack:
        return ProgramError.MALFORMED
    operand = stack.pop()
    if isinstance(operand, int):
        return operand
    value = assigned.get(operand, variables.get(operand))
    return ProgramError.UNKNOWN_VARIABLE if value is None else value & MASK


def _assign(stack: list[int | str], variables: Mapping[str, int], assigned: dict[str, int]) -> ProgramError | None:
    value = _pop(stack, variables, assigned)
    if isinstance(value, ProgramError):
        return value
    name = stack.pop() if stack else None
    if not isinstance(name, str):
        return ProgramError.MALFORMED
    assigned[name] = value
    return None


def _load(
    stack: list[int | str], variables: Mapping[str, int], assigned: Mapping[str, int], memory: Memory
) -> ProgramError | None:
    address = _pop(stack, variables, assigned)
    if isinstance(address, ProgramError):
        return address
    try:
        stack.append(memory.u32(address))
    except MemoryUnreadable:
        return ProgramError.UNREADABLE
    return None


def _compute(
    operator: str, stack: list[int | str], variables: Mapping[str, int], assigned: Mapping[str, int]
) -> ProgramError | None:
    second, first = _pop(stack, variables, assigned), _pop(stack, variables, assigned)
    if isinstance(second, ProgramError):
        return second
    if isinstance(first, ProgramError):
        return first
    if operator in "/%@" and second == 0:
        return ProgramError.DIVISION_BY_ZERO
    if operator == "+":
        result = first + second
    elif operator == "-":
        result = first - second
    elif operator == "*":
        result = first * second
    elif operator == "/":
        result = first // second
    elif operator == "%":
        result = first % second
    else:
        result = first - first % second
    stack.append(result & MASK)
    return None


@dataclass(frozen=True, slots=True)
class RecordedCaller:
    """A caller that was computed from a FrameData or FPO record.

    `searched` is 0 if the return address was taken from the slot that the record gives. Otherwise it is the number of
    words by which the slot that was tried is above the recorded one.
    """

    caller: Caller
    searched: int


def callers(
    data: FrameData, place: Place, arguments_size: int, memory: Memory, popped: int | None
) -> Iterator[RecordedCaller | ProgramError]:
    """Yield the caller of the frame at `place` by the record `data`, then callers with the next slots above it.

    For each slot that gives no caller, the reason is yielded. `arguments_size` is the size in bytes of the arguments
    that were pushed for the call of the next inner frame. `memory` is where the words are read. `popped` is how many
    bytes of arguments this frame's own function removes, or None if that is not known. More than one slot is tried only
    if the record computes the slot of the return address from esp: an FPO record, or a program with `.raSearch`.
    """
    search = place.lowest_sp + arguments_size + data.locals_size + data.saved_registers_size
    bp = place.registers.bp
    if "@" in data.program and bp is not None:
        # A function that realigns its stack (`and esp, -16`): the distance from esp to the return address is not fixed.
        # Visual C++ writes `.raSearch` in the programs of such functions all the same, and means the word above the
        # saved ebp.
        search = bp + 4
    words = _SEARCH_WORDS if ".raSearch" in data.program or not data.program else 0
    # The return address may be a few words further up than the record says. esp may have been rounded down to 8 or 16
    # bytes; or arguments of an outer call have been pushed already: in `f(g(b), a)`, `a` is on the stack while g runs.
    for searched in range(words + 1):
        yield _caller(data, place, (search + 4 * searched) & MASK, searched, memory, popped)


def _caller(  # noqa: PLR0917 - a step of `callers`, which has them all
    data: FrameData, place: Place, search: int, searched: int, memory: Memory, popped: int | None
) -> RecordedCaller | ProgramError:
    gpr, sp = place.registers.gpr, place.lowest_sp
    if not data.program:
        found: dict[str, int] | ProgramError = _fpo(data, search, memory)
    else:
        known = zip(X86.register_names, gpr, strict=True)
        found = run_program(
            data.program,
            {
                **{f"${name}": value for name, value in known if value is not None},
                "$eip": place.ip,
                "$esp": sp,
                ".raSearch": search,
                ".raSearchStart": search,
                ".cbLocals": data.locals_size,
                ".cbParams": data.parameters_size,
                ".cbSavedRegs": data.saved_registers_size,
                ".cbCalleeParams": search - sp - data.locals_size - data.saved_registers_size,
            },
            memory,
        )
    if isinstance(found, ProgramError):
        return found
    return_address, call_sp = found.get("$eip"), found.get("$esp")
    if return_address is None or call_sp is None:
        return ProgramError.NO_CALLER
    if call_sp <= sp:
        return ProgramError.NO_PROGRESS
    slot = (call_sp - 4) & MASK
    try:
        if memory.u32(slot) != return_address:
            return ProgramError.NO_RETURN_ADDRESS
    except MemoryUnreadable:
        return ProgramError.UNREADABLE
    # By the format, a register that the program does not mention is unchanged. But some compilers mention only ebp and
    # ebx, and save esi and edi without a word. So ebp is believed, because it is mentioned wherever it is saved; the
    # others are believed only if the record says that nothing is saved at all.
    kept = X86.nonvolatile if data.saved_registers_size == 0 else (BP,)
    registers = [gpr[number] if number in kept else None for number in range(8)]
    for number in X86.nonvolatile:
        registers[number] = found.get(f"${X86.register_names[number]}", registers[number])
    if not data.program and data.uses_base_pointer and "$ebp" not in found:
        registers[BP] = None
    registers[SP] = (call_sp + (popped or 0)) & MASK
    return RecordedCaller(Caller(slot, return_address, call_sp, popped, tuple(registers)), searched)


def _fpo(data: FrameData, search: int, memory: Memory) -> dict[str, int] | ProgramError:
    """Return the caller's $eip, $esp and, if it is known, $ebp by an FPO_DATA record.

    `data` is the record, and `search` is the stack address of the return address. If `memory` cannot be read there, the
    result is the error. From esp upwards the frame consists of the arguments of the callee, the saved registers, the
    locals and the return address.
    """
    try:
        found = {"$eip": memory.u32(search), "$esp": search + 4}
    except MemoryUnreadable:
        return ProgramError.UNREADABLE
    if not data.uses_base_pointer:
        return found
    # The function uses ebp as a general register and saves it among the others, and the record does not say where. ebp
    # is mostly pushed second (ebx, ebp, esi, edi) or first. Link-time code generation of Visual C++ 8 even records 0
    # bytes of saved registers although ebp is among them. So each likely slot is tried, and a word is only believed if
    # it can be the frame pointer of a caller: an address further up this stack.
    top = search - data.locals_size
    size = max(data.saved_registers_size, 4)
    for offset in (8, 4, 12, 16):
        if offset > size:
            continue
        try:
            value = memory.u32((top - offset) & MASK)
        except MemoryUnreadable:
            continue
        if search < value < search + _MAX_FRAME and value % 4 == 0:
            found["$ebp"] = value
            break
    return found


_MAX_FRAME = 0x40000
