# SPDX-License-Identifier: Apache-2.0
"""Identifies the kind of a file by its first bytes, and a crash dump by its whole header.

Where each magic number is from:

- crash dumps, minidumps: DUMP_HEADER and MINIDUMP_HEADER in the Windows SDK; ELF: the ELF specification
- LiME, AVML, VMware and QEMU states: Volatility's layers of these names; hibernation files: PO_MEMORY_IMAGE.Signature
- libvirt: QEMU_SAVE_MAGIC and QEMU_SAVE_PARTIAL in src/qemu/qemu_saveimage.h of libvirt
- VirtualBox: SSMFILEHDR_MAGIC_BASE in src/VBox/VMM/VMMR3/SSM.cpp of VirtualBox
- kdump: KDUMP_SIGNATURE and DISK_DUMP_SIGNATURE in diskdump.h of crash, MAKEDUMPFILE_SIGNATURE in QEMU's dump.h
- Hyper-V (VMRS, VMCX): SIGNATURE_STORAGE_HEADER in descriptor/c_hyperv.py of dissect.hypervisor
- HPAK: volatility/plugins/addrspaces/hpak.py of Volatility 2
- VHDX: [MS-VHDX] 2.2.1; VHD: the cookie of the footer in Microsoft's VHD specification, of which a dynamic disk has a
  copy at its start; VMDK: magic numbers in block/vmdk.c of QEMU, and the descriptor in VMware's specification 1.1;
  QCOW2: docs/interop/qcow2.txt of QEMU; VMA (Proxmox): VMA_MAGIC in backup/c_vma.py of dissect.hypervisor
- AFF4: AFF4_CONTAINER_DESCRIPTION in aff4/lexicon.h of c-aff4, which writes it as the first file of its ZIP
- PDB: the MSF superblock in llvm/docs/PDB/MsfFile.rst of LLVM
- tar: the field magic of a ustar header (POSIX.1, pax)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.header import DumpHeader, DumpKind, read_header
from throwstack.crashdump.inside_file import has_exception_stream, is_aff4


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
    LIBVIRT_SAVE = "saved state of libvirt"
    VIRTUALBOX_SAVE = "saved state of VirtualBox"
    HYPER_V_STATE = "saved state of Hyper-V"
    KDUMP = "compressed dump in the kdump format"
    HPAK = "HPAK file of FastDump"
    AFF4 = "AFF4 container"
    VIRTUAL_DISK = "virtual disk"
    HIBERNATION = "hibernation file"
    ZEROED_HIBERNATION = "hibernation file with a zeroed header"
    COMPRESSED = "compressed file"
    ARCHIVE = "archive"
    EXPERT_WITNESS = "Expert Witness (E01) image"
    EXECUTABLE = "program"
    PDB = "PDB"
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
    (b"LibvirtQemudSave", FileKind.LIBVIRT_SAVE),
    (b"LibvirtQemudPart", FileKind.LIBVIRT_SAVE),
    (b"\x7fVirtualBox SavedState ", FileKind.VIRTUALBOX_SAVE),
    (b"KDUMP   ", FileKind.KDUMP),
    (b"DISKDUMP", FileKind.KDUMP),
    (b"makedumpfile\0", FileKind.KDUMP),
    ((0x01282014).to_bytes(4, "little"), FileKind.HYPER_V_STATE),
    (b"HPAK", FileKind.HPAK),
    (b"vhdxfile", FileKind.VIRTUAL_DISK),
    (b"conectix", FileKind.VIRTUAL_DISK),
    (b"KDMV", FileKind.VIRTUAL_DISK),
    (b"COWD", FileKind.VIRTUAL_DISK),
    (b"# Disk DescriptorFile", FileKind.VIRTUAL_DISK),
    (b"QFI\xfb", FileKind.VIRTUAL_DISK),
    (b"VMA\0", FileKind.VIRTUAL_DISK),
    *((magic, FileKind.HIBERNATION) for magic in (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR")),
    (b"PK\x03\x04", FileKind.ARCHIVE),
    (b"\x1f\x8b", FileKind.COMPRESSED),
    (b"7z\xbc\xaf\x27\x1c", FileKind.ARCHIVE),
    (b"\xfd7zXZ\0", FileKind.COMPRESSED),
    (b"\x28\xb5\x2f\xfd", FileKind.ARCHIVE),
    (b"BZh", FileKind.COMPRESSED),
    (b"Rar!", FileKind.ARCHIVE),
    (b"MSCF", FileKind.ARCHIVE),
    (b"EVF\x09\x0d\x0a\xff\x00", FileKind.EXPERT_WITNESS),
    (b"MZ", FileKind.EXECUTABLE),
    (b"Microsoft C/C++ MSF 7.00", FileKind.PDB),
)
_DETAILS = {
    b"vhdxfile": " (VHDX)",
    b"conectix": " (VHD)",
    b"KDMV": " (VMDK)",
    b"COWD": " (VMDK)",
    b"# Disk DescriptorFile": " (VMDK)",
    b"QFI\xfb": " (QCOW2)",
    b"VMA\0": "s in a backup of Proxmox (VMA)",
    b"\x1f\x8b": " (gzip)",
    b"\xfd7zXZ\0": " (xz)",
    b"BZh": " (bzip2)",
    b"PK\x03\x04": " (ZIP)",
}
"""What is added to the kind's name for some magic numbers."""
_ELF_CORE = 4
_USTAR_AT = 257
_HIBERNATION_FILE = "hiberfil.sys"

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
    """The kind of a file, its `header` if it is a crash dump (else None), and what is added to the kind's name."""

    kind: FileKind
    header: DumpHeader | None = None
    detail: str = ""

    @property
    def text(self) -> str:
        """Return the kind in words."""
        if self.header is None:
            return self.kind.value + self.detail
        known = KIND_TEXT[self.header.kind] if self.header.kind else f"unknown type {self.header.dump_type:#x}"
        bits = "ARM64" if self.header.is_arm64 else "64-bit" if self.header.is_64bit else "32-bit"
        return f"{self.kind.value}, {bits}: {known}"


def identify(data: ByteSource, name: str = "") -> Identity:
    """Identify the kind of file that `data` is. `name` is the file's name, if it has one."""
    if not data.size:
        return Identity(FileKind.EMPTY)
    header = read_header(data)
    if header is not None:
        return Identity(FileKind.CRASH_DUMP, header)
    head = data.read(0, PAGE_SIZE)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return _looked_into(data, head, Identity(kind, detail=_DETAILS.get(magic, "")))
    if head[_USTAR_AT : _USTAR_AT + 5] == b"ustar":
        return Identity(FileKind.ARCHIVE, detail=" (tar)")
    if name.lower() == _HIBERNATION_FILE and not any(head):
        # Windows zeroes the header when it resumes, so that no later start resumes from the same file.
        return Identity(FileKind.ZEROED_HIBERNATION)
    return Identity(FileKind.TEXT if _is_text(head) else FileKind.RAW)


def _looked_into(data: ByteSource, head: bytes, found: Identity) -> Identity:
    """Return what a file is whose magic number is that of several kinds."""
    if found.kind is FileKind.ELF_CORE and int.from_bytes(head[16:18], "little") != _ELF_CORE:
        return Identity(FileKind.EXECUTABLE)
    if found.kind is FileKind.ARCHIVE and is_aff4(head):
        return Identity(FileKind.AFF4)
    if found.kind is FileKind.USER_MINIDUMP:
        return Identity(found.kind, detail=", with its exception" if has_exception_stream(data) else ", no exception")
    return found


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return head.startswith((b"\xff\xfe", b"\xfe\xff"))
    printable = sum(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)
    return printable >= len(head) * 0.97
