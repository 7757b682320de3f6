# SPDX-License-Identifier: Apache-2.0
"""What the description of an exception is made from (a record and memory), and the description (facts, and words)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.images.image import ImageMap

NULL_REGION = 0x10000
"""Windows never maps the first 64 KiB: an address there is a null pointer plus an offset."""


@dataclass(frozen=True, slots=True)
class RaisedException:
    """A raised exception: its record, and the memory to which its parameters point.

    `owner` returns what an address outside all modules belongs to ("private memory, PAGE_READWRITE"), or "".
    """

    record: ExceptionRecord
    memory: Memory
    images: ImageMap
    arch: Arch
    owner: Callable[[int], str] | None = None

    def pointer(self, address: int) -> int:
        """Read a pointer; raises `MemoryUnreadable`."""
        return self.memory.pointer(address, self.arch.pointer_size)

    def parameter(self, index: int) -> int:
        """Return a parameter, 0 if the record has fewer."""
        parameters = self.record.parameters
        return parameters[index] if index < len(parameters) else 0

    def hex(self, address: int) -> str:
        """Return an address as it is printed: `0x00000010`, 16 digits on x64."""
        return f"0x{address:0{self.arch.pointer_size * 2}x}"

    def place(self, address: int) -> str:
        """Return what is at an address: `kernel32+0x1234`, `a null pointer`, the answer of `owner`, or ""."""
        image = self.images.find(address)
        if image is not None:
            return f"{escape(image.module.label)}+0x{address - image.base:x}"
        if address < NULL_REGION:
            return "a null pointer" if address == 0 else "a null pointer plus an offset"
        return escape(self.owner(address)) if self.owner is not None else ""


class ExceptionKind(Enum):
    """Who raised an exception, as far as its code tells."""

    HARDWARE_FAULT = "hardware fault"
    """The processor, or the memory manager: access violations, divisions by zero, stack overflows."""
    CPP = "c++"
    """Visual C++'s throw."""
    GCC = "gcc"
    """libgcc's unwinder: C++ and other languages of GCC, and Clang for MinGW."""
    RUST = "rust"
    """A panic, on MSVC targets as well as GNU ones."""
    CLR = "clr"
    DELPHI = "delphi"
    VISUAL_BASIC = "visual-basic"
    WINRT = "winrt"
    OTHER_RUNTIME = "other runtime"
    FAIL_FAST = "fail-fast"
    DELAY_LOAD = "delay-load"
    """A DLL or function that the linker's delay-load helper did not find."""
    DEBUGGER_SIGNAL = "debugger signal"
    """No failure: the program tells a debugger something."""
    STATUS = "status"
    """An NTSTATUS, HRESULT or Win32 error that a program or Windows raised with RaiseException."""
    APPLICATION = "application"
    """A code with the customer bit: the program made it up."""
    UNKNOWN = "unknown"


class FaultAccess(Enum):
    """What a faulting instruction did with the address."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """An exception, as facts for programs and in words for people. Every string is escaped and bounded.

    `title` is the line for a table, `details` are lines that explain more. `thrown_type` and `bases` are C++ (or
    Delphi, CLR) types, the bases as ThrowInfo lists them. `message` is what the program said (`what()`).
    `fault_address` is the address that a faulting instruction used, `fault_kind` what it did there. Strings that are
    not known are "", other facts None.
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
