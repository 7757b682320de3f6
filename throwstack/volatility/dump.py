# SPDX-License-Identifier: Apache-2.0
"""The library's `Dump`, which `throwstack.open` returns; it makes reports of crashes, processes and threads."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from throwstack.core.errors import ThrowstackError
from throwstack.core.sides import SIDES_BY_WORD, Sides, sides_of
from throwstack.core.text import escape
from throwstack.crashdump.dump_file import DumpFile, look_at
from throwstack.files.at_hand import FilesAtHand
from throwstack.files.needed_files import NeededFile
from throwstack.minidump.minidump_report import MinidumpReport
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.dump_report import (
    SCHEMA_VERSION,
    DumpReport,
    FileReport,
    WantedFile,
    WarningCode,
)
from throwstack.report.frame_report import WHOLE, FrameDetail
from throwstack.report.thread_report import ThreadStackReport
from throwstack.volatility.crashes import crash_of, summary_of
from throwstack.volatility.cxr import FilesNeeded, stacks_of
from throwstack.volatility.machine_report import machine_report
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.minidumps import CannotWrite, MinidumpOrder, OnMiss, minidumps
from throwstack.volatility.objects.machine_name import machine_name
from throwstack.volatility.open_machine import examination, isf_of, open_machine
from throwstack.volatility.opening.open_image import BadSymbols, CannotOpen, symbol_directories
from throwstack.volatility.process_reports import ProcessReports
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.thread_stacks import thread_stack
from throwstack.volatility.thread_survey import ThreadSurvey

log = logging.getLogger(__name__)

Item = TypeVar("Item")
PathLike = str | os.PathLike[str]
Progress = Callable[[float, str], None]
_DETAIL = FrameDetail(variables=True)


class Dump:
    """A memory image that has been opened. Use it in a `with` statement, or close it.

    Each method examines the image anew, and the reports that it returns never read the image later. The parameters
    `pids` and `tids` restrict a method to the processes and threads with these IDs, and `names` to the processes with
    these image names (with or without `.exe`, in any case); empty collections mean all. The parameter `wow64` (`x86`,
    `native`, `both`) selects which stacks of 32-bit processes on 64-bit Windows are examined (the 32-bit ones, the
    64-bit ones, or both), as the plugins' option `--wow64` does.

    Several dumps may be open at a time, but one process must not use dumps in two threads at once, because Volatility
    keeps settings for the whole process.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        symbols: PathLike | Sequence[PathLike] = (),
        symbol_path: PathLike | None = None,
        image_path: PathLike | None = None,
        page_files: PathLike | Sequence[PathLike] = (),
        offline: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Open the image at `path`. `throwstack.open` explains the parameters."""
        files = FilesAtHand(
            _paths(symbols), _text(symbol_path), _text(image_path), _paths(page_files), is_offline=offline
        )
        self._progress = None if progress is None else _passing_on(progress)
        self._is_closed = False
        self._closing = contextlib.ExitStack()
        try:
            with _callers_errors():
                self._file = _looked_at(path, self._say)
                self._closing.enter_context(symbol_directories(files.symbols, is_offline=offline))
                self._machine = _opened(self._file, files, self._progress)
            self._closing.callback(_close_layers, self._machine)
            self._closing.callback(self._machine.sources.close)
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
        """Close the image's file. The dump cannot be used after that, but reports that it has returned can."""
        self._is_closed = True
        self._closing.close()

    def crashes(
        self,
        *,
        pids: Collection[int] = (),
        tids: Collection[int] = (),
        names: Collection[str] = (),
        wow64: str = "both",
        handled: bool = False,
    ) -> Iterator[CrashReport]:
        """Yield a report on every stuck thread, among the processes and threads given, or among all.

        With `handled`, threads are reported, too, on whose stacks there is an exception that a handler has taken; their
        verdict has the code `HANDLED`.

        Reasons why a stuck thread may have been missed are logged; the result of `report` contains them.
        """
        survey = self._survey(_selection(pids, tids, wow64, names, handled=handled))
        yield from self._each(crash_of(self._machine, finding, _DETAIL) for finding in survey.findings())

    def report(
        self,
        *,
        pids: Collection[int] = (),
        tids: Collection[int] = (),
        names: Collection[str] = (),
        wow64: str = "both",
        handled: bool = False,
    ) -> DumpReport:
        """Return a report on the file, the machine, its crashes, and the reasons why crashes may have been missed.

        `handled` is as for `crashes`.
        """
        selection = _selection(pids, tids, wow64, names, handled=handled)
        survey = self._survey(selection)
        crashes: list[CrashReport] = []
        needed = FilesNeeded()
        with _callers_errors(), self._examination():
            machine = replace(machine_report(self._machine, self._file.identity.header), name=self._machine_name())
            reports = ProcessReports(self._machine, survey, machine.build)
            for finding in survey.findings():
                crashes.append(reports.crash(finding))
                needed.add(stacks_of(finding))
            processes = reports.processes()
            if not crashes:
                reports.look_for_deadlocks(self._survey(selection))
        for loss in self._machine.page_losses:
            survey.record.warn(WarningCode.PAGES, loss)
        return DumpReport(
            schema_version=SCHEMA_VERSION,
            file=_file_report(self._file),
            machine=machine,
            examined=survey.record.examined,
            crashes=tuple(crashes),
            warnings=survey.record.warnings,
            unexamined=survey.record.unexamined,
            symbols_wanted=tuple(_wanted(file) for file in needed.files()),
            processes=processes,
            deadlocks=reports.deadlocks,
        )

    def processes(self) -> Iterator[ProcessSummary]:
        """Yield every process that has user-mode memory."""
        survey = self._survey(Selection())
        yield from self._each(summary_of(process) for process in survey.processes())

    def threads(
        self,
        *,
        pids: Collection[int] = (),
        tids: Collection[int] = (),
        names: Collection[str] = (),
        wow64: str = "both",
    ) -> Iterator[ThreadStackReport]:
        """Yield every thread of the processes and threads given (or of all), stuck or not, with its whole stack."""
        survey = self._survey(_selection(pids, tids, wow64, names))
        yield from self._each(thread_stack(self._machine, report) for report in ThreadSurvey(survey).reports())

    def minidumps(
        self,
        directory: PathLike,
        *,
        pids: Collection[int] = (),
        tids: Collection[int] = (),
        full: bool = False,
        wow64: str = "x86",
        on_miss: OnMiss | None = None,
    ) -> Iterator[MinidumpReport]:
        """Write a minidump of each process with a stuck thread into `directory`, and yield a report on each.

        With `pids`, minidumps of these processes are written, stuck or not. A minidump is opened at the exception of
        the first stuck thread of the process, or of the first one of `tids`. With `full` it has all readable memory,
        else stacks and what the exception is about. Of a 32-bit process on 64-bit Windows, the minidump is that of the
        32-bit program if `wow64` is `x86`, or that of the 64-bit process if it is `native`. Files are never replaced.
        At the end, `on_miss` is called with each warning and each process that could not be examined.
        Raises a `ThrowstackError` if a file cannot be written.
        """
        if wow64 not in {"x86", "native"}:
            message = f"wow64 is x86 or native, not {escape(str(wow64))}"
            raise ThrowstackError(message)
        _selection(pids, tids, wow64)
        with _callers_errors(), self._examination():
            machine = machine_report(self._machine, self._file.identity.header)
        name, size = self._file.path.name, self._file.size
        order = MinidumpOrder(Path(directory), name, size, full, wow64 == "native", pids, tids, on_miss)
        yield from self._each(_writing(minidumps(self._machine, machine, self._survey, order)))

    def _machine_name(self) -> str:
        with guarded(lambda reason: log.info("the name of the machine cannot be read: %s", reason)):
            processes = self._survey(Selection()).processes()
            return machine_name(self._machine, ((process.peb, process.memory) for process in processes))
        return ""

    def _each(self, found: Iterator[Item]) -> Iterator[Item]:
        """Yield the items of `found`; raise CannotOpen if the dump is closed meanwhile."""
        while True:
            self._check_open()
            with _callers_errors(), self._examination():
                one = list(islice(found, 1))
            if not one:
                return
            yield one[0]

    def _survey(self, selection: Selection) -> Survey:
        self._check_open()
        with self._examination():
            return Survey(self._machine, selection, self._progress)

    def _check_open(self) -> None:
        if self._is_closed:
            message = f"{self._name}: the dump was closed"
            raise CannotOpen(message)

    @contextlib.contextmanager
    def _examination(self) -> Iterator[None]:
        """Turn an exception that concerns the whole image into a `ThrowstackError` whose message names the image."""
        try:
            with examination():
                yield
        except ThrowstackError as error:
            message = f"{self._name}: {escape(str(error), WHOLE)}"
            raise type(error)(message) from error

    @property
    def _name(self) -> str:
        return escape(str(self._file.path), WHOLE)

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress(0.0, text)


def _paths(given: PathLike | Sequence[PathLike]) -> tuple[Path, ...]:
    """Return paths that were given as a sequence, or as a single path."""
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(map(Path, given))


def _text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)


def _selection(
    pids: Collection[int], tids: Collection[int], wow64: str, names: Collection[str] = (), *, handled: bool = False
) -> Selection:
    for name, numbers in (("pids", pids), ("tids", tids)):
        if not (isinstance(numbers, Collection) and all(isinstance(number, int) for number in numbers)):
            message = f"{name} is a collection of numbers, not {escape(repr(numbers))}"
            raise ThrowstackError(message)
    if isinstance(names, str) or not (isinstance(names, Collection) and all(isinstance(name, str) for name in names)):
        message = f"names is a collection of texts, not {escape(repr(names))}"
        raise ThrowstackError(message)
    return Selection(pids, tids, names, sides=_sides(wow64), handled=handled)


class _OfTheCaller(BaseException):
    """Carries an exception past every guard, because the dump did not cause it.

    It is one of the caller's `progress` function, or says that a file of the caller's cannot be written.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _passing_on(progress: Progress) -> Progress:
    def told(share: float, text: str) -> None:
        try:
            progress(share, text)
        except Exception as error:
            raise _OfTheCaller(error) from error

    return told


def _writing(found: Iterator[MinidumpReport]) -> Iterator[MinidumpReport]:
    """Yield what `found` yields. That a file cannot be written says nothing about the dump."""
    try:
        yield from found
    except CannotWrite as error:
        raise _OfTheCaller(error) from error


@contextlib.contextmanager
def _callers_errors() -> Iterator[None]:
    """Reraise an exception that the dump did not cause unchanged."""
    try:
        yield
    except _OfTheCaller as passed:
        raise passed.error from None


def _sides(word: str) -> Sides:
    try:
        return sides_of(word)
    except KeyError as error:
        message = f"wow64 is one of {', '.join(SIDES_BY_WORD)}, not {escape(str(word))}"
        raise ThrowstackError(message) from error


def _looked_at(path: PathLike, say: Callable[[str], None]) -> DumpFile:
    text = os.fspath(path)
    name = escape(text, WHOLE)
    if not text:
        message = "the path of the dump is empty"
        raise CannotOpen(message)
    try:
        found = look_at(Path(text), say)
    except OSError as error:
        message = f"{name}: {error.strerror or error}"
        raise CannotOpen(message) from error
    except ValueError as error:  # a zero in it, or half a surrogate pair
        message = f"{name}: this can be no file's path: {error}"
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
    try:
        isf = isf_of(file, files, progress)
        if isf is None:
            asked = "" if files.is_offline else ", and Microsoft's server did not give them"
            path = "" if file.kernel is None else escape(file.kernel.pdb.isf_path)
            where = f"put them into DIR/{path} and name DIR (-s DIR; symbols=DIR in a program)"
            message = f"the kernel's symbols are not at hand{asked}: {where}"
            raise BadSymbols(message)
        return open_machine(file, isf, files, progress)
    except ThrowstackError as error:
        message = "; ".join(filter(None, (f"{name}: {escape(str(error), WHOLE)}", file.loss)))
        raise type(error)(message) from error


def _wanted(file: NeededFile) -> WantedFile:
    return WantedFile(escape(file.manifest_line, WHOLE), escape(file.module, WHOLE), file.why, file.is_at_hand)


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
