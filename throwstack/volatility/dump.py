# SPDX-License-Identifier: Apache-2.0
"""The library: `throwstack.open` gives a `Dump`, and a dump gives reports of its crashes, processes and threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from throwstack.core.errors import ThrowstackError
from throwstack.core.sides import SIDES_BY_WORD, Sides, sides_of
from throwstack.core.text import escape
from throwstack.crashdump.dump_file import DumpFile, look_at
from throwstack.files.at_hand import FilesAtHand
from throwstack.files.needed_files import NeededFile
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.dump_report import (
    SCHEMA_VERSION,
    DumpReport,
    FileReport,
    WantedFile,
    WarningCode,
)
from throwstack.report.frame_report import WHOLE
from throwstack.report.thread_report import ThreadStackReport
from throwstack.volatility.crashes import crash_of, summary_of
from throwstack.volatility.cxr import files_needed, stacks_of
from throwstack.volatility.machine_report import machine_report
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.open_machine import examination, isf_of, needed_isf, open_machine
from throwstack.volatility.opening.open_image import BadSymbols, CannotOpen, symbol_directories
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.thread_stacks import thread_stack
from throwstack.volatility.thread_survey import ThreadSurvey

PathLike = str | os.PathLike[str]
Progress = Callable[[float, str], None]


class Dump:
    """A memory image that has been opened. Use it in a `with` statement, or close it.

    Each method goes through the image anew; none of what they return reads the image later. `pids` and `tids` leave all
    other processes and threads out; `wow64` (`x86`, `native`, `both`) selects the sides of 32-bit processes on 64-bit
    Windows, as the plugins' option does. Two dumps may be open at a
    time, but one process must not use dumps in two threads at once: Volatility keeps settings for the whole process.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        symbols: PathLike | Sequence[PathLike] = (),
        symbol_path: str | None = None,
        image_path: str | None = None,
        page_files: PathLike | Sequence[PathLike] = (),
        offline: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Open the image at `path`. See `throwstack.open`."""
        files = FilesAtHand(_paths(symbols), symbol_path, image_path, _paths(page_files), is_offline=offline)
        self._progress = progress
        self._is_closed = False
        self._closing = contextlib.ExitStack()
        try:
            self._file = _looked_at(Path(path), self._say)
            self._closing.enter_context(symbol_directories(files.symbols, is_offline=offline))
            self._machine = _opened(self._file, files, progress)
            self._closing.callback(_close_layers, self._machine)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Dump:  # noqa: PYI034 typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the image's file. The dump cannot be used after that; its reports can."""
        self._is_closed = True
        self._closing.close()

    def crashes(
        self, *, pids: Collection[int] = (), tids: Collection[int] = (), wow64: str = "both"
    ) -> Iterator[CrashReport]:
        """Yield every stuck thread, of the processes and threads given or of all.

        What may have hidden one is logged; `report` has it as data.
        """
        survey = self._survey(Selection(pids, tids, sides=_sides(wow64)))
        with examination():
            for finding in survey.findings():
                yield crash_of(self._machine, finding)

    def report(self, *, pids: Collection[int] = (), tids: Collection[int] = (), wow64: str = "both") -> DumpReport:
        """Return what there is to say of the dump: the file, the machine, its crashes, and what may be hidden."""
        survey = self._survey(Selection(pids, tids, sides=_sides(wow64)))
        crashes: list[CrashReport] = []
        needed: dict[str, NeededFile] = {}
        with examination():
            for finding in survey.findings():
                crashes.append(crash_of(self._machine, finding))
                for file in files_needed(stacks_of(finding)):
                    needed.setdefault(file.manifest_line, file)
            for loss in self._machine.lost_routes:
                survey.record.warn(WarningCode.SYMBOLS, loss)
            machine = machine_report(self._machine, self._file.identity.header)
        record = survey.record
        return DumpReport(
            schema_version=SCHEMA_VERSION,
            file=_file_report(self._file),
            machine=machine,
            examined=record.examined,
            crashes=tuple(crashes),
            warnings=record.warnings,
            unexamined=record.unexamined,
            symbols_wanted=tuple(
                WantedFile(escape(file.manifest_line, WHOLE), escape(file.module), file.why) for file in needed.values()
            ),
        )

    def processes(self) -> Iterator[ProcessSummary]:
        """Yield every process that has user-mode memory."""
        survey = self._survey(Selection())
        with examination():
            for process in survey.processes():
                yield summary_of(process)

    def threads(
        self, *, pids: Collection[int] = (), tids: Collection[int] = (), wow64: str = "both"
    ) -> Iterator[ThreadStackReport]:
        """Yield every thread with its whole stack, stuck or not, of the processes and threads given or of all."""
        survey = self._survey(Selection(pids, tids, sides=_sides(wow64)))
        with examination():
            for report in ThreadSurvey(survey).reports():
                yield thread_stack(self._machine, report)

    def _survey(self, selection: Selection) -> Survey:
        if self._is_closed:
            message = f"{escape(str(self._file.path), WHOLE)}: the dump was closed"
            raise CannotOpen(message)
        with examination():
            return Survey(self._machine, selection, self._progress)

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress(0.0, text)


def _paths(given: PathLike | Sequence[PathLike]) -> tuple[Path, ...]:
    """Return paths that were given as a sequence, or as a single one."""
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(map(Path, given))


def _sides(word: str) -> Sides:
    try:
        return sides_of(word)
    except KeyError as error:
        message = f"wow64 is one of {', '.join(SIDES_BY_WORD)}, not {escape(str(word))}"
        raise ThrowstackError(message) from error


def _looked_at(path: Path, say: Callable[[str], None]) -> DumpFile:
    name = escape(str(path), WHOLE)
    try:
        found = look_at(path, say)
    except OSError as error:
        message = f"{name}: {error.strerror or error}"
        raise CannotOpen(message) from error
    if found.refusal:
        message = f"{name}: {found.refusal}"
        raise CannotOpen(message)
    return found


def _opened(file: DumpFile, files: FilesAtHand, progress: Progress | None) -> Machine:
    name = escape(str(file.path), WHOLE)
    for page_file in files.page_files:
        if not page_file.is_file():
            message = f"{escape(str(page_file), WHOLE)} is not a file"
            raise CannotOpen(message)
    isf = isf_of(file, files, progress)
    if isf is None:
        message = f"{name}: the kernel's symbols are not at hand: {needed_isf(file)} below a directory of `symbols`"
        raise BadSymbols(message)
    try:
        return open_machine(file, isf, files, progress)
    except ThrowstackError as error:
        message = f"{name}: {escape(str(error), WHOLE)}"
        raise type(error)(message) from error


def _close_layers(machine: Machine) -> None:
    for layer in machine.context.layers.values():
        layer.destroy()


def _file_report(file: DumpFile) -> FileReport:
    return FileReport(
        name=escape(file.path.name, WHOLE),
        size=file.size,
        kind=file.identity.kind.name.lower().replace("_", "-"),
        description=file.identity.text,
        expected_pages=None if file.extent is None else file.extent.expected,
        missing_pages=None if file.extent is None else file.extent.missing,
    )
