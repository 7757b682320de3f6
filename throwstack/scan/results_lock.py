# SPDX-License-Identifier: Apache-2.0
"""Lets one scan at a time write to a directory of results.

A second one would remove files that the first is about to rename, and both would examine the same dumps. The lock is
the system's, on the file `.lock`. It ends with the process that has it, however that ends; the file stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from throwstack.core.errors import ThrowstackError
from throwstack.scan.part_store import StorageFailed

_LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""How systems say that somebody else has a lock."""


class ResultsInUse(ThrowstackError):
    """Another scan writes to the directory."""


@contextlib.contextmanager
def results_lock(out: Path) -> Iterator[None]:
    """Keep other scans from `out`, which is made if it is absent. Raises ResultsInUse, or StorageFailed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        message = f"{out}: {error.strerror or error}"
        raise StorageFailed(message) from error
    try:
        _lock(handle, out)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 on Windows only

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 not on Windows

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            message = f"{out}: another scan is writing its results there"
            raise ResultsInUse(message) from error
        # Some network file systems have no locks. Scans go on without one there.
