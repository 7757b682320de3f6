# SPDX-License-Identifier: Apache-2.0
"""What is said once a dump: the machine and the file, that nobody is stuck, deadlocks, warnings, wanted symbols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from throwstack.report.crash_order import is_stuck
from throwstack.report.dump_report import Deadlock, DumpReport, MachineReport, ReportWarning, UnexaminedProcess
from throwstack.report.module_report import NamesFrom
from throwstack.report.text.spelling import argument, count, duration, time
from throwstack.report.text.text_lines import Line, Tone

_MAX_WARNINGS = 20
_MAX_WANTED = 40
_NAME_COLUMN = 14
_MIB = 1 << 20


def machine_lines(report: DumpReport) -> Iterator[Line]:
    """Yield the file, the machine and the counts."""
    name = report.file.name
    column = max(_NAME_COLUMN, len(name) + 2) if len(name) < 40 else _NAME_COLUMN
    yield Line(f"{name:<{column}}{_system(report.machine)}", Tone.HEADING, column, 0)
    margin = " " * column
    yield Line(f"{margin}{_file(report)}", Tone.PLAIN, column)
    if report.file.missing_pages:
        cut = f"CUT OFF: {count(report.file.missing_pages, 'page')} missing at its end"
        yield Line(f"{margin}{cut} (throwstack doctor {argument(name)})", Tone.DOUBT, column)
    yield Line(f"{margin}{_when(report.machine)}", Tone.PLAIN, column)
    yield Line(f"{margin}{counts(report)}", Tone.PLAIN, column)


def _system(machine: MachineReport) -> str:
    kernel = f"{machine.architecture}{' (PAE)' if machine.has_pae else ''}"
    parts = [f"{machine.system} {kernel}"]
    if machine.build is not None:
        parts.append(f"build {machine.build}")
    if machine.service_pack:
        parts.append(machine.service_pack)
    if machine.processors is not None:
        parts.append(count(machine.processors, "processor"))
    return ", ".join(parts)


def _file(report: DumpReport) -> str:
    file = report.file
    return f"{file.description}, {file.size / _MIB:,.1f} MiB"


def _when(machine: MachineReport) -> str:
    parts = []
    if machine.time is not None:
        parts.append(f"taken {time(machine.time)} UTC")
    if machine.uptime_seconds is not None:
        parts.append(f"up {duration(machine.uptime_seconds)}")
    check = machine.bug_check
    if check is not None:
        code = f"bug check {check.code:x}"
        parts.append(f"{check.name} ({code})" if check.name else code)
        if any(check.parameters):
            parts.append(f"parameters {' '.join(f'{value:x}' for value in check.parameters)}")
    return ", ".join(parts) or "when it was taken is not known"


def counts(report: DumpReport) -> str:
    """Return `4 processes and 10 threads examined: 1 stuck`."""
    examined = report.examined
    seen = f"{count(examined.processes, 'process', 'processes')} and {count(examined.threads, 'thread')} examined"
    number = sum(map(is_stuck, report.crashes))
    stuck = f"{number:,} stuck" if number else "none is stuck on an unhandled exception"
    hidden = sum(warning.may_hide_crash for warning in report.warnings) + len(report.unexamined)
    doubt = f"; others may be hidden for {count(hidden, 'reason')} (at the end)" if hidden else ""
    return f"{seen}: {stuck}{doubt}"


def deadlock_lines(deadlocks: tuple[Deadlock, ...], file: str) -> Iterator[Line]:
    """Yield the deadlocks in a dump, whose name is `file`; nothing if there are none."""
    if not deadlocks:
        return
    threads = sum(len(one.threads) + one.waiting for one in deadlocks)
    yield Line()
    yield Line(f"{count(threads, 'thread')} wait in {count(len(deadlocks), 'deadlock')}", Tone.HEADING)
    for deadlock in deadlocks:
        for thread in deadlock.threads:
            name = thread.process or "a process"
            who = f"  {name} ({thread.pid}), thread {thread.tid}"
            yield Line(f"{who} waits for {thread.waits_for or 'the next'}", Tone.PLAIN, 6)
        if deadlock.waiting:
            verb = "waits" if deadlock.waiting == 1 else "wait"
            yield Line(f"  and {count(deadlock.waiting, 'more thread')} {verb} for one of them", Tone.FAINT)
        yield Line()
    yield Line(f"  Their stacks: vol -f {argument(file)} windows.stackwalk --pid PID", Tone.FAINT)


def warning_lines(report: DumpReport) -> Iterator[Line]:
    """Yield why crashes may be hidden, and what was asked for and is not there; nothing if there is nothing to say."""
    missing = [warning_text(warning) for warning in report.warnings if not warning.may_hide_crash]
    hidden = [warning_text(warning) for warning in report.warnings if warning.may_hide_crash]
    yield from _listed("Not found", missing)
    yield from _listed("Why crashes may be hidden", [*map(unexamined_text, report.unexamined), *hidden])


def _listed(title: str, texts: Sequence[str]) -> Iterator[Line]:
    if not texts:
        return
    yield Line()
    yield Line(title, Tone.HEADING)
    for text in texts[:_MAX_WARNINGS]:
        yield Line(f"  {text}", Tone.DOUBT, 4)
    if len(texts) > _MAX_WARNINGS:
        yield Line(f"  and {count(len(texts) - _MAX_WARNINGS, 'more', 'more')} (--json has all)", Tone.DOUBT)


def _named(report: DumpReport) -> str:
    """Return `9 modules named: 7 by private PDB, 2 by exports`, and whether a file would improve the stacks."""
    modules = {(process.pid, module.base): module for process in report.processes for module in process.modules}
    kinds = Counter(module.symbols for module in modules.values())
    parts = [f"{kinds[kind]} by {kind.value}" for kind in NamesFrom if kinds[kind]]
    end = "" if report.symbols_wanted else ". Nothing would improve these stacks"
    return f"{count(len(modules), 'module')} named: {', '.join(parts)}{end}."


def unexamined_text(process: UnexaminedProcess) -> str:
    """Return which process was not examined, and why."""
    pid = "" if process.pid is None else f" ({process.pid})"
    return f"{process.name or 'a process'}{pid} was not examined: {process.reason}"


def warning_text(warning: ReportWarning) -> str:
    """Return a warning with the process and the thread that it is about, if any."""
    who = "" if warning.pid is None else f"process {warning.pid}"
    who += "" if warning.tid is None else f"{', ' if who else ''}thread {warning.tid}"
    return f"{who}: {warning.text}" if who else warning.text


def symbol_lines(report: DumpReport) -> Iterator[Line]:
    """Yield what named the modules, the files that would improve the report, and how to bring them."""
    wanted = report.symbols_wanted
    if report.processes:
        yield Line()
        yield Line(f"Symbols: {_named(report)}", Tone.HEADING)
    if not wanted:
        return
    yield Line()
    yield Line("Symbols that would improve this report", Tone.HEADING)
    for file in wanted[:_MAX_WANTED]:
        have = "at hand, but " if file.is_at_hand else ""
        yield Line(f"  {file.module:<16} {file.manifest_line}", Tone.PLAIN, 21)
        yield Line(f"  {'':16} {have}{file.why}", Tone.FAINT, 21)
    if len(wanted) > _MAX_WANTED:
        yield Line(f"  and {count(len(wanted) - _MAX_WANTED, 'further file')} (--json has all)", Tone.FAINT)
    yield Line("  Windows' own: --symbol-path 'srv*CACHE*https://msdl.microsoft.com/download/symbols'", Tone.FAINT, 4)
    yield Line("  Your program's: --symbol-path DIR, with the PDBs of exactly this build in DIR", Tone.FAINT, 4)
