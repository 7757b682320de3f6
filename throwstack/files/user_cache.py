# SPDX-License-Identifier: Apache-2.0
"""The directory of this user's caches, by the convention of each system, and whether only this user can write to it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def cache_directory() -> Path:
    """Return the directory for files that can be made again, `~/.cache/throwstack` on Linux. It need not exist.

    A user without a home, as in some containers, gets a path that cannot be created: nothing is cached then.
    """
    try:
        return _base() / "throwstack"
    except RuntimeError:
        return Path(os.devnull) / "throwstack"


def make_private(cache: Path) -> None:
    """Make the directory `cache`, which only this user may enter, unless it exists. Raises `OSError`."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)


def distrust(cache: Path) -> str | None:
    """Return why files in the directory `cache` may be another user's, or None if they are not. Raises `OSError`.

    It happens: `XDG_CACHE_HOME` can name a directory that everybody may write to, and `sudo` keeps the HOME of the user
    who called it. Files of root are trusted, as root needs no cache to deceive us. On Windows `%LOCALAPPDATA%` is
    private to its user anyway.
    """
    status = cache.stat()
    if not hasattr(os, "geteuid"):
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    return "everybody may write to it" if status.st_mode & stat.S_IWOTH else None


def _base() -> Path:
    platform: str = sys.platform  # declared as str, or mypy takes the branches of other systems for unreachable
    if platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
