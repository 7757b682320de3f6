# SPDX-License-Identifier: Apache-2.0
"""Where this user's caches are kept, by each system's own convention."""

from __future__ import annotations

import os
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


def _base() -> Path:
    platform: str = sys.platform  # a plain string: a type checker of one platform would call the others unreachable
    if platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
