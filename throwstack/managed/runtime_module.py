# SPDX-License-Identifier: Apache-2.0
r"""Which image of a process is a .NET runtime, and which version it is.

- coreclr.dll is that of .NET Core and .NET 5 and later, clr.dll that of .NET Framework 4, mscorwks.dll that of 2.0 to
  3.5.
- In a single-file application the runtime is linked into the EXE. Such an EXE exports `DotNetRuntimeInfo`, from .NET 9
  on `DotNetRuntimeContractDescriptor`. (An EXE of NativeAOT exports neither: it has no such runtime.) Where a dump
  lacks a page of the exports, the section `.CLR_UEF` tells it, which the runtime has for its unhandled exception filter
  (dotnet/runtime, excep.cpp). Where it lacks the page of the EXE's headers, the runtime is not found, and
  `why_overlooked` says so.

The version is that of the image's version resource (VS_FIXEDFILEINFO, verrsrc.h); an EXE's own is that of the
program, but from .NET 8 on `DotNetRuntimeInfo` has that of the runtime (dotnet/runtime, runtimeinfo.h). A shared
framework's directory names its version too, in the form in which it is known: `Microsoft.NETCore.App\8.0.4`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.text import escape
from throwstack.images.image import Image, ImageMap
from throwstack.managed.contract import EXPORT, Contract, contract_of

_SECTION = ".CLR_UEF"
_INFO, _INFO_NAME = "DotNetRuntimeInfo", b"DotNetRuntimeInfo\0"
_INFO_FORM, _INFO_VERSION = struct.Struct("<18s2xI72x4I"), 2
"""RuntimeInfo: signature, version of the structure, three indexes of 24 bytes; from version 2 on, the runtime's."""
_WITH_FUNCTION_POINTERS = 8
_SINGLE_FILE = frozenset({EXPORT, _INFO})
_FIXED_INFO = struct.pack("<II", 0xFEEF04BD, 0x00010000)
_MAX_RESOURCES = 1 << 20
_MAX_EXPORT_DIRECTORY = 8 << 20
_FRAMEWORK_PATH = re.compile(
    r"Microsoft\.NETCore\.App[\\/](\d{1,5}(?:\.\d{1,5}){1,3}[-.\w]{0,32})[\\/][^\\/]*$", re.IGNORECASE
)


class RuntimeFamily(Enum):
    """Which runtime it is. Of .NET Framework no real process was at hand when this was written."""

    CORE = ".NET"
    FRAMEWORK_4 = ".NET Framework 4"
    FRAMEWORK_2 = ".NET Framework 2.0 to 3.5"

    @property
    def is_framework(self) -> bool:
        """Say whether it is .NET Framework."""
        return self is not RuntimeFamily.CORE


_BY_NAME = {
    "coreclr.dll": RuntimeFamily.CORE,
    "clr.dll": RuntimeFamily.FRAMEWORK_4,
    "mscorwks.dll": RuntimeFamily.FRAMEWORK_2,
    "mscorsvr.dll": RuntimeFamily.FRAMEWORK_2,
}


@dataclass(frozen=True, slots=True)
class RuntimeModule:
    """The image of a runtime, its family, and its contract (None if it has none)."""

    image: Image
    family: RuntimeFamily
    contract: Contract | None

    @property
    def version(self) -> str:
        """Return the version in words: `.NET 8.0.4`, `.NET Framework 4 (4.8.4515.0)`; the family alone if unknown."""
        known = _FRAMEWORK_PATH.search(self.image.module.path)
        if known:
            return escape(f"{self.family.value} {known[1]}")
        if self.number:
            return f"{self.family.value} ({self.number})"
        return f"{self.family.value} 9 or later" if self.contract is not None else self.family.value

    @property
    def number(self) -> str:
        """Return the version of the runtime's file, `8.0.424.16909`; "" if it cannot be read."""
        is_own_file = self.image.module.name.lower() in _BY_NAME
        return file_version(self.image) if is_own_file else _version_of_info(self.image)

    @property
    def has_function_pointer_types(self) -> bool:
        """Say whether function pointers are types of their own: from .NET 8 on. Before, they are `IntPtr`."""
        if self.family.is_framework or self.contract is not None:
            return self.contract is not None
        known = _FRAMEWORK_PATH.search(self.image.module.path)
        return int((known[1] if known else self.number or "0").split(".")[0]) >= _WITH_FUNCTION_POINTERS


def find_runtime_module(images: ImageMap) -> RuntimeModule | None:
    """Return the process's runtime; None if no image is one.

    Of two runtimes in one process .NET comes before .NET Framework 4, and that before 2.0. Only names are looked at,
    and the exports of EXEs.
    """
    named = {image.module.name.lower(): image for image in images}
    for name, family in _BY_NAME.items():
        if name in named:
            image = named[name]
            return RuntimeModule(image, family, None if family.is_framework else contract_of(image))
    for image in named.values():
        if _is_single_file(image):
            return RuntimeModule(image, RuntimeFamily.CORE, contract_of(image))
    return None


def is_runtime(image: Image) -> bool:
    """Say whether an image is a runtime, by its name or, of an EXE, by its exports."""
    return image.module.name.lower() in _BY_NAME or _is_single_file(image)


def why_overlooked(images: ImageMap) -> str:
    """Return why a runtime that an EXE may have in it cannot be found, as a sentence; "" if nothing hides one."""
    for image in images:
        lost = _lost_of_exports(image) if _is_program(image) else ""
        if lost:
            name = escape(image.module.name)
            return f"a runtime that is linked into {name} cannot be found, because {lost}"
    return ""


def _lost_of_exports(image: Image) -> str:
    """Return which part of an image that leads to the exports of a runtime cannot be read, "" if none."""
    headers = image.headers
    if headers is None:
        is_absent = image.memory.page(image.base) is None
        return f"page {image.base:#x}, with its headers, is absent" if is_absent else "its headers are damaged"
    if not any(image.exports.may_lack(name) for name in _SINGLE_FILE):
        return ""
    rva, size = headers.export_directory
    first, end = image.base + (rva & -PAGE_SIZE), image.base + rva + min(size, _MAX_EXPORT_DIRECTORY)
    absent = next((page for page in range(first, end, PAGE_SIZE) if image.memory.page(page) is None), None)
    return "its list of exports is damaged" if absent is None else f"page {absent:#x}, with its exports, is absent"


def _is_program(image: Image) -> bool:
    return image.module.name.lower().endswith(".exe")


def _is_single_file(image: Image) -> bool:
    if not _is_program(image):
        return False
    exports, headers = image.exports, image.headers
    if any(export.name in _SINGLE_FILE for export in exports):
        return True
    may_be = headers is not None and any(exports.may_lack(name) for name in _SINGLE_FILE)
    return may_be and headers is not None and any(section.name == _SECTION for section in headers.sections)


def _version_of_info(image: Image) -> str:
    """Return the version that `DotNetRuntimeInfo` has, "" if the image does not export it or it cannot be read."""
    at = next((image.base + export.rva for export in image.exports if export.name == _INFO), None)
    try:
        read = None if at is None else _INFO_FORM.unpack(image.memory.read(at, _INFO_FORM.size))
    except MemoryUnreadable:
        return ""
    is_known = read is not None and read[0] == _INFO_NAME and read[1] >= _INFO_VERSION
    return ".".join(map(str, read[2:])) if read is not None and is_known else ""


def file_version(image: Image) -> str:
    """Return the file version in the image's resources: `4.8.4515.0`; "" if there is none that can be read."""
    headers = image.headers
    section = next((part for part in headers.sections if part.name == ".rsrc"), None) if headers else None
    if section is None:
        return ""
    data = image.memory.read_available(image.base + section.rva, min(section.size, _MAX_RESOURCES))
    at = data.find(_FIXED_INFO)
    if at < 0 or at + 16 > len(data):
        return ""
    high, low = struct.unpack_from("<II", data, at + 8)
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
