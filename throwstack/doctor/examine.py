# SPDX-License-Identifier: Apache-2.0
"""Examines a file in steps, as long as the result of a step allows the next one, and reaches a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from throwstack.crashdump.dump_file import DumpFile, look_at
from throwstack.crashdump.file_advice import hint_of_name
from throwstack.crashdump.header import DumpKind
from throwstack.doctor.doctor_report import DoctorReport, DoctorVerdict
from throwstack.doctor.judge import judge, judge_extent
from throwstack.files.at_hand import FilesAtHand

_SYMBOLS = (
    "get the kernel's symbols: {} below a directory given with -s. Volatility fetches them itself where it has a "
    "network; its pdbconv makes them from the kernel's PDB"
)
_LATER = "with the symbols, this command says how much of the processes can be read"
_MAY_BE_KERNEL_ALONE = frozenset({DumpKind.SUMMARY, DumpKind.BITMAP_KERNEL, DumpKind.AUTOMATIC, DumpKind.LIVE_KERNEL})


def examine(path: Path, files: FilesAtHand, say: Callable[[str], None]) -> DoctorReport:
    """Return the findings about the file at `path`; raises OSError if it cannot be opened.

    `files` are the symbol, image and page files that the user gave. `say` is called with a text during long steps.
    """
    dump = look_at(path, say)
    report = DoctorReport(
        str(path),
        dump.size,
        dump.identity,
        dump.extent,
        dump.kernel,
        problems=list(dump.problems),
        advice=list(dump.advice),
        files=files,
    )
    if dump.kernel is not None:
        _Examination(dump, report, files).run()
    elif dump.was_searched:
        judge_extent(report)
        if not report.is_cut_off and not report.advice:
            report.advice.append("check that this is an image of a Windows machine, and that it is whole")
    elif dump.is_packed_image:
        _judge_compressed(report)
    return report


def _judge_compressed(report: DoctorReport) -> None:
    """Say of a compressed image that Volatility opens it; what is in it is not examined, which may take minutes."""
    report.verdict = DoctorVerdict.IN_PART
    report.problems.append("only its first bytes were looked at")
    report.advice[:] = [
        "unpack it, and give throwstack what comes out: that tells whether it is whole and what can be read of it",
        f"or run {report.commands.vol('windows.unhandled')}: Volatility unpacks it into its cache first",
    ]


@dataclass(frozen=True, slots=True)
class _Examination:
    """The examination of a dump whose kernel is known; only here is Volatility loaded, which takes half a second."""

    dump: DumpFile
    report: DoctorReport
    files: FilesAtHand

    def run(self) -> None:
        from throwstack.volatility import open_machine  # noqa: PLC0415
        from throwstack.volatility.opening import open_image  # noqa: PLC0415

        with open_image.symbol_directories(self.files.symbols):
            # Only looked for: to fetch it is what `vol` does, and takes longer than all of this.
            self.report.symbols = open_machine.isf_of(self.dump, replace(self.files, is_offline=True))
            if self.report.symbols is None:
                self._need_symbols()
                return
            try:
                self._measure(self.report.symbols)
            except open_image.BadSymbols as error:
                self.report.problems.append(str(error))
                self.report.verdict = DoctorVerdict.IN_PART
                judge_extent(self.report)
                self.report.advice.append(_SYMBOLS.format(self.report.needed_symbols))
                return
            except open_image.BadPath as error:
                self.report.problems.append(str(error))
                return
            except open_image.CannotOpen as error:
                self.report.problems.append(str(error))
                judge_extent(self.report)
                hint = hint_of_name(self.dump.path)
                self.report.advice.append(hint or "the kernel's data is damaged or cut off: copy the image again")
                return
        judge(self.report)
        hint = hint_of_name(self.dump.path)
        if hint and self.report.verdict is not DoctorVerdict.SERVES:
            self.report.advice.insert(0, hint)

    def _need_symbols(self) -> None:
        """Judge a dump without its kernel's symbols: they are not cached here, which is no fault of the dump."""
        report, header = self.report, self.dump.identity.header
        report.verdict = DoctorVerdict.SERVES
        if header is not None and header.kind in _MAY_BE_KERNEL_ALONE:
            report.verdict = DoctorVerdict.IN_PART
            report.problems.append("it may hold the kernel's memory alone: that is seen with the kernel's symbols only")
        judge_extent(report)
        report.advice += [_SYMBOLS.format(report.needed_symbols), f"{_LATER}: {report.commands.throwstack('doctor')}"]

    def _measure(self, isf: str) -> None:
        from throwstack.volatility import open_machine  # noqa: PLC0415
        from throwstack.volatility.coverage import coverage  # noqa: PLC0415

        machine = open_machine.open_machine(self.dump, isf, self.files)
        with open_machine.examination():
            self.report.processes.extend(coverage(machine, self.report.problems))
            self.report.store_problems = machine.store_problems
            if not machine.has_all_processes:
                self.report.problems.append("the kernel's list of processes is broken: some may be missing")
