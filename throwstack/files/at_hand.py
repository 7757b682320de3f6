# SPDX-License-Identifier: Apache-2.0
"""The files that are given beside a dump, however they are given: on a command line or by a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilesAtHand:
    """What is given beside the dump.

    `symbols` are directories with ISF files. `symbol_path` and `image_path` are written as WinDbg takes them; None
    leaves them to the settings and the environment. `page_files` are in the order of their numbers. `is_offline`: no
    server is asked.
    """

    symbols: Sequence[Path] = ()
    symbol_path: str | None = None
    image_path: str | None = None
    page_files: Sequence[Path] = ()
    is_offline: bool = False
