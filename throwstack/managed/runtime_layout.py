# SPDX-License-Identifier: Apache-2.0
"""Where a runtime's structures have what is read of them: by its contract, or by what other versions have.

.NET 9 and later describe themselves (`throwstack.managed.contract`); such a layout is exact. Earlier runtimes do not.
For them the layout has the offsets at which versions that were seen have a member, and every use of them is checked: a
MethodTable's EEClass must point back to it, a method's token must belong to the type of its MethodTable. Where the
check fails, the neighbouring words are tried. So the figures here only order the search.

Offsets were observed in the memory of running processes: .NET Core 2.1 (x64, x86), 3.1, .NET 8 and 10. Names are those
of dotnet/runtime (methodtable.h, class.h, method.hpp, threads.h).
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.managed.contract import Contract
from throwstack.managed.runtime_memory import StructureError


@dataclass(frozen=True, slots=True)
class RuntimeLayout:
    """Offsets in bytes of members of the runtime's structures; an offset that is not known is None.

    `contract` is the runtime's own description, None if the runtime has none: then every offset is a first guess.
    """

    pointer_size: int
    parent: int
    module: int
    eeclass: int
    class_method_table: int
    class_fields: int
    class_chunks: int
    chunk_size: int
    """Size of a MethodDescChunk, after which its first MethodDesc comes."""
    chunk_range: int
    """Offset of the flags and the token's upper bits in a MethodDescChunk."""
    alignment: int
    """The unit in which a MethodDesc counts its distance from the chunk's first one."""
    remainder_bits: tuple[int, ...]
    """How many bits of a method's token its MethodDesc itself has: a number, or several that may be right."""
    has_wide_token: bool | None
    """Whether a MethodTable has its TypeDef RID in the upper 24 bits of a word (.NET 9), not in 16; None: either."""
    method_name: int | None
    """Offset of the name in the MethodDesc of a dynamic method."""
    contract: Contract | None = None

    @property
    def flags2(self) -> int:
        """Return the offset of a MethodTable's second word of flags: 8 in every version."""
        return 8

    @property
    def chunk_count(self) -> int:
        """Return the offset of the number of methods (less one) in a MethodDescChunk."""
        return 2 * self.pointer_size + 1

    @property
    def array_length(self) -> int:
        """Return the offset of the length in an array and in a string."""
        return self.pointer_size

    @property
    def array_data(self) -> int:
        """Return the offset of the first element of an array of references or bytes."""
        return 2 * self.pointer_size

    @property
    def string_data(self) -> int:
        """Return the offset of a string's first character."""
        return self.pointer_size + 4


X64 = RuntimeLayout(8, 0x10, 0x18, 0x28, 0x10, 0x18, 0x20, 0x18, 0x12, 8, (14, 12), None, 0x18)
"""x64: .NET Core 2.1 (14 bits), 3.1 (14) and .NET 8 (12)."""
X86 = RuntimeLayout(4, 0x10, 0x14, 0x1C, 0x8, 0xC, 0x10, 0xC, 0xA, 4, (14, 12), None, 0x18)
"""x86: .NET Core 2.1."""


def guessed_layout(pointer_size: int) -> RuntimeLayout:
    """Return the layout with which the search in a runtime without a contract begins."""
    return X64 if pointer_size == 8 else X86


def layout_of_contract(contract: Contract) -> RuntimeLayout:
    """Return the layout that a runtime's contract describes. Raises StructureError if it lacks what is needed."""
    at, size = contract.offset, contract.size
    bits = contract.globals.get("MethodDescTokenRemainderBitCount", 0)
    alignment = contract.globals.get("MethodDescAlignment", contract.pointer_size)
    if not 0 < bits < 24 or not 0 < alignment <= 64:
        message = "the runtime's contract has no sizes of a method's parts"
        raise StructureError(message)
    return RuntimeLayout(
        contract.pointer_size,
        at("MethodTable", "ParentMethodTable"),
        at("MethodTable", "Module"),
        at("MethodTable", "EEClassOrCanonMT"),
        at("EEClass", "MethodTable"),
        at("EEClass", "FieldDescList"),
        at("EEClass", "MethodDescChunk"),
        size("MethodDescChunk"),
        at("MethodDescChunk", "FlagsAndTokenRange"),
        alignment,
        (bits,),
        True,
        contract.fields.get("DynamicMethodDesc", {}).get("MethodName"),
        contract,
    )
