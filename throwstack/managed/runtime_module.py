# SPDX-License-Identifier: Apache-2.0
r"""Which image of a process is a .NET runtime, and which version it is.

- coreclr.dll is that of .NET Core and .NET 5 and later, clr.dll that of .NET Framework 4, mscorwks.dll that of 2.0 to
  3.5.
- In a single-file application the runtime is linked into the EXE. Such an EXE exports `DotNetRuntimeInfo`, from .NET 9
  on
  `DotNetRuntimeContractDescriptor`. (An EXE of NativeAOT exports neither: it has no such runtime.)

The version is that of the image's version resource (VS_FIXEDFILEINFO, verrsrc.h). A shared framework's directory names
its version too, in the form in which it is known: `Microsoft.NETCore.App\8.0.4`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

from throwstack.core.text import escape
from throwstack.images.image import Image, ImageMap
from throwstack.managed.contract import EXPORT, Contract, contract_of

_SINGLE_FILE = frozenset({EXPORT, "DotNetRuntimeInfo"})
_FIXED_INFO = struct.pack("<II", 0xFEEF04BD, 0x00010000)
_MAX_RESOURCES = 1 << 20
_FRAMEWORK_PATH = re.compile(r"Microsoft\.NETCore\.App[\\/](\d+(?:\.\d+){1,3}[-.\w]*)[\\/][^\\/]*$", re.IGNORECASE)


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
        is_own_file = self.image.module.name.lower() in _BY_NAME
        number = file_version(self.image) if is_own_file else ""
        if number:
            return f"{self.family.value} ({number})"
        return f"{self.family.value} 9 or later" if self.contract is not None else self.family.value


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


def _is_single_file(image: Image) -> bool:
    is_program = image.module.name.lower().endswith(".exe")
    return is_program and any(export.name in _SINGLE_FILE for export in image.exports)


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
