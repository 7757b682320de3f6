# SPDX-License-Identifier: Apache-2.0
"""Finds the directory of this user's caches on each system, and checks that only this user can write to it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def cache_directory() -> Path:
    """Return the directory for files that can be made again, which is `~/.cache/throwstack` on Linux.

    The directory need not exist. A user without a home, as in some containers, gets a path that cannot be created.
    Nothing is cached then.
    """
    try:
        return _base() / "throwstack"
    except RuntimeError:
        return Path(os.devnull) / "throwstack"


def make_private(cache: Path) -> None:
    """Make the directory `cache` unless it exists. Only this user may enter a directory made so. Raises `OSError`."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)


def distrust(cache: Path) -> str | None:
    """Return why files in the directory `cache` may be another user's, or None if they are not. Raises `OSError`.

    They may be another user's because `XDG_CACHE_HOME` can name a directory that everybody may write to, and `sudo`
    keeps the HOME of the user who called it. Files of root are trusted, because root can deceive this program without a
    cache, too. On Windows `%LOCALAPPDATA%` is private to its user anyway.
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
