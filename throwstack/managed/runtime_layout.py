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

from dataclasses import dataclass, replace

from throwstack.managed.contract import Contract
from throwstack.managed.runtime_memory import StructureError
from throwstack.managed.runtime_module import RuntimeFamily


@dataclass(frozen=True, slots=True)
class ChunkForm:
    """How a MethodDescChunk and its MethodDescs share a method's token. Sizes and offsets are in bytes.

    `size` is that of the chunk's head, after which its first MethodDesc comes; `range_at` is the offset in it of the
    token's upper bits, which have `range_size` bytes. A MethodDesc has the other `bits` bits, and counts its distance
    from the first one in units of `alignment`.
    """

    size: int
    range_at: int
    range_size: int
    alignment: int
    bits: int


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
    chunks: tuple[ChunkForm, ...]
    """The forms of chunks: one, or several that may be right, the likeliest first."""
    has_wide_token: bool | None
    """Whether a MethodTable has its TypeDef RID in the upper 24 bits of a word (.NET 9), not in 16; None: either."""
    method_name: int | None
    """Offset of the name in the MethodDesc of a dynamic method."""
    dictionaries: int
    """Offset in a MethodTable of the pointer to the dictionaries of a generic type."""
    contract: Contract | None = None
    has_token_in_class: bool = False
    """Whether the TypeDef token is in the EEClass (.NET Framework 2.0), not in the MethodTable."""
    function_pointer: str = "IntPtr"
    """The word for a function pointer in parameter lists: nothing from .NET 8 on, where Type.Name is "" for it."""
    needs_proof: bool = False
    """Whether nothing is said of a type whose methods do not prove its row in the metadata."""

    @property
    def flags2(self) -> int:
        """Return the offset of a MethodTable's second word of flags: 8 in every version."""
        return 8

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


_CHUNKS_X64 = (ChunkForm(0x18, 0x12, 2, 8, 14), ChunkForm(0x18, 0x12, 2, 8, 12))
_CHUNKS_X86 = (ChunkForm(0xC, 0xA, 2, 4, 14), ChunkForm(0xC, 0xA, 2, 4, 12))
X64 = RuntimeLayout(8, 0x10, 0x18, 0x28, 0x10, 0x18, 0x20, _CHUNKS_X64, None, 0x18, 0x30)
"""x64: .NET Core 2.1 (14 bits), 3.1 (14) and .NET 8 (12)."""
X86 = RuntimeLayout(4, 0x10, 0x14, 0x1C, 0x8, 0xC, 0x10, _CHUNKS_X86, None, 0x10, 0x20)
"""x86: .NET Core 2.1."""
_OLD_CHUNKS = {
    8: (ChunkForm(0x20, 0x1B, 1, 8, 16), ChunkForm(0x18, 0x13, 1, 8, 16), *_CHUNKS_X64),
    4: (
        *(ChunkForm(size, 0xF, 1, 8, 16) for size in (0x10, 0x18)),
        *(ChunkForm(size, 0xB, 1, 8, 16) for size in (0xC, 0x10)),
        *_CHUNKS_X86,
    ),
}
"""Chunks of .NET Framework 2.0 as the Shared Source CLI 2.0 has them, and without its pointer to entry points.

The head is {MethodTable, next, entry points, u8 count, u8 unit, u8 kind, u8 upper bits of the token}.
"""


def guessed_layout(pointer_size: int, family: RuntimeFamily) -> RuntimeLayout:
    """Return the layout with which the search in a runtime without a contract begins.

    Of .NET Framework no process was seen. .NET Framework 4 is the ancestor of .NET Core 2.1, and is taken to have its
    structures. That of 2.0 is taken to have those of the Shared Source CLI 2.0, which it was released with.
    """
    layout = X64 if pointer_size == 8 else X86
    if family is RuntimeFamily.FRAMEWORK_4:
        return replace(layout, needs_proof=True)
    if family is RuntimeFamily.FRAMEWORK_2:
        return replace(layout, chunks=_OLD_CHUNKS[pointer_size], has_token_in_class=True, needs_proof=True)
    return layout


def layout_of_contract(contract: Contract) -> RuntimeLayout:
    """Return the layout that a runtime's contract describes. Raises StructureError if it lacks what is needed."""
    at, size = contract.offset, contract.size
    bits = contract.globals.get("MethodDescTokenRemainderBitCount", 0)
    alignment = contract.globals.get("MethodDescAlignment", contract.pointer_size)
    if not 0 < bits < 24 or not 0 < alignment <= 64:
        message = "the runtime's contract has no sizes of a method's parts"
        raise StructureError(message)
    guessed = X64 if contract.pointer_size == 8 else X86
    return RuntimeLayout(
        contract.pointer_size,
        at("MethodTable", "ParentMethodTable"),
        at("MethodTable", "Module"),
        at("MethodTable", "EEClassOrCanonMT"),
        at("EEClass", "MethodTable"),
        at("EEClass", "FieldDescList"),
        at("EEClass", "MethodDescChunk"),
        (ChunkForm(size("MethodDescChunk"), at("MethodDescChunk", "FlagsAndTokenRange"), 2, alignment, bits),),
        True,
        contract.fields.get("DynamicMethodDesc", {}).get("MethodName"),
        contract.fields["MethodTable"].get("PerInstInfo", guessed.dictionaries),
        contract,
    )
