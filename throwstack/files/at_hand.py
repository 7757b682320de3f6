# SPDX-License-Identifier: Apache-2.0
"""The files that a user gives together with a dump, on a command line or in a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilesAtHand:
    """The files that are given together with the dump.

    `symbols` are directories with ISF files. `symbol_path` and `image_path` have WinDbg's syntax; if they are None, the
    settings and the environment give them. `page_files` are in the order of their numbers. `is_offline`: no server is
    asked.
    """

    symbols: Sequence[Path] = ()
    symbol_path: str | None = None
    image_path: str | None = None
    page_files: Sequence[Path] = ()
    is_offline: bool = False
