# SPDX-License-Identifier: Apache-2.0
"""The managed code of one address space as the rest of throwstack asks for it: names, unwind data, exceptions.

Every process is asked for it, and few have any. So nothing is read before the first question, and the first question
asks whether the process has a runtime at all, which the names of its modules tell. The modules that read a runtime are
imported then: they take as long as the triage of hundreds of threads. What fails here costs a name or a
frame, never the walk: each question is answered inside a guard.

Names are those that WinDbg shows with SOS: `shop!Shop.Orders.Place(String name)+0x1e`. The module is the assembly's
file, the offset counts from the method's begin, funclets included. A method that was made at run time is in no file:
`<dynamic>!IL_STUB_PInvoke`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from throwstack.core.guard import Guard
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.regions import Regions
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import label_of
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_memory import StructureError
from throwstack.managed.runtime_module import find_runtime_module
from throwstack.names.frame_records import FrameData, FrameDataSource
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import Name, SymbolKind
from throwstack.unwind.code_outside import OutsideFunction

if TYPE_CHECKING:
    from throwstack.managed.fail_fast_arguments import FailFastArguments
    from throwstack.managed.jit_code import JitCode, JitMethod
    from throwstack.managed.jit_code_x86 import JitCodeX86
    from throwstack.managed.managed_exception import ManagedException, ManagedMethod
    from throwstack.managed.method_indexes import MethodIndexes
    from throwstack.managed.precompiled import PrecompiledCode
    from throwstack.managed.runtime import Runtime

log = logging.getLogger(__name__)

DYNAMIC = "<dynamic>"
"""What is shown as the module of a method that was made at run time."""
_FORESEEN = (MemoryUnreadable, MetadataError, StructureError)
_NAMELESS = "managed method, name not readable"

ThreadsOf = Callable[[], Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class _Methods:
    """The methods of a runtime, as the search for JIT-compiled code asks for them."""

    runtime: Runtime

    def at(self, method_desc: int) -> ManagedMethod | None:
        return self.runtime.method_at(method_desc)


class ManagedCode:
    """The managed code of one address space, which may have none.

    It is a `FunctionSource` for unwinders and knows `CompiledMethods` for names.
    """

    __slots__ = (
        *("_code", "_images", "_indexes", "_is_found", "_memory", "_precompiled", "_regions", "_runtime", "_threads"),
    )

    def __init__(
        self,
        memory: Memory,
        images: ImageMap,
        regions: Regions | None,
        threads: ThreadsOf,
        indexes: MethodIndexes | None = None,
    ) -> None:
        """`images` are those of the address space `memory`, and `regions` its regions, None if they are not known.

        `threads` returns pairs (thread id, address of the TEB) of the process, of the side of `images`.
        `indexes` are what is known of precompiled images by their contents, shared between processes.
        """
        self._memory = memory
        self._indexes = indexes
        self._images = images
        self._regions = regions
        self._threads = threads
        self._is_found = False
        self._runtime: Runtime | None = None
        self._code: JitCode | JitCodeX86 | None = None
        self._precompiled: PrecompiledCode | None = None

    @property
    def runtime(self) -> Runtime | None:
        """Return the runtime of the address space; None if it has none, or it cannot be used."""
        if not self._is_found:
            self._is_found = True
            with Guard(_say, _FORESEEN):
                if find_runtime_module(self._images) is not None:
                    self._read_runtime()
        return self._runtime

    def _read_runtime(self) -> None:
        from throwstack.managed.jit_code import JitCode  # noqa: PLC0415 the next ones as well: few processes need them
        from throwstack.managed.jit_code_x86 import JitCodeX86  # noqa: PLC0415
        from throwstack.managed.precompiled import PrecompiledCode  # noqa: PLC0415
        from throwstack.managed.runtime import Runtime  # noqa: PLC0415

        self._precompiled = PrecompiledCode(self._memory, self._indexes)
        self._runtime = Runtime.find(self._memory, self._images, self._threads())
        if self._runtime is not None:
            made = JitCode if self._runtime.pointer_size == 8 else JitCodeX86
            self._code = made(self._memory, _Methods(self._runtime), self._regions)

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the managed method at `address`, outside the images, with how it is unwound; None if none is there."""
        if self.runtime is None or self._code is None:
            return None
        with Guard(_say, _FORESEEN):
            found = self._code.function_at(address)
            if found is None or found.name:
                return found
            return replace(found, source=self._why_nameless(address))
        return None

    def name_outside(self, address: int) -> Name | None:
        """Return the name of the managed method at `address`, outside the images; None if none is there."""
        with Guard(_say, _FORESEEN):
            code, method = self._method_at(address)
            if code is None or method is None or not method.name:
                return None
            return Name(address, module_of(method), text_of(method), address - code.start, SymbolKind.CLR)
        return None

    def locate(self, image: Image, rva: int) -> LocatedFunction | None:
        """Return the precompiled method at `rva` of `image`; None if there is none that is known."""
        runtime = self.runtime
        if runtime is None or self._precompiled is None:
            return None
        with Guard(_say, _FORESEEN):
            found = self._precompiled.method_at(image.base, rva)
            if found is None:
                return None
            method, metadata = found
            if method.rid:
                text = metadata.full_method_name(method.rid) + metadata.parameters(method.rid)
            else:
                known = runtime.method_at(method.method_desc) if method.method_desc else None
                text = "" if known is None else text_of(known)
            return LocatedFunction(text, method.start, is_inside=True) if text else None
        return None

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the frame of the precompiled x86 method at `rva` of `image`, by its GC info; None if there is none."""
        if self.runtime is None or self._precompiled is None:
            return None
        with Guard(_say, _FORESEEN):
            return self._precompiled.frame_data(image, rva)
        return None

    def is_in_runtime(self, address: int) -> bool:
        """Say whether `address` is in the image of the runtime."""
        runtime = self.runtime
        return runtime is not None and runtime.image.module.contains(address)

    def last_thrown(self, tid: int) -> tuple[ManagedException | None, str]:
        """Return the object that thread `tid` threw last, or None and the reason."""
        problems: list[str] = []
        runtime = self.runtime
        if runtime is None:
            return None, "the process has no runtime"
        with Guard(problems.append, _FORESEEN):
            found = runtime.last_thrown(tid)
            return found.exception, found.reason
        return None, problems[0]

    def exceptions_in_flight(self, tid: int) -> tuple[ManagedException, ...]:
        """Return the objects that thread `tid` has in flight and the runtime keeps, the last thrown first."""
        runtime = self.runtime
        if runtime is None:
            return ()
        with Guard(_say, _FORESEEN):
            return runtime.exceptions_in_flight(tid)
        return ()

    def exceptions_on_stack(self, low: int, high: int) -> tuple[ManagedException, ...]:
        """Return the exception objects to which words of the stack from `low` to `high` point, the nearest first."""
        runtime = self.runtime
        if runtime is None:
            return ()
        with Guard(_say, _FORESEEN):
            return tuple(found.exception for found in runtime.exceptions_on_stack(low, high))
        return ()

    def fail_fast_arguments(self, low: int, high: int) -> FailFastArguments | None:
        """Return what Environment.FailFast was given, by the words of the stack from `low` to `high`, or None."""
        runtime = self.runtime
        if runtime is None:
            return None
        with Guard(_say, _FORESEEN):
            return runtime.fail_fast_arguments(low, high)
        return None

    def _method_at(self, address: int) -> tuple[JitMethod | None, ManagedMethod | None]:
        runtime = self.runtime
        code = None if self._code is None else self._code.method_at(address)
        return code, None if runtime is None or code is None else runtime.method_at(code.method_desc)

    def _why_nameless(self, address: int) -> str:
        _, method = self._method_at(address)
        return f"{_NAMELESS}: {method.reason}" if method is not None and method.reason else _NAMELESS


@dataclass(frozen=True, slots=True)
class FramesOfProcess:
    """The x86 frames of one process that are described: those of managed methods, then what `other` has, the PDBs."""

    managed: ManagedCode
    other: FrameDataSource | None

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the record that covers `rva` of `image`, or None."""
        found = self.managed.frame_data(image, rva)
        return found if found is not None or self.other is None else self.other.frame_data(image, rva)


def module_of(method: ManagedMethod) -> str:
    """Return the label of the module that a managed method is shown in."""
    return label_of(method.module) if method.module else DYNAMIC if method.is_dynamic else ""


def text_of(method: ManagedMethod) -> str:
    """Return name and parameters of a managed method as the runtime prints them; "" if the name is not known."""
    return f"{method.name}{method.parameters}" if method.name else ""


def _say(reason: str) -> None:
    log.info("managed code: %s", reason)
