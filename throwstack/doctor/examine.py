# SPDX-License-Identifier: Apache-2.0
"""Examines a file in steps, as long as the result of a step allows the next one, and reaches a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from throwstack.crashdump.dump_file import DumpFile, look_at
from throwstack.doctor.doctor_report import DoctorReport, DoctorVerdict
from throwstack.doctor.judge import judge, judge_extent
from throwstack.files.at_hand import FilesAtHand

_SYMBOLS = (
    "get the kernel's symbols: {} below a directory given with -s. Volatility fetches them itself where it has a "
    "network; its pdbconv makes them from the kernel's PDB"
)


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
    )
    if dump.kernel is not None:
        _Examination(dump, report, files).run()
    elif dump.was_searched:
        judge_extent(report)
        if not report.is_cut_off:
            report.advice.append("check that this is an image of a Windows machine, and that it is whole")
    return report


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
            self.report.symbols = open_machine.isf_of(self.dump, self.files)
            if self.report.symbols is None:
                self._need_symbols()
                return
            try:
                self._measure(self.report.symbols)
            except open_image.BadSymbols as error:
                self.report.problems.append(str(error))
                self._need_symbols()
                return
            except open_image.CannotOpen as error:
                self.report.problems.append(str(error))
                judge_extent(self.report)
                self.report.advice.append("the kernel's data is damaged or cut off: copy the image again")
                return
        judge(self.report)

    def _need_symbols(self) -> None:
        self.report.verdict = DoctorVerdict.IN_PART
        judge_extent(self.report)
        self.report.advice.append(_SYMBOLS.format(self.report.needed_symbols))

    def _measure(self, isf: str) -> None:
        from throwstack.volatility import open_machine  # noqa: PLC0415
        from throwstack.volatility.coverage import coverage  # noqa: PLC0415

        machine = open_machine.open_machine(self.dump, isf, self.files)
        with open_machine.examination():
            self.report.processes.extend(coverage(machine, self.report.problems))
            self.report.store_problems = machine.store_problems
            if not machine.has_all_processes:
                self.report.problems.append("the kernel's list of processes is broken: some may be missing")
