# SPDX-License-Identifier: Apache-2.0
"""The numbers that CodeView gives to the registers of x86 and x64 (`CV_HREG_e` of `cvinfo.h`)."""

from __future__ import annotations

from typing import NamedTuple

from throwstack.core.registers import Arch

EBP = 22
VFRAME = 30006
"""Not a register: `$T0` as the FrameData program of the code computes it."""
_LETTERS = ("a", "c", "d", "b")
_POINTERS = ("sp", "bp", "si", "di")


class RegisterPart(NamedTuple):
    """A general register, or a part of it: its number in `Registers.gpr`, and the first byte and size of the part."""

    name: str
    gpr: int
    shift: int
    size: int


def _parts() -> dict[int, RegisterPart]:
    """Return the general registers that x86 and x64 share, by their numbers."""
    found: dict[int, RegisterPart] = {}
    for index, letter in enumerate(_LETTERS):
        found[1 + index] = RegisterPart(f"{letter}l", index, 0, 1)
        found[5 + index] = RegisterPart(f"{letter}h", index, 1, 1)
    for index, name in enumerate([*(f"{letter}x" for letter in _LETTERS), *_POINTERS]):
        found[9 + index] = RegisterPart(name, index, 0, 2)
        found[17 + index] = RegisterPart(f"e{name}", index, 0, 4)
    return found


def _parts_of_x64() -> dict[int, RegisterPart]:
    found = _parts()
    for number, gpr in ((324, 6), (325, 7), (326, 5), (327, 4)):
        found[number] = RegisterPart(f"{_POINTERS[gpr - 4]}l", gpr, 0, 1)
    names = ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp"]
    for index, gpr in enumerate((0, 3, 1, 2, 6, 7, 5, 4)):
        found[328 + index] = RegisterPart(f"r{names[index]}", gpr, 0, 8)
    for index in range(8):
        for first, suffix, size in ((336, "", 8), (344, "b", 1), (352, "w", 2), (360, "d", 4)):
            found[first + index] = RegisterPart(f"r{8 + index}{suffix}", 8 + index, 0, size)
    return found


_BY_NUMBER = {Arch.X86: _parts(), Arch.X64: _parts_of_x64()}


def general_register(arch: Arch, number: int) -> RegisterPart | None:
    """Return the general register, or the part of one, with CodeView's `number`; None if it is another register."""
    return _BY_NUMBER[arch].get(number)


def register_name(arch: Arch, number: int) -> str:
    """Return the name of any register, for display."""
    part = general_register(arch, number)
    if part is not None:
        return part.name
    for first, count, prefix, start in ((154, 8, "xmm", 0), (252, 8, "xmm", 8), (128, 8, "st", 0)):
        if first <= number < first + count:
            return f"{prefix}{start + number - first}"
    return "edx:eax" if number == 212 else f"register {number}"
