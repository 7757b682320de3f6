# SPDX-License-Identifier: Apache-2.0
"""What to do with a file in which no memory can be looked for as it is, or beside which another file is missing."""

from __future__ import annotations

from pathlib import Path

from throwstack.crashdump.file_kind import FileKind

FULL_DUMP = (
    "have the machine write a complete or active memory dump next time (CrashControl\\CrashDumpEnabled = 1), or take "
    "an image while the process hangs"
)
_NEW_IMAGE_OF_QEMU = (
    "take the memory of the guest as a file of its own: virsh dump --memory-only --format win-dmp DOMAIN MEMORY.DMP, "
    "or dump-guest-memory -w in QEMU's monitor (both need the guest's fw_cfg driver); without it --format elf, or "
    "dump-guest-memory without -z, -l and -s"
)
_HYPER_V = (
    "convert it to a crash dump: Microsoft's vm2dmp (up to Windows Server 2012), or its saved-state API "
    "(vmsavedstatedumpprovider.dll in the Windows SDK) for VMRS; a VSV needs the .bin beside it, which has the memory"
)
ADVICE = {
    FileKind.EMPTY: "the file has no contents: copy it again",
    FileKind.CUT_HEADER: "not even the header is whole: copy the dump again",
    FileKind.USER_MINIDUMP: (
        "it holds one process: open it with WinDbg, Visual Studio, LLDB or minidump-stackwalk; throwstack works on "
        "images of a whole machine. If it has its exception, .ecxr shows it; if not, look in ~*kb for the thread that "
        "waits in UnhandledExceptionFilter, whose first argument leads to the CONTEXT for .cxr"
    ),
    FileKind.VMWARE: (
        "give the .vmem file of the same name instead, and keep this one beside it: Volatility reads both. Without a "
        ".vmem file, convert it to a raw image or a crash dump first (vmss2core)"
    ),
    FileKind.LIBVIRT_SAVE: f"this is the state of a stopped guest, and may be compressed: {_NEW_IMAGE_OF_QEMU}",
    FileKind.KDUMP: f"Volatility does not read this format: {_NEW_IMAGE_OF_QEMU}",
    FileKind.VIRTUALBOX_SAVE: (
        "resume the machine, and write its memory as an ELF core: VBoxManage debugvm NAME dumpvmcore --filename FILE"
    ),
    FileKind.HYPER_V_STATE: _HYPER_V,
    FileKind.HPAK: "extract its section HPAK_SECTION_PHYSDUMP: Volatility 2 does it with hpakextract",
    FileKind.AFF4: (
        "extract its stream of physical memory (PhysicalMemory): winpmem or aff4imager does it with --export; "
        "unpacking the ZIP gives no image"
    ),
    FileKind.VIRTUAL_DISK: (
        "a disk holds no memory, but perhaps what does: look in its file system for \\Windows\\MEMORY.DMP, "
        "pagefile.sys and hiberfil.sys"
    ),
    FileKind.HIBERNATION: "convert it to a raw image first (hibernation files are compressed)",
    FileKind.ZEROED_HIBERNATION: (
        "Windows zeroed the header when it resumed from the file, and has used the machine since: take a new image. "
        "What the rest of the file still holds needs a tool that does without the header (Hibernation Recon)"
    ),
    FileKind.COMPRESSED: "unpack it first",
    FileKind.ARCHIVE: "unpack it first",
    FileKind.EXPERT_WITNESS: "convert it to a raw image first (ewfexport)",
    FileKind.EXECUTABLE: "this is a program, not a memory image",
    FileKind.PDB: "these are symbols, not a memory image: name its directory with --symbol-path, beside the image",
    FileKind.TEXT: "this is text, not a memory image",
}
"""What to do, for each kind in which no memory can be looked for."""
_VMEM = (
    "a .vmem file needs the .vmss or .vmsn of the same name beside it, which says where in physical memory its parts "
    "are: copy that one too"
)
_HYPER_V_NAMES = frozenset({".vmrs", ".vsv"})
_STATES = (".vmss", ".vmsn")


def hint_of_name(path: Path) -> str:
    """Return what the file's name says is to be done if nothing can be made of its contents; "" if it says nothing."""
    extension = path.suffix.lower()
    if extension == ".vmem" and not any(path.with_suffix(state).exists() for state in _STATES):
        return _VMEM
    return _HYPER_V if has_name_of_hyper_v(path) else ""


def has_name_of_hyper_v(path: Path) -> bool:
    """Say whether a file is called as saved states of Hyper-V are."""
    return path.suffix.lower() in _HYPER_V_NAMES
