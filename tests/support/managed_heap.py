# SPDX-License-Identifier: Apache-2.0
"""A process with a .NET runtime, laid out in memory: images with metadata, the runtime's structures, objects, threads.

The layouts are those that were observed in real processes (`throwstack.managed.runtime_layout` names the versions), in
three styles: as .NET 9 and later describe themselves by a contract, with absolute pointers as .NET Core 3.1 and .NET 8,
and with offsets for pointers as .NET Core 2.1. What a test expects is what it has put in: names, messages, frames.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.support.managed_layouts import EXCEPTION_PLACES, LAYOUTS, contract_json
from tests.support.metadata_writer import INT32, STRING, MetadataWriter, managed_image, signature
from tests.support.pe_writer import DATA, X64, X86, Pe, Section
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.runtime import Runtime

RUNTIME, CORELIB, APP = 0x10000000, 0x20000000, 0x30000000
"""Bases of coreclr.dll, System.Private.CoreLib.dll, shop.dll."""
HEAP, STRUCTURES, TEBS, STACK = 0x40000000, 0x50000000, 0x60000000, 0x70000000
_EXCEPTION_FIELDS = ("_message", "_innerException", "_stackTrace", "_remoteStackTraceString", "_HResult")


class Style(Enum):
    """How the runtime's structures are laid out."""

    CONTRACT = "contract"
    ABSOLUTE = "absolute"
    RELATIVE = "relative"
    FRAMEWORK_4 = "clr.dll"
    """Pointers are marked addresses of cells, as between images of NGEN; threads are in slots of the TEB."""
    FRAMEWORK_2 = "mscorwks.dll"
    """Tokens are in the EEClass, and in chunks as the Shared Source CLI has them; threads are in slots of the TEB."""

    @property
    def runtime(self) -> str:
        """Return the file name of the runtime."""
        return self.value if self.value.endswith(".dll") else "coreclr.dll"


@dataclass(frozen=True)
class ForgedType:
    """A type: its MethodTable, the offsets of its fields and those of its bases, the MethodDescs of its methods."""

    name: str
    method_table: int
    size: int
    fields: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Described:
    name: str
    base: str | None
    fields: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("Do",)


_LIBRARY = (
    _Described("System.Object", None),
    *(_Described(f"System.{name}", "System.Object") for name in ("String", "Int32")),
    _Described("System.Environment", "System.Object", (), ("FailFast",)),
    _Described("System.Threading.Thread", "System.Object", ("_name",)),
    _Described("System.Exception", "System.Object", _EXCEPTION_FIELDS),
    _Described("System.ArgumentException", "System.Exception", ("_paramName",)),
    _Described("System.ArgumentOutOfRangeException", "System.ArgumentException", ("_actualValue",)),
    _Described("System.AggregateException", "System.Exception", ("_innerExceptions",)),
    _Described("System.ObjectDisposedException", "System.Exception", ("_objectName",)),
    *(_Described(f"System.{name}Exception", "System.Exception") for name in ("NullReference", "AccessViolation")),
)
_PROGRAM = (
    _Described("Shop.Program", "System.Object", (), ("Main", "Run")),
    _Described("Shop.OrderException", "System.Exception", ("order",)),
    _Described("Shop.Failure`1", "System.Exception"),
    _Described("Shop.ComposedException", "System.Exception", (), ("Do", "get_Message")),
)


class ForgedRuntime:
    """The process. Addresses are handed out in ascending order; `place` writes anywhere."""

    def __init__(self, style: Style = Style.CONTRACT, arch: Arch = Arch.X64, *, old_messages: bool = False) -> None:
        """`old_messages`: System.Exception has the field `_className`, as before .NET Core 3."""
        self.style, self.arch, self.size = style, arch, arch.pointer_size
        self.pages: dict[int, bytearray] = {}
        self.types: dict[str, ForgedType] = {}
        self.threads: list[tuple[int, int]] = []
        self._next = {HEAP: HEAP + 0x100, STRUCTURES: STRUCTURES + 0x100, TEBS: TEBS, STACK: STACK}
        self._layout = LAYOUTS[self.size]
        self._old_messages = old_messages
        self._modules: dict[int, int] = {}
        self.files: dict[int, bytes] = {}
        self._store = self.allocate(STRUCTURES, 0x100)
        self._thread_cells: list[int] = []
        for base, name, described in ((CORELIB, "System.Private.CoreLib", _LIBRARY), (APP, "shop", _PROGRAM)):
            self._image(base, name, described)
        self._arrays = {size: self._array_type(size) for size in (1, self.size)}
        self._image_of_runtime()

    def allocate(self, area: int, size: int) -> int:
        """Return the address of `size` fresh bytes of `area`."""
        at = self._next[area]
        self._next[area] = (at + size + 15) & ~15
        self.place(at, bytes(size))
        return at

    def place(self, address: int, data: bytes) -> None:
        """Write bytes; a page that is not there comes into being."""
        while data:
            offset = address % PAGE_SIZE
            part = data[: PAGE_SIZE - offset]
            page = self.pages.setdefault(address - offset, bytearray(PAGE_SIZE))
            page[offset : offset + len(part)] = part
            address, data = address + len(part), data[len(part) :]

    def word(self, address: int, value: int) -> None:
        """Write a word of a pointer's size."""
        self.place(address, (value & (1 << 8 * self.size) - 1).to_bytes(self.size, "little"))

    def page(self, address: int) -> bytes | None:
        """Return a page: the process is a `PageSource`."""
        found = self.pages.get(address)
        return None if found is None else bytes(found)

    def _link(self, address: int, target: int) -> None:
        """Write a pointer in the form of this style."""
        if self.style is Style.FRAMEWORK_4 and target:
            cell = self.allocate(STRUCTURES, self.size)
            self.word(cell, target)
            target = cell | 1
        self.word(address, target - address if self.style is Style.RELATIVE and target else target)

    def runtime(self) -> Runtime:
        """Return what throwstack finds."""
        found = Runtime.find(self.memory, self.images, self.threads)
        assert found is not None
        return found

    def thrown(self, address: int) -> ManagedException:
        """Return what throwstack reads of the exception at `address`, as the last thrown one of a new thread."""
        self.thread(0x7F0, address)
        found = self.runtime().exception_of(0x7F0)
        assert found is not None
        return found

    @property
    def memory(self) -> Memory:
        """Return the memory as it is now."""
        return Memory(self)

    @property
    def images(self) -> ImageMap:
        """Return the images in the loader's list."""
        names = {RUNTIME: self.style.runtime, CORELIB: "System.Private.CoreLib.dll", APP: "shop.dll"}
        root = r"c:\dotnet\shared\Microsoft.NETCore.App\8.0.4" if self.style.runtime == "coreclr.dll" else r"c:\windows"
        modules = [Module(name, rf"{root}\{name}", base, 0x8000) for base, name in names.items()]
        return ImageMap(self.memory, ModuleMap(modules))

    def loaded_layout(self, base: int) -> int:
        """Return the address of the structure {…, base, flags} of the image that was laid out at `base`."""
        assembly = self.memory.pointer(self._modules[base] + 0xC0, self.size)
        return self.memory.pointer(self.memory.pointer(assembly + self.size, self.size) + 0x80, self.size)

    def _image(self, base: int, name: str, described: Sequence[_Described]) -> None:
        writer = MetadataWriter(module=f"{name}.dll")
        rows: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {}
        for kind in described:
            namespace, _, short = kind.name.rpartition(".")
            row = writer.type_def(short, namespace)
            fields = {field: writer.field(field) for field in self._fields(kind)}
            methods = {
                method: writer.method(method, signature(STRING, INT32), ("name", "count")) for method in kind.methods
            }
            rows[kind.name] = row, fields, methods
        image = managed_image(writer.build(), machine=X64 if self.size == 8 else X86, base=base)
        self.files[base] = image.file()
        self.place(base, image.mapped())
        module = self._modules[base] = self._module(base)
        for kind in described:
            self._type(kind, module, *rows[kind.name])

    def _fields(self, kind: _Described) -> tuple[str, ...]:
        is_old = self._old_messages and kind.name == "System.Exception"
        return ("_className", *kind.fields) if is_old else kind.fields

    def _module(self, base: int) -> int:
        """Lay out Module, PEAssembly, PEImage and its layout."""
        step = self.size
        module, assembly, image, layout = (self.allocate(STRUCTURES, 0x200) for _ in range(4))
        self.word(module + 0xC0, assembly)
        self.word(assembly + step, image)
        self.word(image + 0x80, layout)
        self.word(layout + step, base)
        self.place(layout + 0x14, struct.pack("<I", 1))
        return module

    def _type(self, kind: _Described, module: int, row: int, fields: dict[str, int], methods: dict[str, int]) -> None:
        at, size = self._layout, self.size
        base = self.types.get(kind.base or "")
        table, eeclass = self.allocate(STRUCTURES, 0x100), self.allocate(STRUCTURES, 0x80)
        offsets = dict(base.fields) if base else {}
        end = base.size if base else size
        descs = self.allocate(STRUCTURES, (size + 8) * (len(fields) + 1))
        fixed = EXCEPTION_PLACES[size] if kind.name == "System.Exception" else {}
        for index, (name, rid) in enumerate(fields.items()):
            desc = descs + index * (size + 8)
            at_field = fixed.get(name, end)
            self._link(desc, table)
            self.place(desc + size, struct.pack("<II", rid | 1 << 30, at_field - size | 0x12 << 27))
            offsets[name] = at_field
            end = max(end, at_field + size)
        self.word(table + at["parent"], base.method_table if base else 0)
        self._link(table + at["module"], module)
        self.word(table + at["eeclass"], eeclass)
        token = {Style.CONTRACT: row << 8, Style.FRAMEWORK_2: len(methods) << 16}.get(self.style, row << 16)
        self.place(table + 8, struct.pack("<I", token | 0x55))
        if self.style is Style.FRAMEWORK_2:
            self.place(eeclass + 0x40, struct.pack("<I", 0x02000000 | row))
        self._link(eeclass + at["class_table"], table)
        self._link(eeclass + at["class_fields"], descs if fields else 0)
        chunk = self._chunk(table, methods)
        self._link(eeclass + at["class_chunks"], chunk)
        addresses = {name: chunk + self._head + index * 16 for index, name in enumerate(methods)}
        self.types[kind.name] = ForgedType(kind.name, table, end, offsets, addresses)

    @property
    def _head(self) -> int:
        """Return the size of a MethodDescChunk before its MethodDescs, which have 16 bytes each."""
        return 4 * self.size if self.style is Style.FRAMEWORK_2 else self._layout["chunk"]

    def _chunk(self, table: int, methods: dict[str, int]) -> int:
        is_old = self.style is Style.FRAMEWORK_2
        chunk = self.allocate(STRUCTURES, self._head + 16 * (len(methods) + 1))
        self._link(chunk, table)
        self.place(chunk + (3 if is_old else 2) * self.size, bytes([len(methods), 2, 0, 0]))
        unit = 8 if is_old else self.size
        for index, rid in enumerate(methods.values()):
            desc = struct.pack("<HBxHH", rid, 16 // unit * index, index, 0)
            self.place(chunk + self._head + index * 16, desc)
        return chunk

    def instantiate(self, name: str, *arguments: int) -> str:
        """Lay out an instantiation of the generic type `name` over these MethodTables; returns its name in `types`."""
        at, size, generic = self._layout, self.size, self.types[name]
        table = self.allocate(STRUCTURES, 0x100)
        self.place(table, self.memory.read(generic.method_table, 0x80))
        self.place(table, struct.pack("<I", 0x10))
        self.word(table + at["parent"], self.types["System.Exception"].method_table)
        self._link(table + at["module"], self._modules[APP])
        self.word(table + at["eeclass"], generic.method_table | 1)
        own = self.allocate(STRUCTURES, size * len(arguments))
        for index, argument in enumerate(arguments):
            self._link(own + index * size, argument)
        dictionaries = self.allocate(STRUCTURES, 4 * size) + size
        self.place(dictionaries - 4, struct.pack("<HH", 1, len(arguments)))
        self._link(dictionaries, own)
        self._link(table + (0x30 if size == 8 else 0x20), dictionaries)
        made = f"{name}[…]"
        self.types[made] = ForgedType(made, table, generic.size, generic.fields)
        return made

    def _array_type(self, element_size: int) -> int:
        table = self.allocate(STRUCTURES, 0x100)
        self.place(table, struct.pack("<I", 0x80000000 | element_size))
        return table

    def dynamic_method(self, name: str, data: bytes = b"\0\2\x01\x08\x0e") -> int:
        """Lay out the MethodDesc of a dynamic method with the signature `data`: `void (int, string)`."""
        at, size = self._layout, self.size
        chunk = self.allocate(STRUCTURES, self._head + 0x60)
        text = self.allocate(STRUCTURES, len(name) + 1)
        self.place(text, name.encode() + b"\0")
        blob = self.allocate(STRUCTURES, len(data))
        self.place(blob, data)
        self._link(chunk, self.types["Shop.Program"].method_table)
        desc = chunk + self._head
        self.place(desc, struct.pack("<HBxHH", 0, 0, 0, 7))
        name_at = at["contract_name"] if self.style is Style.CONTRACT else at["name"]
        write = self._link if self.style is Style.RELATIVE else self.word
        write(desc + name_at - 2 * size, blob)
        self.place(desc + name_at - size, struct.pack("<I", len(data)))
        write(desc + name_at, text)
        return desc

    def string(self, text: str | None, claimed: int | None = None) -> int:
        """Lay out a string that claims to have `claimed` characters; 0 for None."""
        if text is None:
            return 0
        data = text.encode("utf-16-le", "surrogatepass")
        at = self.allocate(HEAP, self.size + 4 + len(data) + 2)
        self.word(at, self.types["System.String"].method_table)
        self.place(at + self.size, struct.pack("<I", len(data) // 2 if claimed is None else claimed) + data)
        return at

    def number(self, value: int) -> int:
        """Lay out a boxed Int32."""
        at = self.allocate(HEAP, 2 * self.size)
        self.word(at, self.types["System.Int32"].method_table)
        self.place(at + self.size, struct.pack("<i", value))
        return at

    def array(self, element_size: int, length: int, data: bytes) -> int:
        """Lay out an array."""
        at = self.allocate(HEAP, 2 * self.size + len(data))
        self.word(at, self._arrays[element_size])
        self.place(at + self.size, struct.pack("<I", length))
        self.place(at + 2 * self.size, data)
        return at

    def references(self, *targets: int) -> int:
        """Lay out an array of objects."""
        return self.array(self.size, len(targets), b"".join(item.to_bytes(self.size, "little") for item in targets))

    def trace(self, *frames: tuple[int, int, int, int], claimed: int | None = None, in_objects: bool = False) -> int:
        """Lay out a `_stackTrace` of (ip, sp, MethodDesc, flags); `in_objects`: in an array of objects, as .NET 9."""
        form = "<4Q" if self.size == 8 else "<4I"
        data = struct.pack("<I", len(frames) if claimed is None else claimed).ljust(2 * self.size, b"\0")
        data += b"".join(struct.pack(form, *frame) for frame in frames)
        array = self.array(1, len(data), data)
        return self.references(array) if in_objects else array

    def exception(self, kind: str, message: str | None, hresult: int = 0x80131500, **fields: int) -> int:
        """Lay out an exception; `fields` are references by the name of the field."""
        described = self.types[kind]
        at = self.allocate(HEAP, described.size)
        self.word(at, described.method_table)
        self.word(at + described.fields["_message"], self.string(message))
        self.place(at + described.fields["_HResult"], struct.pack("<I", hresult))
        for name, value in fields.items():
            self.word(at + described.fields[name], value)
        return at

    def _handle(self, target: int) -> int:
        cell = self.allocate(STRUCTURES, self.size)
        self.word(cell, target)
        return cell

    def thread(self, tid: int, last_thrown: int = 0, name: str | None = None) -> int:
        """Lay out a thread of the runtime, with its TEB; returns the address of its Thread."""
        at = self._layout
        teb, block = self.allocate(TEBS, 0x2000), self.allocate(STRUCTURES, 0x40)
        thread = self.allocate(STRUCTURES, 0x400)
        slots = self.allocate(STRUCTURES, 8 * self.size)
        if self.style.runtime == "coreclr.dll":
            self.word(teb + at["storage"], slots)
        else:
            self.word(teb + (0x1480 if self.size == 8 else 0xE10) + 9 * self.size, thread)
        self.word(slots + 3 * self.size, block)
        self.word(block + 2 * self.size, thread)
        self.place(thread + at["id"], struct.pack("<I", tid))
        self.word(thread + at["teb"], teb)
        exposed = self.allocate(HEAP, self.types["System.Threading.Thread"].size)
        self.word(exposed, self.types["System.Threading.Thread"].method_table)
        self.word(exposed + self.types["System.Threading.Thread"].fields["_name"], self.string(name))
        self.word(thread + at["exposed"], self._handle(exposed))
        self.word(thread + at["thrown"], self._handle(last_thrown))
        before = self._thread_cells[-1] if self._thread_cells else self._store + 0x40
        self.word(before, thread + at["next"])
        self._thread_cells.append(thread + at["next"])
        self.threads.append((tid, teb))
        return thread

    def _image_of_runtime(self) -> None:
        """Lay out coreclr.dll: TLS directory, TLS index 3, the contract."""
        rva, size = 0x1000, self.size
        form = "<4Q" if size == 8 else "<4I"
        start = RUNTIME + rva
        directory = struct.pack(form, start + 0x800, start + 0x840, start + 0x100, 0) + struct.pack("<II", 0, 0)
        data = directory.ljust(0x100, b"\0") + struct.pack("<I", 3)
        data = data.ljust(0x200, b"\0")
        text = json.dumps(self.contract()).encode()
        variables = [0, self._handle(self._store), self._handle(self.types["System.Exception"].method_table)]
        pointer = "Q" if size == 8 else "I"
        aux_at = 0x300
        descriptor = b"DNCCDAC\0" + struct.pack("<II", 1 if size == 8 else 3, len(text))
        descriptor += struct.pack(f"<{pointer}II{pointer}", start + 0x1000, len(variables), 0, start + aux_at)
        data += descriptor.ljust(0x100, b"\0") + b"".join(struct.pack(f"<{pointer}", item) for item in variables)
        data = data.ljust(0x1000, b"\0") + text
        exports: list[tuple[str | None, int | str]] = [("coreclr_execute_assembly", 0x1400)]
        if self.style is Style.CONTRACT:
            exports.append(("DotNetRuntimeContractDescriptor", rva + 0x200))
        machine = X64 if size == 8 else X86
        pe = Pe(
            machine, RUNTIME, sections=[Section(".data", rva, data, DATA)], exports=exports, directories={9: (rva, 40)}
        )
        self.place(RUNTIME, pe.mapped())

    def contract(self) -> dict[str, object]:
        """Return the contract's JSON."""
        return contract_json(self.size)
