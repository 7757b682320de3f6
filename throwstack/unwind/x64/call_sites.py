# SPDX-License-Identifier: Apache-2.0
"""Whether an address can be a return address: whether the bytes before it are a call.

Near calls as in Intel's manual: E8 rel32, and FF /2 with any addressing form; a REX prefix before them changes nothing.
"""

from __future__ import annotations

from throwstack.memory import Memory, MemoryUnreadable

_LONGEST = 7


def follows_call(memory: Memory, address: int) -> bool | None:
    """Say whether a call instruction ends at `address`; None if the bytes before it cannot be read."""
    if not _LONGEST < address < 1 << 64:
        return False
    try:
        code = memory.read(address - _LONGEST, _LONGEST)
    except MemoryUnreadable:
        return None
    return code[2] == 0xE8 or any(
        code[start] == 0xFF and code[start + 1] & 0x38 == 0x10 and _length(code[start + 1 :]) == _LONGEST - start
        for start in range(_LONGEST - 1)
    )


def _length(operand: bytes) -> int:
    """Return the length of `FF` and the ModRM operand that starts `operand`."""
    mode, base = operand[0] >> 6, operand[0] & 7
    if mode == 3:
        return 2
    has_index = base == 4
    displacement = (0, 1, 4)[mode]
    if mode == 0 and (base == 5 or (has_index and len(operand) > 1 and operand[1] & 7 == 5)):
        displacement = 4
    return 2 + has_index + displacement
