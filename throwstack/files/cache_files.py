# SPDX-License-Identifier: Apache-2.0
"""Puts files into a cache that other users may write to. A file is written in a private directory and then renamed.

A symbol cache can be shared, so another user could replace a file between its check and its use. Therefore a file is
written and checked in a directory inside the cache that has an unpredictable name and that only this user may enter. It
is on the same file system as the target, so that the last step is a single rename.

Another user can also plant a link: `cache/app.pdb` could lead to the victim's home. So no file is written through a
link.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

SPARE = 16 << 20
"""How many bytes always stay free on a disk, because other programs break if it is full."""
_PREFIX = ".throwstack-"
_MODE = 0o775
"""The mode of new directories: not everybody may write to them, whatever the umask is.

Otherwise the cache would not be trusted.
"""
_LEFT_OVER = 6 * 3600.0
"""How many seconds old a private directory must be to be taken for one that a killed process left.

No download takes as long.
"""
_MAX_ENTRIES = 10_000


@contextmanager
def private_directory(cache: Path) -> Iterator[Path]:
    """Make a private directory in `cache`, and remove it with its contents at the end of the `with` block.

    `cache` is made if it does not exist. Old private directories, which killed processes left, are removed as well.
    Raises `OSError`.
    """
    cache.mkdir(_MODE, parents=True, exist_ok=True)
    _sweep(cache)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=cache))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Create the file `path`, which must not exist yet, and open it for writing.

    It is removed if the `with` block raises an exception.
    """
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            file.close()
            with suppress(OSError):
                path.unlink()
            raise


def put(made: Path, target: Path, cache: Path) -> None:
    """Rename the file `made` to `target`, a path below `cache`, and make the directories between the two.

    If `target` is a link, the link itself is replaced and not the file to which it points. Raises `OSError`, also if
    one of the directories between is a link or a file.
    """
    folder = cache
    for part in target.parent.relative_to(cache).parts:
        folder /= part
        with suppress(FileExistsError):
            folder.mkdir(_MODE)
        if not is_real_directory(folder):
            raise OSError(errno.ENOTDIR, f"{folder} is a link or a file")
    made.replace(target)


def is_real_directory(path: Path) -> bool:
    """Say whether `path` is a directory, and not a link or a junction to one. Raises `OSError`."""
    status = os.lstat(path)
    links = {getattr(stat, f"IO_REPARSE_TAG_{kind}", None) for kind in ("SYMLINK", "MOUNT_POINT")}
    return stat.S_ISDIR(status.st_mode) and (getattr(status, "st_reparse_tag", 0) or None) not in links - {None}


def free_space(directory: Path) -> int:
    """Return how many bytes can be written to the disk of `directory` so that `SPARE` stay free. Raises `OSError`."""
    return max(0, shutil.disk_usage(directory).free - SPARE)


def _sweep(cache: Path) -> None:
    """Remove private directories of this user in `cache` that are so old that a killed process must have left them."""
    own, now = _user(), time.time()
    with suppress(OSError), os.scandir(cache) as entries:
        for entry in islice(entries, _MAX_ENTRIES):
            if not entry.name.startswith(_PREFIX):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                is_own = own is None or status.st_uid == own
                if is_own and is_real_directory(Path(entry.path)) and now - status.st_mtime > _LEFT_OVER:
                    shutil.rmtree(entry.path, ignore_errors=True)


def _user() -> int | None:
    """Return the number of this user; None on Windows, which has no such numbers."""
    ask = getattr(os, "geteuid", None)
    return None if ask is None else int(ask())
