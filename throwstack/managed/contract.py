# SPDX-License-Identifier: Apache-2.0
r"""The data contract of .NET 9 and later: the runtime's own description of its structures, for debuggers.

The runtime exports `DotNetRuntimeContractDescriptor` (dotnet/runtime,
docs/design/datacontracts/contract-descriptor.md):

    u64 magic "DNCCDAC\0"   u32 flags (bit 1: 32-bit pointers)   u32 size of the JSON   JSON*
    u32 number of auxiliary words   u32 padding   auxiliary words*

The JSON has the offsets of fields by type, and global values (data_descriptor.md):

    "types":   {"Thread": {"!": size, "OSId": 304, "LastThrownObject": [344, "GCHandle"]}}
    "globals": {"MethodDescAlignment": ["0x8", "uint64"], "ThreadStore": [[3], "pointer"]}

`[3]` is the index of an auxiliary word, which holds the address of a variable of the runtime. The JSON is read from a
dump, so it may be anything: its size, its nesting and its numbers are bounded, and what has another shape is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.images.image import Image
from throwstack.managed.bounded_json import parse_json, whole_number
from throwstack.managed.runtime_memory import StructureError

EXPORT = "DotNetRuntimeContractDescriptor"
_MAGIC = b"DNCCDAC\0"
_IS_32BIT = 2
_MAX_JSON = 1 << 18
"""The JSON of .NET 10 has 11 KB."""
_MAX_AUXILIARY = 1 << 12
_MAX_TYPES, _MAX_FIELDS = 1 << 12, 1 << 10
_MAX_OFFSET = 1 << 16
_MAX_PAGES, _MAX_MARKS = 256, 4
"""The most pages that are searched for the contract's mark, and the most marks that are looked at."""
_ALIGNMENT = 8
_SIZE = "!"


@dataclass(frozen=True, slots=True)
class Contract:
    """Offsets of fields in bytes by type and field, sizes of types in bytes, and global values by name.

    Of `globals` that name a variable of the runtime, the value is the variable's address.
    """

    pointer_size: int
    fields: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, int]
    globals: Mapping[str, int]

    def offset(self, type_name: str, field: str) -> int:
        """Return the offset of `field`; raises StructureError if the contract does not have it."""
        value = self.fields.get(type_name, {}).get(field)
        if value is None:
            message = f"the runtime's contract has no field {type_name}.{field}"
            raise StructureError(message)
        return value

    def size(self, type_name: str) -> int:
        """Return the size of a type in bytes; raises StructureError if the contract does not have it."""
        value = self.sizes.get(type_name)
        if value is None:
            message = f"the runtime's contract has no size of {type_name}"
            raise StructureError(message)
        return value


def contract_of(image: Image) -> Contract | None:
    """Return the contract that `image` exports; None if it exports none, or one that cannot be read.

    If the list of exports cannot be read, the contract's mark is searched for in the sections with variables.
    """
    address = next((image.base + export.rva for export in image.exports if export.name == EXPORT), None)
    places: Iterable[int] = () if address is None else (address,)
    if address is None and image.exports.may_lack(EXPORT):
        places = islice(_marks(image), _MAX_MARKS)
    for place in places:
        with suppress(MemoryUnreadable, StructureError):
            return read_contract(image.memory, place)
    return None


def _marks(image: Image) -> Iterator[int]:
    """Yield each page's first aligned place with the contract's mark, of the writable sections of `image`."""
    sections = () if image.headers is None else image.headers.sections
    starts = (range(each.rva, each.rva + each.size, PAGE_SIZE) for each in sections if each.is_writable)
    for rva in islice(chain.from_iterable(starts), _MAX_PAGES):
        at = (image.memory.page(image.base + rva) or b"").find(_MAGIC)
        if at >= 0 and at % _ALIGNMENT == 0:
            yield image.base + rva + at


def read_contract(memory: Memory, address: int) -> Contract:
    """Read the contract whose descriptor is at `address`. Raises MemoryUnreadable, StructureError."""
    if memory.read(address, 8) != _MAGIC:
        message = "the runtime's contract does not begin with its mark"
        raise StructureError(message)
    size = 4 if memory.u32(address + 8) & _IS_32BIT else 8
    length = memory.u32(address + 12)
    json_at = memory.pointer(address + 16, size)
    count_at = address + 16 + size
    count = memory.u32(count_at)
    words_at = memory.pointer(count_at + 8, size)
    if length > _MAX_JSON or count > _MAX_AUXILIARY:
        message = "the runtime's contract is larger than any runtime's"
        raise StructureError(message)
    text = memory.read(json_at, length)
    data = memory.read_available(words_at, count * size)
    words = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data) - size + 1, size)]
    return parse_contract(text, size, words)


def parse_contract(text: bytes, pointer_size: int, auxiliary: list[int]) -> Contract:
    """Parse the contract's JSON; `auxiliary` are the words to which globals refer by index. Raises StructureError."""
    whole = parse_json(text, "the runtime's contract")
    types = _object(whole, "types", _MAX_TYPES)
    fields: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    for name, members in types.items():
        known = {field: at for field, said in _items(members, _MAX_FIELDS) if (at := _offset(said)) is not None}
        if _SIZE in known:
            sizes[name] = known.pop(_SIZE)
        fields[name] = known
    values = {
        name: value
        for name, said in _object(whole, "globals", _MAX_TYPES).items()
        if (value := _global(said, auxiliary)) is not None
    }
    return Contract(pointer_size, fields, sizes, values)


def _object(whole: object, name: str, limit: int) -> dict[str, object]:
    found = whole.get(name) if isinstance(whole, dict) else None
    return dict(_items(found, limit))


def _items(value: object, limit: int) -> list[tuple[str, object]]:
    return list(value.items())[:limit] if isinstance(value, dict) else []


def _offset(value: object) -> int | None:
    """Return the offset in `offset` or `[offset, type]`; None if it is neither, or beyond any structure."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < _MAX_OFFSET else None


def _global(said: object, auxiliary: list[int]) -> int | None:
    """Return the value in `["0x8", type]`, `8`, or `[[index], type]`, where `index` is that of an auxiliary word."""
    # ["0x8", "uint8"] and [[3], "pointer"] have a type beside the value; a bare value or a bare [3] is valid too.
    value = said[0] if isinstance(said, list) and len(said) == 2 else said
    if isinstance(value, list):
        index = value[0] if len(value) == 1 else None
        is_index = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(auxiliary)
        return auxiliary[index] if is_index and index is not None else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return whole_number(value) if isinstance(value, str) else None
    except ValueError:
        return None
