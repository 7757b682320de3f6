# SPDX-License-Identifier: Apache-2.0
"""The text of a minidump's comment stream: what made it and from what, what else was thrown, what was guessed.

WinDbg shows it when it opens the dump, so that it is short lines, the most important first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from throwstack.minidump.dumped import DumpedProcess
from throwstack.report.crash_report import CrashReport

_MAX_THREADS = 32
"""The most threads that one line names."""


def comment_text(maker: str, origin: str, name: str, process: DumpedProcess, crashes: Sequence[CrashReport]) -> str:
    """Return the comment on a minidump of `process`, called `name`.

    `maker` is the program that makes it, and `origin` says of which image. `crashes` are the reports on the process's
    stuck threads; the minidump is opened at the first.
    """
    lines = [f"made by {maker} from {origin}", f"process {name} (PID {process.pid})"]
    for index, crash in enumerate(crashes):
        lines += _of_crash(crash, is_first=not index)
    if process.exception is None:
        lines.append("no exception stream: code of the other side of WoW64 threw, or nothing did")
    else:
        context = process.exception.context
        if context is not None and context.unknown:
            lines.append(f"registers at the throw that are not known: {', '.join(context.unknown)}")
        if context is not None and context.extended is not None:
            lines.append(f"extended state (AVX) at the throw is in memory: XSAVE area at {context.extended.start:#x}")
    lines += unknown_registers(process)
    return "".join(f"{line}\n" for line in lines)


def _of_crash(crash: CrashReport, *, is_first: bool) -> Iterator[str]:
    signature = f", signature {crash.signature}" if crash.signature is not None else ""
    which = "" if is_first else "another stuck thread: "
    yield f"{which}thread {crash.tid} {crash.verdict.text}{signature}"
    for number, exception in enumerate(crash.exceptions):
        also = "also " if number else ""
        place = f" at {exception.thrown_at}" if exception.thrown_at else ""
        yield f"  {also}{exception.title or f'{exception.code:#010x}'}{place} (found by {exception.found_by})"
    if is_first:
        yield from (f"  in doubt: {doubt}" for doubt in crash.doubts)
        yield from (f"  note: {note}" for note in crash.notes)


def unknown_registers(process: DumpedProcess) -> Iterator[str]:
    """Yield a line for each set of registers that threads lack, and for each reason why threads have none."""
    lacking = [
        ((", ".join(thread.context.unknown), ""), thread.tid)
        if thread.context is not None
        else (("", thread.problem or "not known"), thread.tid)
        for thread in process.threads
        if thread.context is None or thread.context.unknown
    ]
    for (names, reason), group in groupby(sorted(lacking), lambda pair: pair[0]):
        tids = [tid for _, tid in group]
        more = f" and {len(tids) - _MAX_THREADS} more" if len(tids) > _MAX_THREADS else ""
        which = f"{', '.join(map(str, tids[:_MAX_THREADS]))}{more}"
        yield (
            f"not known, zero or left out: {names} of threads {which}"
            if names
            else f"no registers of threads {which}: {reason}"
        )
