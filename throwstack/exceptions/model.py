# SPDX-License-Identifier: Apache-2.0
"""What goes into describing an exception, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.images.image import ImageMap

NULL_REGION = 0x10000
"""Windows never maps the first 64 KiB: an address there is a null pointer plus an offset."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An exception record and the memory in which its parameters point.

    `owner` may say what an address belongs to that is in no module ("private memory, PAGE_READWRITE"), or "".
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
        """Return what lies at an address: `kernel32+0x1234`, what `owner` says, or ""."""
        image = self.images.find(address)
        if image is not None:
            return f"{escape(image.module.label)}+0x{address - image.base:x}"
        if address < NULL_REGION:
            return "a null pointer" if address == 0 else "a null pointer plus an offset"
        return escape(self.owner(address)) if self.owner is not None else ""


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """An exception in words. Every string is escaped and bounded.

    `title` is the line for a table. `thrown_type` and `base_types` are C++ (or Delphi, CLR) types, the bases as
    ThrowInfo lists them. `message` is what the program said (`what()`); `details` are lines that explain more.
    `is_crash` is False for exceptions that are signals to a debugger.
    """

    title: str
    thrown_type: str = ""
    base_types: tuple[str, ...] = ()
    message: str = ""
    hresult: int | None = None
    details: tuple[str, ...] = ()
    is_crash: bool = True
