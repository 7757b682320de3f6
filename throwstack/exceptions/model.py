# SPDX-License-Identifier: Apache-2.0
"""The input of the description of an exception (a record and memory), and its output (facts, and words)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.images.image import ImageMap

if TYPE_CHECKING:
    from throwstack.managed.fail_fast_arguments import FailFastArguments
    from throwstack.managed.managed_exception import ManagedException

NULL_REGION = 0x10000
"""Addresses below this one are taken for a null pointer plus an offset.

Windows never maps the first 64 KiB.
"""


@dataclass(frozen=True, slots=True)
class ManagedThrow:
    """What .NET's runtime says of a raised exception.

    `exception` is its object; if that is None, `reason` says why. `tie` says in words what ties the object to this very
    exception, if that is less than its stack. `runtime` is the runtime's version. `is_experimental`: of that runtime no
    real process was seen. `is_cause` is False for a fault of native code, which managed code sees as `exception`.
    `given` is what managed code gave to Environment.FailFast.
    """

    exception: ManagedException | None
    reason: str = ""
    tie: str = ""
    runtime: str = ""
    is_experimental: bool = False
    is_cause: bool = True
    given: FailFastArguments | None = None


@dataclass(frozen=True, slots=True)
class RaisedException:
    """A raised exception: its record, and the memory to which the record's parameters point.

    `images` are the process's modules, and `arch` is the architecture of the code that raised the exception. `owner`
    returns what an address outside all modules belongs to ("private memory, PAGE_READWRITE"), or "". `managed` is what
    .NET's runtime says of it, None in a process without one.
    """

    record: ExceptionRecord
    memory: Memory
    images: ImageMap
    arch: Arch
    owner: Callable[[int], str] | None = None
    managed: ManagedThrow | None = None

    def pointer(self, address: int) -> int:
        """Return the pointer that is stored at `address`; raises `MemoryUnreadable`."""
        return self.memory.pointer(address, self.arch.pointer_size)

    def parameter(self, index: int) -> int:
        """Return the parameter of the record with this index, or 0 if the record has fewer parameters."""
        parameters = self.record.parameters
        return parameters[index] if index < len(parameters) else 0

    def hex(self, address: int) -> str:
        """Return an address as it is printed: with 8 hex digits on x86 (`0x00000010`), with 16 on x64."""
        return f"0x{address:0{self.arch.pointer_size * 2}x}"

    def place(self, address: int) -> str:
        """Return in words what is at an address: `kernel32+0x1234`, `a null pointer`, or what `owner` returns.

        The result is "" if nothing is known about the address.
        """
        image = self.images.find(address)
        if image is not None:
            return f"{escape(image.module.label)}+0x{address - image.base:x}"
        if address < NULL_REGION:
            return "a null pointer" if address == 0 else "a null pointer plus an offset"
        return escape(self.owner(address)) if self.owner is not None else ""


class ExceptionKind(Enum):
    """Who raised an exception, as far as its code and parameters show."""

    HARDWARE_FAULT = "hardware fault"
    """The processor or the memory manager raised it: access violations, divisions by zero, stack overflows."""
    CPP = "c++"
    """A `throw` of Visual C++."""
    GCC = "gcc"
    """libgcc's unwinder raised it, for C++ and other languages of GCC, or of Clang for MinGW."""
    RUST = "rust"
    """A panic of a Rust program, built for an MSVC target or a GNU one."""
    CLR = "clr"
    DELPHI = "delphi"
    VISUAL_BASIC = "visual-basic"
    WINRT = "winrt"
    OTHER_RUNTIME = "other runtime"
    FAIL_FAST = "fail-fast"
    DELAY_LOAD = "delay-load"
    """The linker's delay-load helper raised it, because it did not find a DLL or a function."""
    DEBUGGER_SIGNAL = "debugger signal"
    """This is no failure: the program only informs a debugger of something."""
    STATUS = "status"
    """An NTSTATUS, HRESULT or Win32 error that a program or Windows raised with RaiseException."""
    APPLICATION = "application"
    """The code has the customer bit (bit 29), so the program made it up."""
    UNKNOWN = "unknown"


class FaultAccess(Enum):
    """How a faulting instruction accessed the address."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """The description of an exception, as facts for programs and in words for people.

    `title` is the line for a table; `details` are lines that explain more. `thrown_type` and `bases` are C++ (or
    Delphi, CLR) types, the bases in the order in which ThrowInfo lists them. `message` is what the program said
    (`what()`). `hresult` is the HRESULT that the exception carries. `fault_address` is the address that a faulting
    instruction accessed, and `fault_kind` is how it did. `managed` is the object of an exception of .NET. Strings that
    are not known are "", other facts None. Every string is escaped and of limited length.
    """

    kind: ExceptionKind
    title: str
    thrown_type: str = ""
    bases: tuple[str, ...] = ()
    message: str = ""
    hresult: int | None = None
    fault_address: int | None = None
    fault_kind: FaultAccess | None = None
    details: tuple[str, ...] = ()
    managed: ManagedException | None = None
