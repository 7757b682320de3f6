# SPDX-License-Identifier: Apache-2.0
"""What the .NET runtimes in a dump look like, as JSON and as text that can be attached to a report of a bug.

It has offsets, counts, versions and kinds of words. It has no contents of the dump: no strings, no addresses, no paths;
of names only those of the runtime's own file and its PDB. What cannot be examined is said in the same way:
`throwstack doctor` without `--dotnet` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from throwstack import __version__
from throwstack.core.text import escape
from throwstack.crashdump.dump_file import DumpFile, look_at
from throwstack.files.at_hand import FilesAtHand
from throwstack.managed.structure_map import LEGEND
from throwstack.managed.structure_summary import without_data
from throwstack.volatility.dotnet_structures import DotnetProcess, dotnet_structures

_MAX_PROBLEMS = 32


@dataclass(slots=True)
class DotnetReport:
    """The runtimes of a dump, and what could not be examined. `is_examined`: the dump could be opened."""

    build: int = 0
    processes: list[DotnetProcess] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_examined: bool = False


def examine_dotnet(path: Path, files: FilesAtHand, say: Callable[[str], None]) -> DotnetReport:
    """Return what the runtimes in the dump at `path` look like; raises OSError if it cannot be opened.

    `files` are the symbol, image and page files that the user gave. `say` is called with a text during long steps.
    """
    dump = look_at(path, say)
    header = dump.identity.header
    report = DotnetReport(0 if header is None else header.version[1], problems=[*map(without_data, dump.problems)])
    if dump.kernel is None:
        report.problems.append("no kernel was found in it")
    else:
        _measure(dump, files, report)
    return report


def _measure(dump: DumpFile, files: FilesAtHand, report: DotnetReport) -> None:
    from throwstack.volatility import open_machine  # noqa: PLC0415
    from throwstack.volatility.opening import open_image  # noqa: PLC0415

    try:
        with open_image.symbol_directories(files.symbols):
            isf = open_machine.isf_of(dump, files)
            if isf is None:
                report.problems.append("the kernel's symbols are not at hand")
                return
            machine = open_machine.open_machine(dump, isf, files)
            with open_machine.examination():
                report.processes.extend(dotnet_structures(machine, report.problems))
                report.is_examined = True
    except (open_image.BadSymbols, open_image.CannotOpen) as error:
        report.problems.append(without_data(str(error)))


def as_json(report: DotnetReport) -> dict[str, Any]:
    """Return the report as values that `json.dump` accepts."""
    return {
        "throwstack": __version__,
        "windows_build": report.build,
        "processes": [
            {
                "pid": process.pid,
                "side": process.side.value,
                "reason": escape(process.reason),
                "runtime": None if process.summary is None else _shown(asdict(process.summary)),
            }
            for process in report.processes
        ],
        "letters": LEGEND,
        "problems": [escape(problem) for problem in report.problems[:_MAX_PROBLEMS]],
    }


def _shown(value: Any) -> Any:  # noqa: ANN401 what JSON is made of
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def as_text(report: DotnetReport) -> Iterator[str]:
    """Yield the report's lines, escaped."""
    yield f"throwstack {__version__}, Windows build {report.build}"
    for process in report.processes:
        yield f"process {process.pid}, {process.side.value}"
        if process.summary is None:
            yield f"  {escape(process.reason)}"
            continue
        yield from (f"  {escape(line)}" for line in process.summary.lines())
    if not report.processes:
        yield "no process with a .NET runtime"
    else:
        yield "letters: " + "; ".join(f"{letter} {meaning}" for letter, meaning in LEGEND.items())
    for problem in report.problems[:_MAX_PROBLEMS]:
        yield f"  ! {escape(problem)}"
