# SPDX-License-Identifier: Apache-2.0
"""What is said of a minidump that was written, or of one that could not be. Values only; every text is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MinidumpReport:
    """A minidump: its file, its process, and what the dump is opened at.

    `path` is None if the minidump could not be written; `problem` says why. `arch` is that of the minidump (`x86`,
    `x64`). `tid` is the stuck thread, `title` its exception in words, and `signature` that of the crash; they are None
    and empty if there is none. `left_out` says what is not in the file, and `unknown`
    which registers.
    """

    pid: int
    process: str
    path: Path | None = None
    arch: str = ""
    tid: int | None = None
    title: str = ""
    signature: str = ""
    size: int = 0
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    problem: str = ""
