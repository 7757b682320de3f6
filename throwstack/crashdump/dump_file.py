# SPDX-License-Identifier: Apache-2.0
"""Examines a file before Volatility opens it: what kind it is, how complete it is, and which kernel is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from throwstack.crashdump.dump_pages import DumpPages, Extent
from throwstack.crashdump.file_bytes import ByteSource, FileBytes
from throwstack.crashdump.file_kind import FileKind, Identity, identify
from throwstack.crashdump.find_kernel import Kernel, kernel_of, search_kernel
from throwstack.crashdump.header import DumpHeader, DumpKind
from throwstack.crashdump.runs import NoRuns, read_runs

FULL_DUMP = (
    "have the machine write a complete or active memory dump next time (CrashControl\\CrashDumpEnabled = 1), or take "
    "an image while the process hangs"
)
_NOT_MEMORY = {
    FileKind.EMPTY: "the file has no contents: copy it again",
    FileKind.CUT_HEADER: "not even the header is whole: copy the dump again",
    FileKind.USER_MINIDUMP: (
        "it holds one process and already has its exception: open it with WinDbg, Visual Studio, LLDB or "
        "minidump-stackwalk; throwstack works on images of a whole machine"
    ),
    FileKind.VMWARE: (
        "give the .vmem file of the same name instead, and keep this one beside it: Volatility reads both. Without a "
        ".vmem file, convert it to a raw image or a crash dump first (vmss2core)"
    ),
    FileKind.HIBERNATION: "convert it to a raw image first (hibernation files are compressed)",
    FileKind.COMPRESSED: "unpack it first",
    FileKind.EXPERT_WITNESS: "convert it to a raw image first (ewfexport)",
    FileKind.EXECUTABLE: "this is a program, not a memory image",
    FileKind.TEXT: "this is text, not a memory image",
}
_NO_MEMORY_KINDS = {
    DumpKind.HEADER: "the dump holds its header alone",
    DumpKind.TRIAGE: "a small dump holds one thread's kernel stack and no process's memory",
}


@dataclass(frozen=True, slots=True)
class DumpFile:
    """What is known of a file that may be a memory image.

    `size` is in bytes. `extent` says how many pages the file should hold and how many are missing; it is None for
    images that do not record this. `kernel` is None if no kernel was found. `was_searched` is True if the whole file
    was searched for a kernel and none was found. `problems` say what is wrong with the file, and `advice` says what the
    user can do.
    """

    path: Path
    size: int
    identity: Identity
    extent: Extent | None = None
    kernel: Kernel | None = None
    was_searched: bool = False
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def is_cut_off(self) -> bool:
        """Say whether the file ends before the last page that the dump should hold."""
        return self.extent is not None and self.extent.missing > 0

    @property
    def refusal(self) -> str:
        """Return in one line why the file cannot be examined, and what to do; empty if it may be examined."""
        if self.kernel is not None:
            return ""
        reasons = self.problems or ((self.identity.text,) if not self.identity.kind.is_memory else ())
        return ": ".join(("; ".join(reasons), *self.advice[:1]))


def look_at(path: Path, say: Callable[[str], None] = lambda _: None) -> DumpFile:
    """Examine the file at `path`; raises OSError if it cannot be opened. `say` gets a message before each long step."""
    data = FileBytes(path)
    try:
        return _look_at(path, data, say)
    finally:
        data.close()


def _look_at(path: Path, data: ByteSource, say: Callable[[str], None]) -> DumpFile:
    identity = identify(data)
    if not identity.kind.is_memory:
        return DumpFile(path, data.size, identity, advice=(_NOT_MEMORY[identity.kind],))
    extent, kernel, problems = None, None, []
    if identity.header is not None:
        refused = _refused(identity.header)
        if refused is not None:
            return DumpFile(path, data.size, identity, problems=refused[:1], advice=refused[1:])
        try:
            pages = DumpPages(data, read_runs(data, identity.header))
        except NoRuns as error:
            advice = "the dump is damaged or of a kind that is not known: copy it again, or " + FULL_DUMP
            return DumpFile(path, data.size, identity, problems=(str(error),), advice=(advice,))
        extent, kernel = pages.extent, kernel_of(pages, identity.header)
        if kernel is None:
            problems.append("the header's page tables do not lead to the kernel")
    if kernel is None:
        say("searching for the kernel")
        kernel = search_kernel(data)
    if kernel is None:
        problems.append("no Windows kernel was found in it")
    return DumpFile(path, data.size, identity, extent, kernel, kernel is None, tuple(problems))


def _refused(header: DumpHeader) -> tuple[str, str] | None:
    """Return why a dump of this kind cannot be examined, and what the user can do; None if it can be examined."""
    if header.kind in _NO_MEMORY_KINDS:
        return _NO_MEMORY_KINDS[header.kind], FULL_DUMP
    if header.is_arm64:
        return "it is the dump of an ARM64 machine", "ARM64 is not supported: open it with WinDbg"
    return None
