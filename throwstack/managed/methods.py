# SPDX-License-Identifier: Apache-2.0
"""From a MethodDesc, the runtime's structure for a method, to the method's name and parameters.

    MethodDesc       {u16 lower bits of the token, u8 distance from the chunk's first one, u8, u16 slot, u16 flags, …}
    MethodDescChunk  {MethodTable, next, u8 size, u8 count, u16 upper bits of the token}, then its MethodDescs

The lower three bits of the flags say what kind of method it is. 7 is a method that was made at run time: a stub (its
name is `IL_STUB_PInvoke`, `IL_STUB_ReversePInvoke`), or a `DynamicMethod` of the program. It has no token. After the
MethodDesc come the pointer to its signature, the signature's size (u32, in a word of its own), and the pointer to its
name.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import escape
from throwstack.managed.dynamic_signature import DynamicSignature
from throwstack.managed.managed_exception import ManagedMethod
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_attributes import is_hidden, original_method
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import LOWEST, BudgetSpent, RuntimeMemory, StructureError
from throwstack.managed.type_metadata import TypeMetadata

_KIND_MASK, _DYNAMIC = 7, 7
_FLAGS, _CHUNK_INDEX = 6, 2
_NAME_FROM, _NAME_END = 0x10, 0x40
_MAX_NAME, _MAX_SIGNATURE = 256, 1024
_MAX_KEPT = 1 << 14


class Methods:
    """The methods of one process, by the address of their MethodDesc."""

    __slots__ = ("_known", "_layout", "_memory", "_name_at", "_tables", "_types", "problem")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout, tables: MethodTables, types: TypeMetadata) -> None:
        """All four are of the same process."""
        self._memory = memory
        self._layout = layout
        self._tables = tables
        self._types = types
        self._name_at: list[int] = []
        if layout.method_name is not None:
            self._name_at.append(layout.method_name)
        if layout.contract is None:
            size = layout.pointer_size
            self._name_at += [at for at in range(_NAME_FROM, _NAME_END, size) if at not in self._name_at]
        self._known: dict[int, ManagedMethod | None] = {}
        self.problem = ""
        """Why a method may have been missed: the budget was spent."""

    def at(self, method_desc: int) -> ManagedMethod | None:
        """Return what `find` returns, as a question of its own, which has a budget of its own."""
        self._memory.begin()
        return self.find(method_desc)

    def find(self, method_desc: int) -> ManagedMethod | None:
        """Return the method whose MethodDesc is at this address; None if there is no genuine MethodDesc.

        A MethodDesc is genuine if its chunk names a genuine MethodTable, whose type has the token. If the metadata are
        absent, a genuine MethodTable is enough; the method then has no name, but a reason.
        """
        if method_desc not in self._known:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            try:
                found = self._read(method_desc)
            except BudgetSpent as error:
                self.problem = str(error)
                return None
            except (MemoryUnreadable, StructureError):
                found = None
            self._known[method_desc] = found
        return self._known[method_desc]

    def _read(self, method_desc: int) -> ManagedMethod | None:
        memory = self._memory
        if not memory.is_pointer(method_desc):
            return None
        index = memory.memory.u8(method_desc + _CHUNK_INDEX)
        unnamed = None
        for form in self._types.chunk_forms():
            chunk = method_desc - index * form.alignment - form.size
            table = next((target for target in memory.targets(chunk) if self._tables.is_genuine(target)), None)
            if table is None:
                continue
            if memory.memory.u16(method_desc + _FLAGS) & _KIND_MASK == _DYNAMIC:
                return self._dynamic(method_desc)
            try:
                row = self._types.row(table)
            except BudgetSpent:
                raise
            except StructureError as error:
                unnamed = unnamed or ManagedMethod("", reason=str(error))
                continue
            rid = self._types.method(form, chunk, method_desc, row)
            if rid is not None:
                return described_method(row.metadata, rid)
        return unnamed

    def _dynamic(self, method_desc: int) -> ManagedMethod:
        for at in self._name_at:
            name = next((text for text in map(self._text, self._readings(method_desc + at)) if text), "")
            if name:
                self._name_at.remove(at)
                self._name_at.insert(0, at)
                parameters, reason = self._parameters_before(method_desc + at)
                return ManagedMethod(name, parameters, is_dynamic=True, reason=reason)
        return ManagedMethod("", is_dynamic=True, reason="the name of the dynamic method cannot be read")

    def _readings(self, place: int) -> tuple[int, ...]:
        """Return what the pointer to bytes at `place` may mean: an address, or an offset from there."""
        memory = self._memory
        try:
            value = memory.word(place)
        except MemoryUnreadable:
            return ()
        relative = (place + value) & memory.mask
        # The words around are small numbers, such as the signature's size: no offset leads into the MethodDesc itself.
        return tuple(target for target in (value, relative) if target >= LOWEST and value >= _NAME_END)

    def _text(self, address: int) -> str:
        """Return the zero-terminated name at `address`, "" if it cannot be a name."""
        data, end, _ = self._memory.memory.read_available(address, _MAX_NAME).partition(b"\0")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return ""
        is_name = bool(end) and len(text) > 1 and text.isprintable()
        return escape(text) if is_name else ""

    def _parameters_before(self, place: int) -> tuple[str, str]:
        """Return the parameters of a dynamic method whose name is at `place`, and the reason if they are not known."""
        memory, size = self._memory, self._layout.pointer_size
        try:
            length = memory.memory.u32(place - size)
            for signature in self._readings(place - 2 * size) if length <= _MAX_SIGNATURE else ():
                data = memory.memory.read_available(signature, length)
                if len(data) == length:
                    types = DynamicSignature(data, self._layout, self._short_name).parameter_types()[1]
                    return f"({', '.join(types)})", ""
        except BudgetSpent:
            raise
        except (MemoryUnreadable, MetadataError, StructureError) as error:
            return "", f"parameters not readable: {error}"
        return "", "parameters not readable"

    def _short_name(self, method_table: int) -> str:
        """Return a type's name without namespace and outer types. Raises StructureError, MetadataError."""
        return self._types.name(method_table).rpartition("+")[2].rpartition(".")[2]


def described_method(metadata: Metadata, rid: int) -> ManagedMethod:
    """Return what metadata say of the method in row `rid` of MethodDef; a name that cannot be read is a reason."""
    name, parameters, type_name, module, reason = "", "", "", "", ""
    is_left_out, original = False, ""
    try:
        name = metadata.full_method_name(rid)
        type_name = metadata.type_name(metadata.owner_of_method(rid))
        module = metadata.module_name
        parameters = metadata.parameters(rid)
        is_left_out = is_hidden(metadata, rid)
        original = original_method(metadata, rid)
    except MetadataError as error:
        reason = str(error)
    return ManagedMethod(name, parameters, type_name, module, False, reason, rid, is_left_out, original)
