# SPDX-License-Identifier: Apache-2.0
"""Writes docs/agreement.md: how far the plugins' stacks agree with what the crashed programs recorded.

    python -m tests.live.agreement [--work DIR] [--out FILE]     (`make agreement`)

Takes the fixtures that are there, runs the plugins on them, and MemProcFS beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.live import memprocfs_peer
from tests.live.build import X64_BUILDS, X86_BUILDS
from tests.live.check import Checked, check_all, compared, fixture_folders
from tests.live.fixtures import fixtures
from tests.managed_live import managed_table
from tests.minidump_peers import walker_table
from tests.recall import table as recall_table
from tests.support.document_sections import section_in

HEADINGS = (
    "Arch", "Compiler", "PDB", "Dumps", "Threads", "Contexts found", "False rows", "Frames in truth", "Equal", "Wrong",
    "Not found", "Names right", "Lines right",
)  # fmt: skip
RECURSIVE = ("-overflow", "-probe")
ARCHES = ("x64", "x86", "wow64")

HEAD = """# Agreement with recorded stacks

Made by `make agreement`; do not edit.

Programs that crash for real (`tests/live/programs`) run under Wine, and each keeps a shadow stack of its own: for every
call the return address, the stack slot that holds it, and the function. No unwinder produces an expectation. The
blocked processes are captured, wrapped into complete dumps, and looked at with `windows.unhandled` and
`windows.cxrstack`, opened by Volatility's ordinary automagic; threads that only wait, and noted their stack, with
`windows.stackwalk`. A frame is equal when instruction pointer, return address and Child-SP are. Frames of Wine's own
DLLs are not judged, except where the program knows them (what it called, and where it was called back from).

- *Threads*: stuck on an unhandled exception, or in `CorExitProcess` without one. Every dump also has threads that must
  yield no row: waiting ones, ones that handled an exception (record and CONTEXT still on the stack), one that holds
  addresses of `UnhandledExceptionFilter` in a local array.
- *PDB*: `-` where the compiler writes none, `no` where it is withheld.
- *Wrong*: rows that claim a frame of the judged part and match none. *Not found*: frames in the truth without a row.
- *Names right*: frames of the programs' own functions that bear the function's name.
- *Lines right*: calls in the programs' own functions with the line on which the source makes them.
"""


def table(checked: Iterable[Checked]) -> list[str]:
    """Return the table, one line for each architecture, compiler and kind of symbols."""
    groups: dict[tuple[str, str, str], list[Checked]] = {}
    for one in checked:
        symbols = "yes" if one.with_pdb else "no" if (one.folder / "pdb").exists() else "-"
        groups.setdefault((one.arch, one.compiler, symbols), []).append(one)
    order = [build.label for build in (*X64_BUILDS, *X86_BUILDS)]
    lines = [_line(HEADINGS), _line(["---"] * 3 + ["--:"] * (len(HEADINGS) - 3))]
    keys = sorted(groups, key=lambda key: (ARCHES.index(key[0]), order.index(key[1]), key[2]))
    lines += [_line([*key, *_figures(groups[key])]) for key in keys]
    for arch in ARCHES:
        for with_pdb in (False, True):
            group = [one for key in groups for one in groups[key] if one.arch == arch and one.with_pdb is with_pdb]
            if group:
                title = "with PDB" if with_pdb else "without PDB"
                lines.append(_line([f"**{arch}**", "all", title, *_figures(group)]))
    return lines


def _figures(group: Sequence[Checked]) -> list[str]:
    results = [one.result for one in group]
    stacks = [stack for result in results for stack in result.stacks]
    frames, equal = sum(r.frames for r in results), sum(r.equal for r in results)
    names = sum(stack.names for stack in stacks)
    lines = sum(stack.lines for stack in stacks)
    percent = f" ({100 * equal / frames:.1f} %)" if frames else ""
    return [
        str(len(group)),
        str(sum(r.threads for r in results)),
        f"{sum(r.contexts_found for r in results)} of {sum(r.contexts for r in results)}",
        str(sum(len(r.false_rows) for r in results)),
        str(frames),
        f"{equal}{percent}",
        str(sum(len(r.wrong) for r in results)),
        str(sum(len(stack.missing) for stack in stacks)),
        f"{names - sum(len(stack.wrong_names) for stack in stacks)} of {names}" if names else "-",
        f"{lines - sum(len(stack.wrong_lines) for stack in stacks)} of {lines}" if lines else "-",
    ]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def details(checked: Sequence[Checked]) -> list[str]:
    """Return what is behind the figures: problems, labels of wrong frames, early ends."""
    problems = [f"- {c.result.case}: {p}" for c in checked for p in (*c.result.problems, *c.result.false_rows)]
    labels = Counter(row["Trust"] for c in checked for row in c.result.wrong)
    ends = Counter(
        stack.ends.partition(" 0x")[0].rstrip(":") for c in checked for stack in c.result.stacks if stack.ends
    )
    frames = sum(c.result.frames for c in checked)
    recursive = sum(c.result.frames for c in checked if c.result.case.endswith(RECURSIVE))
    return [
        "## Behind the figures",
        "",
        f"Of the {frames} frames, {recursive} belong to stacks that overflowed: one function calling itself.",
        "",
        "Labels (`Trust`) of the wrong frames: " + (_counted(labels) or "there are none") + ".",
        "",
        "Stacks that end before their outermost recorded frame, and why: " + (_counted(ends) or "there are none") + ".",
        "",
        *(problems or ["Every stuck thread has its one row with the right record and CONTEXT."]),
    ]


def values(checked: Sequence[Checked]) -> list[str]:
    """Return what is shown of the values of variables that programs noted of themselves."""
    lines = [
        *("## Values of variables", ""),
        "`values.exe` notes the values of parameters and locals before it calls on. With its PDB, what a report shows",
        "of them is compared with that. What is not shown has a reason: optimised out, in a register that a call may",
        "change, not at this address.",
        "",
        _line(("Arch", "Compiler", "Values noted", "Shown", "Parameters noted", "Shown", "Wrong")),
        _line(["---"] * 2 + ["--:"] * 5),
    ]
    for one in checked:
        if one.values is not None:
            found = one.values
            figures = (found.noted, found.shown, found.parameters, found.parameters_shown, len(found.wrong))
            lines.append(_line([one.arch, one.compiler, *map(str, figures)]))
    return lines


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} times {name or '(not said)'}" for name, count in counter.most_common())


def coverage() -> list[str]:
    """Return what the set consists of."""
    runs = fixtures()
    scenarios: dict[str, list[str]] = {}
    for fixture in runs:
        scenarios.setdefault(fixture.scenario, []).append(f"{fixture.arch} {fixture.build.label}")
    lines = ["## The set", "", f"{len(runs)} processes:", "", "| Scenario | Run as |", "|---|---|"]
    return [*lines, *(_line([name, ", ".join(where)]) for name, where in scenarios.items())]


def main() -> int:
    """Write the document."""
    parser = argparse.ArgumentParser(prog="tests.live.agreement", description="Writes docs/agreement.md.")
    parser.add_argument("--work", type=Path, default=Path(".live"))
    parser.add_argument("--out", type=Path, default=Path("docs/agreement.md"))
    parser.add_argument("--reuse", action="store_true", help="take the rows of the last run instead of running again")
    options = parser.parse_args()
    folders = fixture_folders(options.work / "out")
    not_made = {fixture.name for fixture in fixtures()} - {folder.name for folder in folders}
    if not_made:
        sys.stderr.write(f"not made, which make test-live does: {', '.join(sorted(not_made))}\n")
        return 1
    if options.reuse:
        checked = [one for folder in folders for one in compared(folder)]
    else:
        checked = list(check_all(options.work / "out"))
    peer = memprocfs_peer.section([folder for folder in folders if folder.name.startswith("x64-")])
    parts = [HEAD, *table(checked), "", *details(checked), "", *values(checked), "", *peer, "", *coverage(), ""]
    options.out.parent.mkdir(exist_ok=True)
    # Other commands made them.
    before = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    kept = [
        section_in(before, title).rstrip("\n")
        for title in (managed_table.TITLE, recall_table.TITLE, walker_table.TITLE)
    ]
    options.out.write_text("\n".join([*parts, *(f"{section}\n" for section in kept if section)]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
