# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings, as data, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from throwstack.core.filetime import time_of
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.text import escape
from throwstack.crashdump.dump_pages import Extent
from throwstack.crashdump.file_kind import Identity
from throwstack.crashdump.find_kernel import Kernel
from throwstack.doctor.next_commands import NextCommands
from throwstack.files.at_hand import FilesAtHand
from throwstack.pages.process_coverage import ProcessCoverage, Routes, readable, total

_MAX_TEXT = 4096


class DoctorVerdict(Enum):
    """How well `windows.unhandled` can work on the dump; the value is the command's exit code."""

    SERVES = 0
    DOES_NOT_SERVE = 2
    IN_PART = 3


@dataclass(slots=True)
class DoctorReport:
    """All findings about a file; a finding that does not apply is None or empty."""

    path: str
    size: int
    identity: Identity
    extent: Extent | None = None
    kernel: Kernel | None = None
    symbols: str | None = None
    """The URL of the kernel's ISF file, if it is at hand."""
    processes: list[ProcessCoverage] = field(default_factory=list)
    store_problems: tuple[str, ...] = ()
    """Why pages in the compressed store cannot be read."""
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    verdict: DoctorVerdict = DoctorVerdict.DOES_NOT_SERVE
    files: FilesAtHand = field(default_factory=FilesAtHand)
    """The files that were given with it, which the commands of `advice` repeat."""

    @property
    def commands(self) -> NextCommands:
        """Return what writes the commands of `advice`."""
        return NextCommands(self.path, self.files)

    @property
    def is_cut_off(self) -> bool:
        """Say whether the file ends before the last page that the dump should hold."""
        return self.extent is not None and self.extent.missing > 0

    @property
    def needed_symbols(self) -> str | None:
        """Return the path of the kernel's ISF file, relative to a symbol directory."""
        return None if self.kernel is None else self.kernel.pdb.isf_path


def as_json(report: DoctorReport) -> dict[str, Any]:
    """Return the report as values that `json.dump` accepts. All keys are always present; values may be null.

    Every string is escaped, because it may come from the dump, except the path, which can be used to open the file.
    """
    return {**_escaped(_as_json(report)), "path": report.path}


def _as_json(report: DoctorReport) -> dict[str, Any]:
    header, kernel, extent = report.identity.header, report.kernel, report.extent
    return {
        "path": report.path,
        "size": report.size,
        "kind": report.identity.kind.name.lower(),
        "description": report.identity.text,
        "header": None
        if header is None
        else {
            "dump_type": header.dump_type,
            "is_64bit": header.is_64bit,
            "pae": header.has_pae,
            "build": header.version[1],
            "processors": header.processors,
            "directory_table_base": header.directory_base,
            "bug_check": header.bug_check,
            "bug_check_parameters": list(header.parameters),
            "system_time": _time(header.system_time),
            "up_time_seconds": None if header.up_time is None else header.up_time // 10_000_000,
        },
        "pages": None if extent is None else {"expected": extent.expected, "missing": extent.missing},
        "kernel": None
        if kernel is None
        else {"pdb": kernel.pdb.name, "guid": kernel.pdb.guid, "age": kernel.pdb.age, "base": kernel.base or None},
        "symbols": {"needed": report.needed_symbols, "found": report.symbols},
        "processes": [
            {
                "pid": process.pid,
                "name": process.name,
                "threads": process.threads,
                "stack_pages": _routes(process.stacks),
                "image_pages_sampled": _routes(process.images),
                "problems": list(process.problems),
            }
            for process in report.processes
        ],
        "problems": report.problems,
        "advice": report.advice,
        "verdict": report.verdict.name.lower(),
        "exit_code": report.verdict.value,
    }


def _escaped(value: Any) -> Any:  # noqa: ANN401 what JSON is made of
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return escape(value, _MAX_TEXT) if isinstance(value, str) else value


def as_text(report: DoctorReport) -> Iterator[str]:
    """Yield the report's lines, escaped."""
    return (escape(line, _MAX_TEXT) for line in _as_text(report))


def _as_text(report: DoctorReport) -> Iterator[str]:
    yield f"{escape(report.path)}: {report.identity.text}"
    yield f"  size             {report.size:,} bytes"
    yield from _header_lines(report)
    if report.extent is not None:
        yield f"  memory           {_megabytes(report.extent.expected)}, {_completeness(report.extent)}"
    if report.kernel is not None:
        pdb = report.kernel.pdb
        where = f" at {report.kernel.base:#x}" if report.kernel.base else ""
        yield f"  kernel           {escape(pdb.name)} {pdb.guid} age {pdb.age}{where}"
        found = report.symbols or f"not at hand: {escape(report.needed_symbols or '')}"
        yield f"  symbols          {found}"
    if report.processes:
        yield from _process_lines(report.processes)
    for problem in report.problems:
        yield f"  ! {problem}"
    words = {
        DoctorVerdict.SERVES: "this image can serve windows.unhandled",
        DoctorVerdict.IN_PART: "this image can serve windows.unhandled in part",
        DoctorVerdict.DOES_NOT_SERVE: "this image cannot serve windows.unhandled",
    }
    yield f"Verdict: {words[report.verdict]}"
    for advice in report.advice:
        yield f"  - {advice}"


def _header_lines(report: DoctorReport) -> Iterator[str]:
    header = report.identity.header
    if header is None:
        return
    yield f"  bug check        {header.bug_check:#x} ({', '.join(f'{value:#x}' for value in header.parameters)})"
    yield f"  system time      {_time(header.system_time) or 'not recorded'}"
    yield f"  processors       {header.processors}"
    yield f"  Windows build    {header.version[1]}"
    yield f"  page tables      {header.directory_base:#x} ({'ARM64' if header.is_arm64 else header.paging.name})"


def _process_lines(processes: list[ProcessCoverage]) -> Iterator[str]:
    threads = sum(process.threads for process in processes)
    yield f"  processes        {len(processes)} with {threads} threads"
    stacks, images = total(one.stacks for one in processes), total(one.images for one in processes)
    for routes, title, note in ((stacks, "stack pages", ""), (images, "image pages", " (sampled)")):
        have, of = readable(routes)
        share = f"{have / of:.1%} of {of:,} readable" if of else "none"
        yield f"  {title:<17}{share}{note if of else ''}"
        for origin, count in sorted(routes.items(), key=lambda item: -item[1]):
            yield f"      {count:>9,}  {'' if origin.is_present else 'missing: '}{origin.value}"
    for process in processes:
        have, of = readable(process.stacks)
        if have < of or process.problems:
            notes = [f"{of - have} of {of} stack pages missing"] if have < of else []
            notes += process.problems
            yield f"    {escape(process.name)} ({process.pid}): {'; '.join(notes)}"


def _routes(routes: Routes) -> dict[str, Any]:
    have, of = readable(routes)
    return {"total": of, "readable": have, "routes": {origin.name.lower(): count for origin, count in routes.items()}}


def _completeness(extent: Extent) -> str:
    if not extent.missing:
        return "complete"
    return f"{_megabytes(extent.missing)} ({extent.missing_share:.1%}) after the end of the file: truncated"


def _megabytes(pages: int) -> str:
    return f"{pages * PAGE_SIZE / (1 << 20):,.1f} MiB"


def _time(filetime: int | None) -> str | None:
    time = None if filetime is None else time_of(filetime)
    return None if time is None else time.isoformat()
