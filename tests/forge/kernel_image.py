# SPDX-License-Identifier: Apache-2.0
"""The kernel's image: a PE header with the RSDS record that leads to the ISF, and the places of its variables.

An ISF of a real kernel says where the variables are. A layout has no symbols: the variables then are after the image,
the ISF gets their addresses, and a GUID made from its own contents, so that no cache can confuse two of them.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pefile

from tests.forge.describe import Machine, Paging
from tests.forge.kernel_memory import KernelMemory
from tests.forge.layouts import Layout, Version
from tests.forge.physical import PAGE
from tests.forge.pte_types import mask_types, pte_types, store_types

VARIABLES = {
    "KdDebuggerDataBlock": 0x400,
    "KdVersionBlock": 0x40,
    "PsActiveProcessHead": 0x10,
    "PsLoadedModuleList": 0x10,
    "PsInitialSystemProcess": 8,
    "PsIdleProcess": 8,
    "KeNumberProcessors": 8,
    "KeTickCount": 0x10,
    "KiProcessorBlock": 0x200,
    "MmProtectToValue": 0x80,
    "MmHighestUserAddress": 8,
    "MmSystemRangeStart": 8,
    "MmUserProbeAddress": 8,
    "MmPagedPoolStart": 8,
    "MmSubsectionBase": 8,
    "NtBuildNumber": 8,
    "NtBuildLab": 0x40,
    "CmNtCSDVersion": 8,
    "PsProcessType": 8,
    "PsThreadType": 8,
    "ObTypeIndexTable": 0x200,
    "ObHeaderCookie": 8,
    "MiState": 8,
}
"""Sizes of the variables that the writer fills in, by name."""
_STORE_VARIABLES = {"MiSystemPartition": 0x100, "?SmGlobals@@3U_SM_GLOBALS@@A": 0x200}
"""The same for a machine with a compressed store."""

_RECORD = 0xF00
"""Where the header page holds the debug directory and the RSDS record after it."""
_MACHINES = {True: 0x8664, False: 0x14C}
_DEFAULT_BASE = {True: 0xFFFFF800_01800000, False: 0x80800000}
_DATABASES = {
    (Paging.X64, False): "ntkrnlmp.pdb",
    (Paging.X64, True): "ntkrnlmp.pdb",
    (Paging.PAE, False): "ntkrnlpa.pdb",
    (Paging.PAE, True): "ntkrpamp.pdb",
    (Paging.X86, False): "ntoskrnl.pdb",
    (Paging.X86, True): "ntkrnlmp.pdb",
}
"""What the kernel's PDB is called, by paging and whether there is more than one processor."""
_BASE_FROM_8 = 0xFFFFF803_24200000


@dataclass(frozen=True)
class KernelImage:
    """The kernel in memory: where it is, and its symbols (RVA by name)."""

    base: int
    size: int
    name: str
    timestamp: int
    symbols: dict[str, int]

    def address(self, symbol: str) -> int | None:
        """Return a symbol's address, None for one that this kernel does not have."""
        rva = self.symbols.get(symbol)
        return None if rva is None else self.base + rva


def build_kernel(
    machine: Machine, layout: Layout, kernel: KernelMemory, version: Version, isf_dir: Path
) -> KernelImage:
    """Write the kernel's image into memory and its ISF into a directory."""
    is_64bit = layout.is_64bit
    base = machine.kernel_base
    if base is None:
        base = _BASE_FROM_8 if is_64bit and version >= (6, 2, 0) else _DEFAULT_BASE[is_64bit]
    image = machine.kernel_image or _minimal_image(is_64bit, base)
    symbols, end = _place(machine, layout, image)
    size = machine.kernel_size or -(-end // PAGE) * PAGE
    pdb = _write_isf(machine, layout, symbols, version, isf_dir)
    parsed = pefile.PE(data=image, fast_load=True)
    for offset in range(0, len(image), PAGE):
        kernel.write(base + offset, image[offset : offset + PAGE])
    _write_record(kernel, base, parsed, size, pdb)
    name = "ntkrnlpa.exe" if machine.paging is Paging.PAE else "ntoskrnl.exe"
    return KernelImage(base, size, name, parsed.FILE_HEADER.TimeDateStamp, symbols)


def _minimal_image(is_64bit: bool, base: int) -> bytes:
    """Return the headers of an image without code."""
    magic = 0x20B if is_64bit else 0x10B
    optional = struct.pack("<HBBIIIII", magic, 7, 10, PAGE, 0, 0, PAGE, PAGE)
    optional += struct.pack("<QII", base, PAGE, 0x200) if is_64bit else struct.pack("<IIII", 0, base, PAGE, 0x200)
    optional += struct.pack("<HHHHHHIIIIHH", 6, 1, 6, 1, 5, 1, 0, 2 * PAGE, PAGE, 0, 1, 0)
    optional += struct.pack("<QQQQII" if is_64bit else "<IIIIII", 0x40000, PAGE, 0x100000, PAGE, 0, 16)
    optional += bytes(16 * 8)
    file = struct.pack("<HHIIIHH", _MACHINES[is_64bit], 1, 0x45D6A000, 0, 0, len(optional), 0x22 if is_64bit else 0x102)
    section = struct.pack("<8sIIIIIIHHI", b".text", PAGE, PAGE, PAGE, PAGE, 0, 0, 0, 0, 0x60000020)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    return (dos.ljust(0x80, b"\0") + b"PE\0\0" + file + optional + section).ljust(2 * PAGE, b"\0")


def _place(machine: Machine, layout: Layout, image: bytes) -> tuple[dict[str, int], int]:
    """Return the symbols, and the end of the image with all variables."""
    if layout.has_own_symbols:
        return _merge(machine, layout, image), max(layout.symbols.values()) + PAGE
    symbols, end = dict(machine.kernel_symbols), -(-len(image) // PAGE) * PAGE
    variables = VARIABLES | (_STORE_VARIABLES if machine.has_compressed_store else {})
    for name, size in variables.items():
        if name == "ObHeaderCookie" and machine.version < (10, 0, 0):
            continue
        symbols[name] = end
        end += -(-size // 0x20) * 0x20
    if layout.has("_EPROCESS") and not layout.has("_ETHREAD", "ThreadsProcess"):
        symbols["KdCopyDataBlock"] = PAGE  # by this function's name Volatility tells Vista and later
    return symbols, end


def _merge(machine: Machine, layout: Layout, image: bytes) -> dict[str, int]:
    """Return a real kernel's symbols with the case's, without those that would name the case's functions wrongly."""
    if machine.kernel_image is None:
        return layout.symbols | machine.kernel_symbols
    used = {at // PAGE for at in range(0, len(image), PAGE) if any(image[at : at + PAGE])}
    symbols = {}
    for name, rva in layout.symbols.items():
        if name in VARIABLES:
            if any(image[rva : rva + VARIABLES[name]]):
                message = f"the kernel image has something where this kernel has {name}: {rva:#x}"
                raise ValueError(message)
        elif rva // PAGE in used:
            continue
        symbols[name] = rva
    return symbols | machine.kernel_symbols


def _write_isf(
    machine: Machine, layout: Layout, symbols: dict[str, int], version: Version, isf_dir: Path
) -> dict[str, Any]:
    """Write the ISF where Volatility looks for it; return the PDB's record."""
    pdb = layout.pdb
    if symbols == layout.symbols and layout.source is not None:
        target = _isf_path(isf_dir, pdb, "".join(layout.source.suffixes))
        shutil.copyfile(layout.source, target)
        return pdb
    isf = dict(layout.isf)
    isf["symbols"] = {name: layout.isf["symbols"].get(name, {}) | {"address": rva} for name, rva in symbols.items()}
    if not layout.has_own_symbols:
        isf["user_types"] = isf["user_types"] | pte_types(layout, 4 if machine.paging is Paging.X86 else 8)
        if machine.invalid_pte_mask and not layout.has("_MI_SYSTEM_INFORMATION"):
            isf["user_types"] |= mask_types()
        if machine.has_compressed_store and not layout.has("_MI_PARTITION"):
            isf["user_types"] |= store_types(is_64bit=layout.is_64bit)
        major, minor, build = version
        pdb = {
            "database": _DATABASES[machine.paging, machine.processors > 1],
            "age": 1,
            "machine_type": _MACHINES[layout.is_64bit],
            "GUID": hashlib.md5(json.dumps(isf, sort_keys=True).encode(), usedforsecurity=False).hexdigest().upper(),
        }
        windows = {"pdb": pdb, "pe": {"major": major, "minor": minor, "revision": 0, "build": build}}
        isf["metadata"] = {**isf["metadata"], "format": "6.2.0", "windows": windows}
    target = _isf_path(isf_dir, pdb, ".json.xz")
    target.write_bytes(lzma.compress(json.dumps(isf).encode(), preset=1))
    return pdb


def _isf_path(isf_dir: Path, pdb: dict[str, Any], suffix: str) -> Path:
    path = isf_dir / "windows" / pdb["database"] / f"{pdb['GUID']}-{pdb['age']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + suffix[suffix.index(".json") :])


def _write_record(kernel: KernelMemory, base: int, image: pefile.PE, size: int, pdb: dict[str, Any]) -> None:
    """Write the debug directory with its RSDS record into the header page, and the image's true size."""
    if any(kernel.read(base + _RECORD, 0x80)):
        message = f"the kernel image's headers have no room at {_RECORD:#x}"
        raise ValueError(message)
    guid = bytes.fromhex(pdb["GUID"])
    record = b"RSDS" + guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:] + struct.pack("<I", pdb["age"])
    record += pdb["database"].encode() + b"\0"
    at = _RECORD + 0x20
    directory = struct.pack("<IIHHIIII", 0, image.FILE_HEADER.TimeDateStamp, 0, 0, 2, len(record), at, at)
    kernel.write(base + _RECORD, directory)
    kernel.write(base + at, record)
    optional = image.OPTIONAL_HEADER
    entry = optional.get_file_offset() + (112 if kernel.layout.is_64bit else 96) + 6 * 8
    kernel.write(base + entry, struct.pack("<II", _RECORD, len(directory)))
    kernel.write(base + optional.get_file_offset() + 56, struct.pack("<I", size))
