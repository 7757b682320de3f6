# SPDX-License-Identifier: Apache-2.0
"""The files that a user gives together with a dump, on a command line or as arguments in a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilesAtHand:
    """The files that are given together with a dump.

    `symbols` are directories with ISF files. `symbol_path` and `image_path` have WinDbg's syntax; if one of them is
    None, the path comes from the settings or the environment. `page_files` are in the order of the numbers that Windows
    gives them. `is_offline`: no symbol server is used.
    """

    symbols: Sequence[Path] = ()
    symbol_path: str | None = None
    image_path: str | None = None
    page_files: Sequence[Path] = ()
    is_offline: bool = False
