# SPDX-License-Identifier: Apache-2.0
"""Examines a file before Volatility opens it: what kind it is, how complete it is, and which kernel is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from throwstack.crashdump.dump_pages import DumpPages, Extent
from throwstack.crashdump.file_advice import ADVICE, FULL_DUMP, has_name_of_hyper_v, hint_of_name
from throwstack.crashdump.file_bytes import ByteSource, FileBytes
from throwstack.crashdump.file_kind import FileKind, Identity, identify
from throwstack.crashdump.find_kernel import Kernel, kernel_of, search_kernel
from throwstack.crashdump.header import DumpHeader, DumpKind
from throwstack.crashdump.inside_file import unpacked_head
from throwstack.crashdump.runs import NoRuns, read_runs

_NO_MEMORY_KINDS = {
    DumpKind.HEADER: "the dump holds its header alone",
    DumpKind.TRIAGE: "a small dump holds one thread's kernel stack and no process's memory",
}


@dataclass(frozen=True, slots=True)
class DumpFile:
    """What is known of a file that may be a memory image.

    `size` is in bytes. `extent` says how many pages the file should hold and how many are missing; it is None for
    images that do not record this. `kernel` is None if no kernel was found. `was_searched` is True if the whole file
    was searched for a kernel and none was found. `inside` is what a compressed file holds; it is None for every other
    file. `problems` say what is wrong with the file, and `advice` says what the user can do.
    """

    path: Path
    size: int
    identity: Identity
    extent: Extent | None = None
    kernel: Kernel | None = None
    was_searched: bool = False
    inside: Identity | None = None
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def is_cut_off(self) -> bool:
        """Say whether the file ends before the last page that the dump should hold."""
        return self.extent is not None and self.extent.missing > 0

    @property
    def loss(self) -> str:
        """Return how much of the memory is missing because the file is cut off; empty if it is not."""
        if self.extent is None or not self.is_cut_off:
            return ""
        return f"the dump is cut off: {self.extent.missing_share:.1%} of its memory is missing at the end"

    @property
    def is_packed_image(self) -> bool:
        """Say whether the file is compressed, and holds an image in which memory may be found."""
        inside = self.inside
        if inside is None or not inside.kind.is_memory:
            return False
        return inside.header is None or _refused(inside.header) is None

    @property
    def refusal(self) -> str:
        """Return in one line why the file cannot be examined, and what to do; empty if it may be examined."""
        if self.kernel is not None:
            return ""
        reasons = self.problems or ((self.identity.text,) if not self.identity.kind.is_memory else ())
        return ": ".join(("; ".join(filter(None, (*reasons, self.loss))), *self.advice[:1]))


def look_at(path: Path, say: Callable[[str], None] = lambda _: None) -> DumpFile:
    """Examine the file at `path`; raises OSError if it cannot be opened. `say` gets a message before each long step."""
    data = FileBytes(path)
    try:
        return _look_at(path, data, say)
    finally:
        data.close()


def _look_at(path: Path, data: ByteSource, say: Callable[[str], None]) -> DumpFile:
    identity = identify(data, path.name)
    if identity.kind is FileKind.COMPRESSED:
        return _compressed(path, data, identity)
    if not identity.kind.is_memory:
        return DumpFile(path, data.size, identity, advice=(ADVICE[identity.kind],))
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
    hint = hint_of_name(path) if kernel is None else ""
    if kernel is None and identity.kind is FileKind.RAW and has_name_of_hyper_v(path):
        identity = Identity(FileKind.HYPER_V_STATE, detail=", by its name")
    return DumpFile(
        path,
        data.size,
        identity,
        extent,
        kernel,
        kernel is None,
        problems=tuple(problems),
        advice=(hint,) if hint else (),
    )


def _compressed(path: Path, data: ByteSource, identity: Identity) -> DumpFile:
    """Return a compressed file with what its first bytes show; the rest is not unpacked, which may take minutes."""
    head = unpacked_head(data)
    inside = None if head is None else identify(head)
    if inside is None:
        problem, advice = "it cannot be unpacked: it is damaged or cut off", "copy it again"
    else:
        problem = f"it is compressed; it holds: {inside.text}"
        refused = None if inside.header is None else _refused(inside.header)
        advice = refused[1] if refused is not None else ADVICE.get(inside.kind, ADVICE[identity.kind])
    return DumpFile(path, data.size, identity, inside=inside, problems=(problem,), advice=(advice,))


def _refused(header: DumpHeader) -> tuple[str, str] | None:
    """Return why a dump of this kind cannot be examined, and what the user can do; None if it can be examined."""
    if header.kind in _NO_MEMORY_KINDS:
        return _NO_MEMORY_KINDS[header.kind], FULL_DUMP
    if header.is_arm64:
        return "it is the dump of an ARM64 machine", "ARM64 is not supported: open it with WinDbg"
    return None
