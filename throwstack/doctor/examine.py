# SPDX-License-Identifier: Apache-2.0
"""Examines a file step by step, each step as far as the one before it allows, and comes to a verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from throwstack.core.guard import reason_of
from throwstack.crashdump.dump_pages import DumpPages
from throwstack.crashdump.file_bytes import FileBytes
from throwstack.crashdump.header import DumpHeader, DumpKind
from throwstack.crashdump.runs import NoRuns, read_runs
from throwstack.doctor.find_kernel import Kernel, kernel_of, search_kernel
from throwstack.doctor.identify import FileKind, identify
from throwstack.doctor.report import Extent, Report, Verdict
from throwstack.doctor.verdict import FULL_DUMP, judge, judge_extent

log = logging.getLogger(__name__)

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
_SYMBOLS = (
    "get the kernel's symbols: {} below a directory given with -s. Volatility fetches them itself where it has a "
    "network; its pdbconv makes them from the kernel's PDB"
)


@dataclass(frozen=True, slots=True)
class Files:
    """What is at hand beside the dump: directories with ISF files, where image files lie, page files by number."""

    symbols: Sequence[Path] = ()
    image_path: str = ""
    page_files: Sequence[Path] = ()


def examine(path: Path, files: Files, say: Callable[[str], None]) -> Report:
    """Return the findings about the file at `path`; raises OSError where it cannot be opened.

    `say` takes news of long steps.
    """
    data = FileBytes(path)
    try:
        report = Report(str(path), data.size, identify(data))
        _Examination(path, data, report, files, say).run()
        return report
    finally:
        data.close()


@dataclass(frozen=True, slots=True)
class _Examination:
    path: Path
    data: FileBytes
    report: Report
    files: Files
    say: Callable[[str], None]

    def run(self) -> None:
        identity = self.report.identity
        if not identity.kind.is_memory:
            self.report.advice.append(_NOT_MEMORY[identity.kind])
            return
        if identity.header is not None and not self._read_dump(identity.header):
            return
        if self.report.kernel is None:
            self.say("searching for the kernel")
            self.report.kernel = search_kernel(self.data)
        if self.report.kernel is None:
            self.report.problems.append("no Windows kernel was found in it")
            judge_extent(self.report)
            if not self.report.is_cut_off:
                self.report.advice.append("check that this is an image of a Windows machine, and that it is whole")
            return
        self._examine_processes(self.report.kernel)

    def _read_dump(self, header: DumpHeader) -> bool:
        """Find the dump's pages and its kernel; say whether there is anything to go on with."""
        report = self.report
        if header.kind in _NO_MEMORY_KINDS:
            report.problems.append(_NO_MEMORY_KINDS[header.kind])
            report.advice.append(FULL_DUMP)
            return False
        if header.is_arm64:
            report.problems.append("it is the dump of an ARM64 machine")
            report.advice.append("ARM64 is not supported: open it with WinDbg")
            return False
        try:
            pages = DumpPages(self.data, read_runs(self.data, header))
        except NoRuns as error:
            report.problems.append(str(error))
            report.advice.append("the dump is damaged or of a kind that is not known: copy it again, or " + FULL_DUMP)
            return False
        report.extent = Extent(pages.expected_pages, pages.missing_pages)
        report.kernel = kernel_of(pages, header)
        if report.kernel is None:
            report.problems.append("the header's page tables do not lead to the kernel")
        return True

    def _examine_processes(self, kernel: Kernel) -> None:
        # Volatility takes half a second to load: not for files that need none of it.
        from throwstack.volatility.opening import open_image as opening  # noqa: PLC0415

        with opening.symbol_directories(self.files.symbols):
            self.report.symbols = opening.find_isf(kernel.pdb)
            if self.report.symbols is None:
                self._need_symbols()
                return
            try:
                self._measure(kernel, self.report.symbols)
            except opening.BadSymbols as error:
                self.report.problems.append(str(error))
                self._need_symbols()
                return
            except opening.CannotOpen as error:
                self.report.problems.append(str(error))
                judge_extent(self.report)
                self.report.advice.append("the kernel's data is damaged or cut off: copy the image again")
                return
        judge(self.report)

    def _need_symbols(self) -> None:
        self.report.verdict = Verdict.IN_PART
        judge_extent(self.report)
        self.report.advice.append(_SYMBOLS.format(self.report.needed_symbols))

    def _measure(self, kernel: Kernel, isf: str) -> None:
        from throwstack.volatility.coverage import coverage  # noqa: PLC0415
        from throwstack.volatility.memory.machine import Machine  # noqa: PLC0415
        from throwstack.volatility.opening import open_image as opening  # noqa: PLC0415 - see above
        from throwstack.volatility.opening.sources import Sources  # noqa: PLC0415

        header = self.report.identity.header
        if header is not None and kernel.base:
            context, name = opening.open_crash_dump(self.path, header, kernel.base, isf, self.files.page_files)
        else:
            context, name = opening.open_image(self.path, self.files.page_files)
        try:
            machine = Machine(context, name, "throwstack", Sources("", self.files.image_path))
            self.report.processes.extend(coverage(machine, self.report.problems))
            self.report.store_problems = machine.store_problems
            if not machine.has_all_processes:
                self.report.problems.append("the kernel's list of processes is broken: some may be missing")
        except (LookupError, TypeError) as error:
            message = f"the ISF file is not of this kernel, or lacks what is needed: {error}"
            raise opening.BadSymbols(message) from error
        except Exception as error:
            log.debug("the machine cannot be examined", exc_info=True)
            message = f"the machine cannot be examined: {reason_of(error)}"
            raise opening.CannotOpen(message) from error
