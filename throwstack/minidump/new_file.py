# SPDX-License-Identifier: Apache-2.0
"""Names and opens the file of a minidump: `PROCESS-PID-SIGNATUREHASH.dmp`, always new, readable by its owner only.

The process's name is from the dump and may be anything: only ASCII letters, digits, `_`, `.` and `-` of it are taken,
so that the name is one on every system and leads into no other directory. If there is a file of that name already, a
number is added: `ftpsvc.exe-2564-3f2a9c01-2.dmp`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

_NOT_PORTABLE = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_STEM = 40
_MAX_NUMBER = 1000
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
"""Names that Windows takes for devices, with any extension."""


def minidump_name(process: str, pid: int, digest: str = "") -> str:
    """Return the name of the file, without the extension."""
    stem = _NOT_PORTABLE.sub("_", process)[:_MAX_STEM].lstrip(".-") or "process"
    if _RESERVED.match(stem):
        stem = f"_{stem}"
    hash_part = _NOT_PORTABLE.sub("", digest)[:_MAX_STEM]
    return "-".join(filter(None, (stem, str(pid), hash_part)))


def open_new(directory: Path, name: str) -> tuple[Path, BinaryIO]:
    """Create the file `name`.dmp in `directory`, or one with a number if it exists; raises OSError.

    A link of that name counts as a file, and is not followed.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    for number in range(1, _MAX_NUMBER):
        path = directory / f"{name}{'' if number == 1 else f'-{number}'}.dmp"
        try:
            return path, os.fdopen(os.open(path, flags, 0o600), "w+b")
        except FileExistsError:
            continue
    message = f"{directory} has {_MAX_NUMBER - 1} minidumps of this name"
    raise FileExistsError(message)
