# SPDX-License-Identifier: Apache-2.0
"""Where this user's caches are kept, by each system's own convention, and whether they are this user's alone."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def cache_directory() -> Path:
    """Return the directory for what can be made again (it need not exist): `~/.cache/throwstack` and its like.

    For a user who has no home, as in some containers, it is one that cannot be made.
    """
    try:
        return _base() / "throwstack"
    except RuntimeError:
        return Path(os.devnull) / "throwstack"


def make_private(cache: Path) -> None:
    """Make the directory of a user's cache, for this user alone, unless it is there. Raises `OSError`."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)


def distrust(cache: Path) -> str | None:
    """Return why what is in the directory `cache` may be another user's work, or None. Raises `OSError`.

    `XDG_CACHE_HOME` may name a directory for everybody, and `sudo` keeps the home of the user before. What root made
    counts as one's own: root needs no cache to deceive us. Windows keeps `%LOCALAPPDATA%` to its user by itself.
    """
    status = cache.stat()
    if not hasattr(os, "geteuid"):
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    return "everybody may write to it" if status.st_mode & stat.S_IWOTH else None


def _base() -> Path:
    platform: str = sys.platform  # a plain string: a type checker of one platform would call the others unreachable
    if platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
