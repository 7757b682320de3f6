# SPDX-License-Identifier: Apache-2.0
"""Compares what the plugins print with the truth that the programs kept.

A truth frame is equal to a row when everything known of it is: ip, return address, Child-SP. Rows are matched in
order. Where the truth has a gap (code that keeps no shadow stack), rows in the gap are nobody's; a row elsewhere that
matches no truth frame is wrong. Rows beyond the outermost truth frame (the system's thread start) are not judged.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

INLINE = "inline"
_COLUMNS = {"ip": "IP", "child_sp": "Child-SP", "return_address": "RetAddr"}

BLOCKED_STACK = "blocked stack"
"""How `windows.cxrstack` labels the stack of a thread that is stuck without an exception."""
IN_TOP_FILTER = "fault_in_top_filter"
"""The programs' filter that faults. It was called for an earlier exception, which is the cause and names the row."""


@dataclass
class StackResult:
    """One throwing stack: how many truth frames there are, and how the rows bear them out."""

    where: str
    frames: int
    equal: int
    missing: list[dict[str, Any]]
    wrong: list[Row]
    names: int = 0
    wrong_names: list[str] = field(default_factory=list)
    lines: int = 0
    wrong_lines: list[str] = field(default_factory=list)
    ends: str = ""
    """Why the stack ended before its outermost truth frame."""


@dataclass
class Result:
    """A dump's comparison."""

    case: str
    threads: int
    contexts: int
    contexts_found: int
    problems: list[str] = field(default_factory=list)
    """What is wrong with the rows of `windows.unhandled`: missing ones and ones with a wrong figure."""
    false_rows: list[str] = field(default_factory=list)
    stacks: list[StackResult] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Return the number of frames in the truth."""
        return sum(stack.frames for stack in self.stacks)

    @property
    def equal(self) -> int:
        """Return the number of frames found equal."""
        return sum(stack.equal for stack in self.stacks)

    @property
    def wrong(self) -> list[Row]:
        """Return the wrong rows."""
        return [row for stack in self.stacks for row in stack.wrong]


def compare(
    truth: dict[str, Any],
    unhandled: Sequence[Row],
    stacks: Sequence[Row],
    walks: Sequence[Row] = (),
    *,
    has_names: bool,
) -> Result:
    """Compare the rows of `windows.unhandled`, `windows.cxrstack` and `windows.stackwalk` with a dump's truth."""
    expected = [e for stuck in truth["stuck"] for e in (stuck, *stuck["nested"])]
    result = Result(truth["case"], len(truth["stuck"]) + len(truth["shutting_down"]), len(expected), 0)
    _compare_threads(truth, unhandled, result)
    walked: dict[tuple[int, int], list[Row]] = {}
    known = {(e["tid"], int(e["context"], 16)) for e in expected}
    for tid, context, found in split_stacks(stacks):
        if not context and tid in truth["shutting_down"] and BLOCKED_STACK in found[0]["Notes"]:
            continue  # without an exception, the stack on which the thread waits is shown
        if (tid, context) not in known or (tid, context) in walked:
            result.false_rows.append(f"thread {tid}: a stack from context {context:#x}")
        walked.setdefault((tid, context), found)
    for exception in expected:
        context = int(exception["context"], 16)
        rows = walked.get((exception["tid"], context))
        if rows is not None:
            result.contexts_found += 1
        else:
            result.problems.append(f"thread {exception['tid']}: context {context:#x} was not found")
        where = f"{truth['case']} thread {exception['tid']}"
        result.stacks.append(compare_stack(where, exception["frames"], rows or [], has_names=has_names))
    for thread in truth["walked"]:
        threads = [row for row in walks if row["TID"] == thread["tid"]]
        rows = [frame for row in threads for frame in row["__children"] if is_user_frame(frame)]
        where = f"{truth['case']} thread {thread['tid']}, which waits"
        result.stacks.append(compare_stack(where, thread["frames"], rows, has_names=has_names))
    return result


def is_user_frame(row: Row) -> bool:
    """Say whether a frame of `windows.stackwalk`, below its thread's row, is one in user mode and not inlined."""
    return row["Side"] != "kernel" and row["Trust"] != INLINE


def _compare_threads(truth: dict[str, Any], unhandled: Sequence[Row], result: Result) -> None:
    by_tid: dict[int, list[Row]] = {}
    for row in unhandled:
        by_tid.setdefault(row["TID"], []).append(row)
    for stuck in truth["stuck"]:
        rows = by_tid.pop(stuck["tid"], [])
        if len(rows) != 1:
            result.problems.append(f"thread {stuck['tid']}: {len(rows)} rows")
        is_in_filter = bool(stuck["nested"]) and stuck["frames"][0]["function"] == IN_TOP_FILTER
        cause = stuck["nested"][0] if is_in_filter else stuck
        wanted = {
            "PID": stuck["pid"],
            "Process": stuck["process"],
            "Arch": stuck["arch"],
            "Code": int(cause["code"], 16),
            "Address": int(cause["address"], 16),
            "Record": int(cause["record"], 16),
            "Context": int(cause["context"], 16),
        }
        for row in rows:
            result.problems += [
                f"thread {stuck['tid']}: {column} is {_show(row[column])}, not {_show(value)}"
                for column, value in wanted.items()
                if row[column] != value
            ]
    for tid in truth["shutting_down"]:
        rows = by_tid.pop(tid, [])
        if len(rows) != 1 or "CorExitProcess" not in rows[0]["Blocked In"]:
            result.problems.append(f"thread {tid}: not seen in CorExitProcess")
        elif rows[0]["Code"] is not None:
            result.problems.append(f"thread {tid}: an exception was invented")
    for tid, rows in by_tid.items():
        result.false_rows += [
            f"thread {tid} ({truth['roles'].get(str(tid), '?')}): {row['Blocked In']}" for row in rows
        ]


def split_stacks(rows: Sequence[Row]) -> list[tuple[int, int, list[Row]]]:
    """Split the rows of `windows.cxrstack` into stacks: (TID, context, rows without inline frames)."""
    stacks: list[tuple[int, int, list[Row]]] = []
    for row in rows:
        if row["Frame"] == 0:
            match = re.search(r"context (0x[0-9a-f]+)", row["Notes"] or "")
            stacks.append((row["TID"], int(match[1], 16) if match else 0, []))
        if row["Trust"] != INLINE:
            stacks[-1][2].append(row)
    return stacks


def compare_stack(where: str, frames: Sequence[dict[str, Any]], rows: Sequence[Row], *, has_names: bool) -> StackResult:
    """Compare one stack."""
    result = StackResult(where, len(frames), 0, [], [])
    own = {label_of(frame["module"]) for frame in frames if frame["is_program"] and frame["module"]}
    position, is_in_gap = 0, False
    for frame in frames:
        is_in_gap |= frame["follows_gap"]
        first = position - 1 if frame["follows_gap"] and frame["ip"] is None and position else position
        index = next((i for i in range(first, len(rows)) if is_equal(frame, rows[i])), None)
        if index is None:
            result.missing.append(frame)
            continue
        result.wrong += _judged(rows[position:index], own if is_in_gap else None)
        result.equal += 1
        position, is_in_gap = index + 1, False
        if has_names and frame["is_program"] and frame["ip"] is not None:
            result.names += 1
            if function_of(rows[index]["Call Site"]) != frame["function"]:
                result.wrong_names.append(f"{describe_row(rows[index])}: this is {frame['function']}")
            # Of a frame that faulted the program noted the line on which the function began.
            has_faulted = rows[index]["Trust"] == "context" or frame["follows_gap"]
            if not has_faulted and frame.get("line"):
                result.lines += 1
                found = line_of(rows[index]["Source"])
                if found != frame["line"]:
                    result.wrong_lines.append(f"{describe_row(rows[index])}: line {found}, not {frame['line']}")
    if result.missing:
        if frames[-1] in result.missing:
            claimed = rows[position : position + len(result.missing)]
            result.wrong += _judged(claimed, own if is_in_gap else None)
        last = rows[-1]["Notes"] if rows else "no stack"
        result.ends = last.partition("stack ends here: ")[2]
    return result


def _judged(rows: Sequence[Row], only: set[str] | None) -> list[Row]:
    """Return the rows that match nothing and should; in a gap only those in the program's `only` modules."""
    return [row for row in rows if only is None or label_of(row["Call Site"]) in only]


def label_of(text: str) -> str:
    """Return the module's label of a call site (`crash!fault_read+0x1`, `crash+0x10`) or file name (`crash.exe`)."""
    return re.split(r"[!+.]", text)[0].lower()


def is_equal(frame: dict[str, Any], row: Row) -> bool:
    """Say whether a row has everything that is known of a truth frame."""
    known = {column: frame[key] for key, column in _COLUMNS.items() if frame[key] is not None}
    return all(row[column] == int(value, 16) for column, value in known.items())


def function_of(call_site: str) -> str:
    """Return a call site's bare function name: `throw!store::Shelf::take+0x31` is `take`."""
    symbol = call_site.partition("!")[2].partition("+0x")[0]
    return symbol.partition("(")[0].rpartition("::")[2] or symbol


def line_of(source: str | None) -> int | None:
    """Return the line in `[d:\\src\\file.c @ 44]`, or None."""
    match = re.search(r"@ (\d+)\]?$", source or "")
    return int(match[1]) if match else None


def describe(frame: dict[str, Any]) -> str:
    """Return a truth frame in a line."""
    return f"{frame['function'] or '?'} " + " ".join(f"{key} {frame[key]}" for key in _COLUMNS)


def describe_row(row: Row) -> str:
    """Return a row in a line."""
    values = " ".join(f"{key} {_show(row[column])}" for key, column in _COLUMNS.items())
    return f"frame {row['Frame']} {row['Call Site']} {values} ({row['Trust']})"


def _show(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


def report(results: Iterable[Result], tolerated: Container[str] = ()) -> list[str]:
    """Return, in lines, everything that is not as it should be. Wrong rows with a label of `tolerated` are left out."""
    lines = []
    for result in results:
        lines += [f"{result.case}: {problem}" for problem in result.problems]
        lines += [f"{result.case}: false row: {row}" for row in result.false_rows]
        for stack in result.stacks:
            lines += [f"{stack.where}: missing: {describe(frame)}" for frame in stack.missing]
            wrong = [row for row in stack.wrong if row["Trust"] not in tolerated]
            lines += [f"{stack.where}: wrong: {describe_row(row)}" for row in wrong]
            lines += [f"{stack.where}: {text}" for text in (*stack.wrong_names, *stack.wrong_lines)]
            if stack.ends:
                lines.append(f"{stack.where}: ends: {stack.ends}")
    return lines
