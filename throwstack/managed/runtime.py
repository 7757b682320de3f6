# SPDX-License-Identifier: Apache-2.0
"""The .NET runtime of one process: the room's entry point.

`Runtime.find` costs nothing in a process without a runtime. All else is read when it is asked for, and is bounded by
`Budgets.managed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.regions import Regions
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.images.image import Image, ImageMap
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.exception_objects import ExceptionObjects
from throwstack.managed.fail_fast_arguments import FailFastArguments, fail_fast_arguments
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.jit_code import JitCode
from throwstack.managed.jit_code_x86 import JitCodeX86
from throwstack.managed.likely_exception import LikelyException
from throwstack.managed.managed_exception import ManagedException, ManagedMethod
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_tables import MethodTables
from throwstack.managed.methods import Methods
from throwstack.managed.module_images import ModuleImages
from throwstack.managed.nested_exceptions import NestedExceptions
from throwstack.managed.runtime_layout import RuntimeLayout, guessed_layout, layout_of_contract
from throwstack.managed.runtime_memory import RuntimeMemory, StructureError
from throwstack.managed.runtime_module import RuntimeModule, find_runtime_module
from throwstack.managed.runtime_threads import RuntimeThreads
from throwstack.managed.stack_exceptions import OnStack, exceptions_on_stack
from throwstack.managed.structure_map import StructureMaps, WordMap
from throwstack.managed.thread_handles import ThreadHandles
from throwstack.managed.type_metadata import TypeMetadata
from throwstack.unwind.code_outside import FunctionSource

_THREAD_CLASS = "System.Threading.Thread"
_MAX_NAME = 256
_THREAD_SIZE, _OBJECT_SIZE = 0x400, 0x80
"""How many bytes of a Thread, and of an object, a MethodTable and an EEClass, a map shows."""


@dataclass(frozen=True, slots=True)
class LastThrown:
    """The exception object that a Thread of the runtime keeps as the last thrown one; or None, and the reason."""

    exception: ManagedException | None
    reason: str = ""


class Runtime:
    """What the runtime of one process says of its threads, exceptions and methods."""

    __slots__ = (
        *("_exceptions", "_fewer", "_handles", "_images", "_last", "_layout", "_memory", "_module", "_modules"),
        *("_nested", "_objects", "_tables", "_threads", "_types", "methods"),
    )

    def __init__(
        self, memory: Memory, images: ImageMap, module: RuntimeModule, threads: Sequence[tuple[int, int]]
    ) -> None:
        """`module` is the runtime, one of `images` in `memory`; `threads` are pairs (thread id, address of the TEB)."""
        arch = _arch(module, images)
        self._layout = layout = _layout(module, arch.pointer_size)
        self._module = module
        self._images = images
        self._memory = RuntimeMemory(memory, arch.pointer_size)
        self._tables = MethodTables(self._memory, layout)
        self._modules = ModuleImages(self._memory, layout, images)
        self._types = TypeMetadata(self._memory, layout, self._tables, self._modules)
        self._objects = HeapObjects(self._memory, layout, self._tables, self._types)
        self.methods = Methods(self._memory, layout, self._tables, self._types)
        kind = ExceptionClass(self._objects, layout)
        is_framework = module.family.is_framework
        self._exceptions = ExceptionObjects(self._objects, kind, self.methods, is_framework=is_framework)
        self._threads = RuntimeThreads(self._memory, layout, module.image, threads)
        self._handles = ThreadHandles(
            self._objects, kind, LikelyException(self._objects, kind, self.methods, layout), layout
        )
        self._nested = NestedExceptions(self._memory, layout, kind)
        self._last: dict[int, LastThrown] = {}
        self._fewer: dict[int, str] = {}

    @classmethod
    def find(cls, memory: Memory, images: ImageMap, threads: Sequence[tuple[int, int]]) -> Runtime | None:
        """Return the runtime of a process (of one side of it), None if it has none.

        `threads` are pairs (thread id, address of the TEB of that side).
        """
        module = find_runtime_module(images)
        return None if module is None else cls(memory, images, module, threads)

    @property
    def pointer_size(self) -> int:
        """Return the size of a pointer in the process, in bytes."""
        return self._memory.size

    @property
    def image(self) -> Image:
        """Return the image of the runtime."""
        return self._module.image

    @property
    def version(self) -> str:
        """Return which runtime it is, in words: `.NET 8.0.4`."""
        return self._module.version

    @property
    def function_pointer(self) -> str:
        """Return the word for a function pointer in the parameter lists that this runtime prints."""
        return self._layout.function_pointer

    @property
    def is_experimental(self) -> bool:
        """Say whether the runtime is .NET Framework, which was never tried on a real process."""
        return self._module.family.is_framework

    def last_thrown(self, tid: int) -> LastThrown:
        """Return the exception that was last thrown on thread `tid`: unhandled, in flight, or in a catch block."""
        if tid not in self._last:
            self._memory.begin()
            self._last[tid] = self._last_thrown(tid)
        return self._last[tid]

    def exception_of(self, tid: int) -> ManagedException | None:
        """Return the exception of `last_thrown`."""
        return self.last_thrown(tid).exception

    def _last_thrown(self, tid: int) -> LastThrown:
        try:
            thread = self._threads.thread(tid)
            if thread is None:
                return LastThrown(None, "no structure of the runtime was found for this thread")
            handle = self._handles.last_thrown(thread)
            if not handle.target:
                return LastThrown(None, handle.reason)
            return LastThrown(self._exceptions.read(handle.target))
        except (MemoryUnreadable, StructureError) as error:
            return LastThrown(None, str(error))

    def metadata_of(self, base: int) -> Metadata:
        """Return the metadata of the image at `base`. Raises MetadataError with the reason why there are none."""
        return self._modules.metadata(base)

    def exceptions_in_flight(self, tid: int) -> tuple[ManagedException, ...]:
        """Return the exceptions that thread `tid` has in flight, the last thrown first.

        There are several where a catch or finally block threw, as far as the runtime keeps the first one.
        """
        last = self.last_thrown(tid).exception
        if last is None:
            return ()
        self._memory.begin()
        found = [last]
        try:
            thread, thrown_at = self._threads.thread(tid), self._handles.thrown_at
            if thread is not None and thrown_at is not None:
                others, self._fewer[tid] = self._nested.of_thread(thread.address, thrown_at)
                found += [self._exceptions.read(address) for address in others if address != last.address]
        except (MemoryUnreadable, StructureError) as error:
            self._fewer[tid] = str(error)
        return tuple(found)

    def why_fewer(self, tid: int) -> str:
        """Return why thread `tid` may have more exceptions in flight than were found, "" if nothing hides one."""
        return self._fewer.get(tid, "")

    def function_source(self, regions: Regions | None = None) -> FunctionSource:
        """Return what knows the functions that the JIT compiler made; `regions` are the regions of the process."""
        kind = JitCode if self._memory.size == 8 else JitCodeX86
        return kind(self._memory.memory, self.methods, regions)

    def method_at(self, method_desc: int) -> ManagedMethod | None:
        """Return the method whose MethodDesc is at this address; None if no genuine one is there."""
        self._memory.begin()
        return self.methods.at(method_desc)

    def thread_name(self, tid: int) -> str:
        """Return the name that the program gave to thread `tid`, "" if it gave none or it cannot be read."""
        self._memory.begin()
        try:
            thread = self._threads.thread(tid)
            exposed = 0 if thread is None else self._handles.thread_object(thread).target
            if not exposed:
                return ""
            place = self._objects.field(exposed, _THREAD_CLASS, "_name", "m_Name")
            name = None if place is None else self._objects.string(self._objects.reference(exposed, place))
        except (MemoryUnreadable, StructureError, MetadataError):
            return ""
        return escape(name or "", _MAX_NAME)

    def learnt(self) -> list[str]:
        """Return what was learnt of the runtime's structures so far, as lines with offsets and counts alone."""
        return [
            f"described by a contract: {'yes' if self._module.contract is not None else 'no'}",
            *self._threads.learnt(),
            *self._handles.learnt(),
            *self._tables.learnt(),
            *self._types.learnt(),
        ]

    def structure_maps(self, tid: int) -> list[WordMap]:
        """Return maps of the structures that belong to thread `tid` and its exception: what kind of word is where."""
        self._memory.begin()
        maps = StructureMaps(self._memory, self._tables, self._images, self.image)
        teb = self._threads.teb(tid)
        try:
            thread = self._threads.thread(tid)
            places = [("Thread", thread.address, _THREAD_SIZE)] if thread else self._threads.places(tid)
            exception = self.last_thrown(tid).exception
            if exception is not None:
                table = exception.method_table
                places += [("exception", exception.address, _OBJECT_SIZE), ("MethodTable", table, _OBJECT_SIZE)]
                places += [("EEClass", self._tables.eeclass(table) or 0, _OBJECT_SIZE)]
        except StructureError:
            return []
        return [maps.of(name, address, size, tid, teb) for name, address, size in places if address]

    def word_at(self, address: int) -> int | None:
        """Return the word at `address`, None if it cannot be read."""
        try:
            return self._memory.word(address)
        except MemoryUnreadable:
            return None

    def fail_fast_arguments(self, low: int, high: int) -> FailFastArguments | None:
        """Return what Environment.FailFast was given, by the words of the stack from `low` to `high`, or None."""
        self._memory.begin()
        return fail_fast_arguments(self._objects, self._exceptions, low, high)

    def exceptions_on_stack(self, low: int, high: int) -> tuple[OnStack, ...]:
        """Return the exception objects to which words of the stack from `low` to `high` point, nearest to `low` first.

        This needs no Thread. Among them are objects that were handled long ago: which one is the stuck thread's has to
        be told otherwise. At most 1 MB of the stack is searched, and 16 objects are returned.
        """
        self._memory.begin()
        return tuple(exceptions_on_stack(self._memory, self._images, self._exceptions, low, high))


def _arch(module: RuntimeModule, images: ImageMap) -> Arch:
    """Return the architecture of the runtime, by its headers or, if they are absent, by those of another image."""
    known = (image.headers.arch for image in (module.image, *images) if image.headers is not None)
    return next(known, Arch.X64)


def _layout(module: RuntimeModule, pointer_size: int) -> RuntimeLayout:
    word = "" if module.has_function_pointer_types else "IntPtr"
    return replace(_layout_of(module, pointer_size), function_pointer=word)


def _layout_of(module: RuntimeModule, pointer_size: int) -> RuntimeLayout:
    contract = module.contract
    if contract is not None and contract.pointer_size == pointer_size:
        try:
            return layout_of_contract(contract)
        except StructureError:
            pass
    return guessed_layout(pointer_size, module.family)
