# SPDX-License-Identifier: Apache-2.0
"""The whole text of a report on a dump: `lines_of`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from throwstack.report.crash_order import worst_first
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import DumpReport
from throwstack.report.process_report import ProcessReport, process_of
from throwstack.report.text.crash_lines import crash_lines, further_commands, headline
from throwstack.report.text.dump_lines import deadlock_lines, machine_lines, symbol_lines, warning_lines
from throwstack.report.text.process_lines import module_lines, other_thread_lines
from throwstack.report.text.text_lines import Line, TextStyle, Tone, rendered


def lines_of(report: DumpReport, style: TextStyle | None = None) -> Iterator[str]:
    """Yield the report as lines of at most 120 columns, without line ends.

    By default there are no colours, and of threads that are not stuck only the calls that tell what they are about.
    """
    chosen = TextStyle() if style is None else style
    return chain.from_iterable(rendered(line, chosen) for line in _lines(report, chosen))


def _lines(report: DumpReport, style: TextStyle) -> Iterator[Line]:
    yield from machine_lines(report)
    crashes = worst_first(report.crashes)
    if len(crashes) > 1:
        yield Line()
        for crash in crashes:
            yield Line(f"  {headline(crash)}: {_cause(crash)}", Tone.CRASH, 6)
    processes = [process_of(crash, report.processes) for crash in crashes]
    last = {id(process): index for index, process in enumerate(processes)}
    for index, crash in enumerate(crashes):
        yield Line()
        yield from crash_lines(crash, processes[index])
        yield Line()
        yield from further_commands(crash, report.file.name)
        if last[id(processes[index])] == index:
            yield from _of_process(processes[index], style)
    yield from deadlock_lines(report.deadlocks, report.file.name)
    yield from warning_lines(report)
    yield from symbol_lines(report)


def _of_process(process: ProcessReport | None, style: TextStyle) -> Iterator[Line]:
    if process is not None:
        yield from other_thread_lines(process, style)
        yield from module_lines(process.modules)


def _cause(crash: CrashReport) -> str:
    what = "" if crash.exception is None else crash.exception.title or f"exception {crash.exception.code:08x}"
    return " at ".join(filter(None, (what, crash.thrown_at))) or f"in {crash.blocked_in}"
