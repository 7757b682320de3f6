# SPDX-License-Identifier: Apache-2.0
"""How files get into a cache: made in a private directory inside it, checked there, then renamed into place.

Others may write to a symbol cache as well: that is what a shared one is for. A file that is still being written is
therefore in a directory whose name nobody can guess and which only this user may enter, on the file system of the
cache, so that the last step is one rename. Directories below the cache may be links that someone planted: nothing is
written through one.
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
"""Bytes that are left free on a disk: whoever fills it up entirely breaks other programs."""
_PREFIX = ".throwstack-"
_MODE = 0o775
"""Directories are never made for everybody to write to, whatever the umask: such a cache would not be trusted."""
_LEFT_OVER = 6 * 3600.0
"""Seconds after which a private directory is nobody's: no download and no conversion may take as long."""
_MAX_ENTRIES = 10_000


@contextmanager
def private_directory(cache: Path) -> Iterator[Path]:
    """Make a directory of this process inside `cache`, which is made too; remove it, with all in it, on every way out.

    What a process that was killed left there is removed by a later one. Raises `OSError`.
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
    """Open a file for writing that must not be there yet; remove it again if what is done with it raises."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            file.close()
            with suppress(OSError):
                path.unlink()
            raise


def put(made: Path, target: Path, cache: Path) -> None:
    """Rename `made` to `target`, which is below `cache`. Raises `OSError`, also where a link or a file is in the way.

    A link called `target` is replaced: what it leads to stays as it is.
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
    """Say whether `path` is a directory itself, not a link or a junction that leads to one. Raises `OSError`."""
    status = os.lstat(path)
    links = {getattr(stat, f"IO_REPARSE_TAG_{kind}", None) for kind in ("SYMLINK", "MOUNT_POINT")}
    return stat.S_ISDIR(status.st_mode) and (getattr(status, "st_reparse_tag", 0) or None) not in links - {None}


def free_space(directory: Path) -> int:
    """Return how many bytes may be written into `directory`; `SPARE` is left. Raises `OSError`."""
    return max(0, shutil.disk_usage(directory).free - SPARE)


def _sweep(cache: Path) -> None:
    """Remove old private directories of this user."""
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
    """Return this user's number, or None on a system that has none (Windows)."""
    ask = getattr(os, "geteuid", None)
    return None if ask is None else int(ask())
