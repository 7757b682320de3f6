# SPDX-License-Identifier: Apache-2.0
"""The managed code of one address space as the rest of throwstack asks for it: names, unwind data, exceptions.

Every process is asked for it, and few have any. So nothing is read before the first question, and the first question
asks whether the process has a runtime at all, which the names of its modules tell. What fails here costs a name or a
frame, never the walk: each question is answered inside a guard.

Names are those that WinDbg shows with SOS: `shop!Shop.Orders.Place(String name)+0x1e`. The module is the assembly's
file, the offset counts from the method's begin, funclets included. A method that was made at run time is in no file:
`<dynamic>!IL_STUB_PInvoke`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from throwstack.core.guard import Guard
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.regions import Regions
from throwstack.core.text import escape
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import label_of
from throwstack.managed.managed_exception import ManagedException, ManagedMethod
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_indexes import MethodIndexes
from throwstack.managed.runtime_memory import StructureError
from throwstack.managed.runtime_module import RuntimeModule, find_runtime_module, why_overlooked
from throwstack.managed.stub_x86 import NAME as UM_THUNK_STUB
from throwstack.managed.stub_x86 import um_thunk_stub
from throwstack.names.frame_records import FrameData, FrameDataSource
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import Name, SymbolKind
from throwstack.unwind.code_outside import OutsideFunction

if TYPE_CHECKING:  # All that reads managed code is imported for the first process that has a runtime.
    from throwstack.managed.fail_fast_arguments import FailFastArguments
    from throwstack.managed.jit_code import JitCode, JitMethod
    from throwstack.managed.jit_code_x86 import JitCodeX86
    from throwstack.managed.precompiled import PrecompiledCode
    from throwstack.managed.runtime import Runtime

log = logging.getLogger(__name__)

DYNAMIC = "<dynamic>"
"""What is shown as the module of a method that was made at run time."""
_FORESEEN = (MemoryUnreadable, MetadataError, StructureError)
_X86_POINTER = 4
_NAMELESS = "managed method, name not readable"
_NOT_GENUINE = "its MethodDesc, or what that leads to, is absent or damaged"
_UNKNOWN = "no managed method is known here"
_BY_RUNTIME = "unwound by what the runtime of .NET keeps of the code"

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
        *("_code", "_images", "_indexes", "_is_found", "_memory", "_precompiled", "_regions", "_runtime"),
        *("_threads", "_why_overlooked"),
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
        self._precompiled: PrecompiledCode | None = None
        self._images = images
        self._regions = regions
        self._threads = threads
        self._is_found = False
        self._runtime: Runtime | None = None
        self._code: JitCode | JitCodeX86 | None = None
        self._why_overlooked: str | None = None

    @property
    def runtime(self) -> Runtime | None:
        """Return the runtime of the address space; None if it has none, or it cannot be used."""
        if not self._is_found:
            self._is_found = True
            with Guard(self._cannot_be_used, _FORESEEN):
                module = find_runtime_module(self._images)
                if module is not None:
                    self._open(module)
        return self._runtime

    def _open(self, module: RuntimeModule) -> None:
        from throwstack.managed.jit_code import JitCode  # noqa: PLC0415 for processes with a runtime
        from throwstack.managed.jit_code_x86 import JitCodeX86  # noqa: PLC0415
        from throwstack.managed.precompiled import PrecompiledCode  # noqa: PLC0415
        from throwstack.managed.runtime import Runtime  # noqa: PLC0415

        self._runtime = Runtime(self._memory, self._images, module, self._threads())
        made = JitCode if self._runtime.pointer_size == 8 else JitCodeX86
        self._code = made(self._memory, _Methods(self._runtime), self._regions)
        word = self._runtime.function_pointer
        self._precompiled = PrecompiledCode(self._memory, self._indexes, function_pointer=word)

    @property
    def why_overlooked(self) -> str:
        """Return why a runtime may have been missed; "" if there is one, or nothing hides one."""
        if self.runtime is not None:
            return ""
        if self._why_overlooked is None:
            self._why_overlooked = ""
            with Guard(_say, _FORESEEN):
                self._why_overlooked = why_overlooked(self._images)
        return self._why_overlooked

    def is_code_outside(self, address: int) -> bool:
        """Say whether `address` is in executable memory outside all images, where a JIT compiler puts its code."""
        region = None if self._regions is None or self._images.find(address) else self._regions.find(address)
        return region is not None and region.is_executable

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the managed method at `address`, outside the images, with how it is unwound; None if none is there."""
        if self.runtime is None or self._code is None:
            return None
        with Guard(_say, _FORESEEN):
            found = self._code.function_at(address)
            return found if found is None or found.name else replace(found, source=_BY_RUNTIME)
        return None

    def name_outside(self, address: int) -> Name | None:
        """Return the name of the managed method at `address`, outside the images; None if none is there.

        A method whose name cannot be read has a name without a symbol, but with a reason; so has code whose method
        cannot be told because a part of the runtime's memory is absent.
        """
        problems: list[str] = []
        with Guard(partial(_note, problems), _FORESEEN):
            code, method = self._method_at(address)
            if code is None:
                return self._stub_at(address) or self._unknown(address)
            if method is None or not method.name:
                why = self._runtime.methods.problem if self._runtime is not None else ""
                why = why if method is None else method.reason or why
                return Name(address, reason=f"{_NAMELESS}: {why or _NOT_GENUINE}")
            name = Name(address, module_of(method), text_of(method), address - code.start, SymbolKind.CLR)
            return replace(name, reason=method.reason) if method.reason else name
        return Name(address, reason=f"{_NAMELESS}: {problems[0]}")

    def _stub_at(self, address: int) -> Name | None:
        if self._runtime is None or self._runtime.pointer_size != _X86_POINTER:
            return None
        start = um_thunk_stub(self._memory, address)
        return Name(address, DYNAMIC, UM_THUNK_STUB, address - start, SymbolKind.CLR) if start else None

    def _unknown(self, address: int) -> Name | None:
        why = "" if self._code is None else self._code.why_unknown(address)
        return Name(address, reason=f"{_UNKNOWN}: {why}") if why else None

    def names_before(self, other: Callable[[int], Name | None]) -> Callable[[int], Name | None]:
        """Return what names addresses outside the images: methods first, then what `other` knows.

        If neither has a name, the result says why there is none, where that is known.
        """

        def name(address: int) -> Name | None:
            managed = self.name_outside(address)
            return managed if managed is not None and managed.symbol else other(address) or managed

        return name

    def locate(self, image: Image, rva: int) -> LocatedFunction | None:
        """Return the precompiled method at `rva` of `image`; None if there is none that is known.

        One whose name cannot be read, because a part of the image is absent, has no symbol, but a reason.
        """
        runtime = self.runtime
        if runtime is None or self._precompiled is None:
            return None
        problems: list[str] = []
        with Guard(partial(_note, problems), _FORESEEN):
            found = self._precompiled.method_at(image.base, rva)
            if found is None:
                why = self._precompiled.reason(image.base)
                return LocatedFunction("", None, reason=f"{_UNKNOWN}: {why}") if why else None
            method, metadata = found
            if method.rid:
                text = metadata.full_method_name(method.rid) + metadata.parameters(method.rid)
            else:
                known = runtime.method_at(method.method_desc) if method.method_desc else None
                text = "" if known is None else text_of(known)
                reason = "" if known is None else known.reason
                if not text:
                    return LocatedFunction("", None, reason=f"{_NAMELESS}: {reason or _NOT_GENUINE}")
                return LocatedFunction(text, method.start, is_inside=True, reason=reason)
            return LocatedFunction(text, method.start, is_inside=True)
        return LocatedFunction("", None, reason=f"{_NAMELESS}: {problems[0]}")

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the frame of the precompiled x86 method at `rva` of `image`, by its GC info; None if there is none."""
        if self.runtime is None or self._precompiled is None:
            return None
        with Guard(_say, _FORESEEN):
            return self._precompiled.frame_data(image, rva)
        return None

    def image_at(self, address: int) -> Image | None:
        """Return the image that has `address`, None if it is in none."""
        return self._images.find(address)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Return the names of the images' files, escaped."""
        return tuple(escape(image.module.name) for image in self._images)

    def method_desc_at(self, address: int) -> int:
        """Return the address of the MethodDesc of the JIT-compiled method at `address`, 0 if none is there."""
        with Guard(_say, _FORESEEN):
            code, _ = self._method_at(address)
            return 0 if code is None else code.method_desc
        return 0

    def is_in_runtime(self, address: int) -> bool:
        """Say whether `address` is in the image of the runtime."""
        runtime = self.runtime
        return runtime is not None and runtime.image.module.contains(address)

    def last_thrown(self, tid: int) -> tuple[ManagedException | None, str]:
        """Return the object that thread `tid` threw last, or None and the reason."""
        problems: list[str] = []
        runtime = self.runtime
        if runtime is None:
            return None, self.why_overlooked or "the process has no runtime"
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

    def what_is_missing(self, tid: int, addresses: Sequence[int]) -> tuple[str, ...]:
        """Return what may be missing of thread `tid`, which has frames at `addresses`, and why, as sentences.

        These are exceptions in flight, and names of methods: where work on them was ended by its limit, or parts of a
        precompiled image are absent.
        """
        runtime = self.runtime
        found: dict[str, None] = {}
        if runtime is None or self._precompiled is None:
            return ()
        fewer = runtime.why_fewer(tid)
        if fewer:
            found[f"earlier exceptions that are still in flight may be missing: {fewer}"] = None
        if runtime.methods.problem:
            found[f"names of JIT-compiled methods may be missing: {runtime.methods.problem}"] = None
        for address in addresses:
            image = self._images.find(address)
            reason = "" if image is None else self._precompiled.reason_of_managed(image.base)
            if image is not None and reason:
                found[f"names of methods in {image.module.label} may be missing: {reason}"] = None
        return tuple(found)

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

    def _cannot_be_used(self, reason: str) -> None:
        _say(reason)
        self._why_overlooked = f"the runtime of the process cannot be used: {reason}"

    def _method_at(self, address: int) -> tuple[JitMethod | None, ManagedMethod | None]:
        runtime = self.runtime
        code = None if self._code is None else self._code.method_at(address)
        return code, None if runtime is None or code is None else runtime.method_at(code.method_desc)


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


def _note(problems: list[str], reason: str) -> None:
    problems.append(reason)
    _say(reason)


def _say(reason: str) -> None:
    log.info("managed code: %s", reason)
