# SPDX-License-Identifier: Apache-2.0
"""The code through which native code calls managed code on x86: UMThunkStub, which the runtime makes as it goes.

On x64 it is in the runtime's image. On x86 the runtime makes one for each signature, in private memory, as a Stub
(dotnet/coreclr 2.1, src/vm/stublink.h): reference count, flags and size of the code, 4 bytes each, before the code.
The code is told by its call, which no other has: eax is the UMEntryThunk of the call, whose description at 0Ch begins
with the address of the IL stub.

    8b 78 0c        mov edi, [eax+0Ch]
    8b 3f           mov edi, [edi]
    89 7c 24 04     mov [esp+4], edi
    ff 54 24 04     call [esp+4]

Seen with .NET Core 2.1.
"""

from __future__ import annotations

import struct

from throwstack.core.memory import PAGE_SIZE, Memory

NAME = "UMThunkStub"
_HEAD = struct.Struct("<III")
_CALL = bytes.fromhex("8b780c 8b3f 897c2404 ff542404")
_PROLOGUE = bytes.fromhex("55 89e5 53")
_MAX_SIZE = 0x400
_MAX_REFERENCES = 1 << 16


def um_thunk_stub(memory: Memory, address: int) -> int:
    """Return where the UMThunkStub begins whose code is at `address`, 0 if none is there. Raises nothing."""
    low = max(address - _MAX_SIZE - _HEAD.size, 0)
    if memory.page(low & -PAGE_SIZE) is None:
        low = address & -PAGE_SIZE
    data = memory.read_available(low, address - low + len(_PROLOGUE))
    at = data.rfind(_PROLOGUE)
    while at >= _HEAD.size:
        start = low + at
        references, _, size = _HEAD.unpack_from(data, at - _HEAD.size)
        is_stub = start % 4 == 0 and 0 < references < _MAX_REFERENCES and address - start < size <= _MAX_SIZE
        if is_stub and _CALL in memory.read_available(start, size):
            return start
        at = data.rfind(_PROLOGUE, 0, at)
    return 0
