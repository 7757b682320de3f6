# SPDX-License-Identifier: Apache-2.0
"""Identifies the kind of a file by its first bytes, and a crash dump by its whole header.

The magic numbers are those of DUMP_HEADER and MINIDUMP_HEADER in the Windows SDK, of the ELF specification, those by
which Volatility recognizes LiME, AVML, VMware and QEMU files, and those of hibernation files.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.header import DumpHeader, DumpKind, read_header


class FileKind(Enum):
    """The kinds of file that users try to examine; the value is the kind's name in messages."""

    EMPTY = "empty file"
    CRASH_DUMP = "Windows crash dump"
    CUT_HEADER = "Windows crash dump, cut off within its header"
    USER_MINIDUMP = "minidump of one process"
    ELF_CORE = "ELF core (QEMU, VirtualBox, libvirt)"
    LIME = "LiME image"
    AVML = "AVML image"
    VMWARE = "VMware snapshot or suspend state (vmss, vmsn)"
    QEMU = "QEMU saved state"
    HIBERNATION = "hibernation file"
    COMPRESSED = "compressed file or archive"
    EXPERT_WITNESS = "Expert Witness (E01) image"
    EXECUTABLE = "program"
    TEXT = "text file"
    RAW = "raw image, or something unknown"

    @property
    def is_memory(self) -> bool:
        """Say whether Volatility may find physical memory in a file of this kind."""
        return self in _MEMORY


_MEMORY = frozenset({FileKind.CRASH_DUMP, FileKind.ELF_CORE, FileKind.LIME, FileKind.AVML, FileKind.QEMU, FileKind.RAW})
_MAGIC = (
    (b"PAGEDU64", FileKind.CUT_HEADER),
    (b"PAGEDUMP", FileKind.CUT_HEADER),
    (b"MDMP", FileKind.USER_MINIDUMP),
    (b"\x7fELF", FileKind.ELF_CORE),
    (b"EMiL", FileKind.LIME),
    (b"AVML", FileKind.AVML),
    (b"LMVA", FileKind.AVML),
    *((magic.to_bytes(4, "little"), FileKind.VMWARE) for magic in (0xBED2BED0, 0xBAD1BAD1, 0xBED2BED2, 0xBED3BED3)),
    (b"QEVM", FileKind.QEMU),
    *((magic, FileKind.HIBERNATION) for magic in (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR")),
    (b"PK\x03\x04", FileKind.COMPRESSED),
    (b"\x1f\x8b", FileKind.COMPRESSED),
    (b"7z\xbc\xaf\x27\x1c", FileKind.COMPRESSED),
    (b"\xfd7zXZ\0", FileKind.COMPRESSED),
    (b"\x28\xb5\x2f\xfd", FileKind.COMPRESSED),
    (b"BZh", FileKind.COMPRESSED),
    (b"Rar!", FileKind.COMPRESSED),
    (b"MSCF", FileKind.COMPRESSED),
    (b"EVF\x09\x0d\x0a\xff\x00", FileKind.EXPERT_WITNESS),
    (b"MZ", FileKind.EXECUTABLE),
)
_ELF_CORE = 4

KIND_TEXT = {
    DumpKind.FULL: "complete memory dump (type 1)",
    DumpKind.SUMMARY: "kernel memory dump (type 2)",
    DumpKind.HEADER: "header alone (type 3)",
    DumpKind.TRIAGE: "small memory dump, triage (type 4)",
    DumpKind.BITMAP_FULL: "complete memory dump with a bitmap (type 5)",
    DumpKind.BITMAP_KERNEL: "kernel, active or live memory dump with a bitmap (type 6)",
    DumpKind.AUTOMATIC: "automatic memory dump with a bitmap (type 7)",
    DumpKind.LIVE_KERNEL: "live dump of the kernel (type 8)",
    DumpKind.LIVE_USER: "live dump of kernel and users (type 9)",
    DumpKind.LIVE_FULL: "complete live dump (type 10)",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The kind of a file, and its `header` if it is a crash dump, else None."""

    kind: FileKind
    header: DumpHeader | None = None

    @property
    def text(self) -> str:
        """Return the kind in words."""
        if self.header is None:
            return self.kind.value
        known = KIND_TEXT[self.header.kind] if self.header.kind else f"unknown type {self.header.dump_type:#x}"
        return f"{self.kind.value}, {'64' if self.header.is_64bit else '32'}-bit: {known}"


def identify(data: ByteSource) -> Identity:
    """Identify the kind of file that `data` is."""
    if not data.size:
        return Identity(FileKind.EMPTY)
    header = read_header(data)
    if header is not None:
        return Identity(FileKind.CRASH_DUMP, header)
    head = data.read(0, PAGE_SIZE)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            if kind is FileKind.ELF_CORE and int.from_bytes(head[16:18], "little") != _ELF_CORE:
                return Identity(FileKind.EXECUTABLE)
            return Identity(kind)
    return Identity(FileKind.TEXT if _is_text(head) else FileKind.RAW)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return head.startswith((b"\xff\xfe", b"\xfe\xff"))
    printable = sum(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)
    return printable >= len(head) * 0.97
