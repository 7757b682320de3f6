# SPDX-License-Identifier: Apache-2.0
"""MemProcFS on the same dumps: its call stacks of the throwing threads, compared with the recorded frames.

It walks the stack that a thread is blocked on, from the trap frame; it has nothing that begins at a saved CONTEXT. The
frames that threw are on that stack too, outside the dispatch of the exception, if the walk gets that far.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.peers.memprocfs import Frame, PeerFailed, is_installed, memprocfs_stacks

_CUSTOMER = 0x20000000
"""The bit of exception codes that the system does not use for its own."""
_KINDS = {False: "the system (faults)", True: "the program (`throw`, `RaiseException`)"}


@dataclass
class Count:
    """Recorded frames whose ip, return address and rsp are known, and how many of them a walk has."""

    threads: int = 0
    frames: int = 0
    equal: int = 0
    whole: int = 0


def section(folders: Sequence[Path]) -> list[str]:
    """Return the section of the document: what MemProcFS makes of the x64 dumps."""
    lines = ["## MemProcFS on the same x64 dumps", ""]
    if not is_installed():
        return [*lines, "Not installed here (`pip install '.[peers]'`)."]
    counts, refused = {kind: Count() for kind in _KINDS}, Counter[str]()
    for folder in folders:
        try:
            stacks = memprocfs_stacks(folder / "MEMORY.DMP")
        except PeerFailed as reason:
            refused[str(reason)] += 1
            continue
        add(json.loads((folder / "truth.json").read_text(encoding="utf-8")), stacks, counts)
    opened = len(folders) - refused.total()
    version = metadata.version("memprocfs")
    lines.append(f"MemProcFS {version} (PyPI `memprocfs`) opened {opened} of {len(folders)} dumps, without symbols.")
    lines += [f"- {reason} ({count} times)" for reason, count in refused.most_common()]
    return [*lines, "", *_table(counts), "", *_EXPLANATION] if opened else lines


_EXPLANATION = """\
It walks the stack that a thread is blocked on. That of a fault leads through the machine frame of
KiUserExceptionDispatcher, where its walk ends; that of an exception raised by a call leads to the frames that threw by
return addresses alone. It has nothing that begins at a saved CONTEXT.

These dumps have what it needs beside what Volatility needs (`tests/forge/fuller_kernel.py`), and the stub that each
thread waits in is listed after ntdll's .pdata, since its walk can begin only in a function whose unwind data has no
codes (`tests/peers/listed_stubs.py`).
""".splitlines()


def _table(counts: dict[bool, Count]) -> list[str]:
    lines = ["| Exception raised by | Threads | Frames recorded | Equal | Whole stacks |", "|---|--:|--:|--:|--:|"]
    for kind, name in _KINDS.items():
        count = counts[kind]
        lines.append(f"| {name} | {count.threads} | {count.frames} | {count.equal} | {count.whole} |")
    return lines


def add(truth: dict[str, Any], stacks: dict[tuple[int, int], list[Frame]], counts: dict[bool, Count]) -> None:
    """Add a dump's stuck threads to the counts."""
    for stuck in truth["stuck"]:
        count = counts[bool(int(stuck["code"], 16) & _CUSTOMER)]
        recorded = [_frame(frame) for frame in stuck["frames"]]
        known = [frame for frame in recorded if frame is not None]
        found = set(stacks.get((stuck["pid"], stuck["tid"]), ()))
        equal = sum(frame in found for frame in known)
        count.threads += 1
        count.frames += len(known)
        count.equal += equal
        count.whole += equal == len(known)


def _frame(frame: dict[str, Any]) -> Frame | None:
    """Return a recorded frame of which everything is known, else None."""
    ip, return_address, sp = (frame[name] for name in ("ip", "return_address", "child_sp"))
    if ip is None or return_address is None or sp is None:
        return None
    return int(ip, 16), int(return_address, 16), int(sp, 16)
