# SPDX-License-Identifier: Apache-2.0
"""The directory of a user's caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from throwstack.files.user_cache import cache_directory


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    """A container can run under a user number that it has no user for."""

    def home() -> Path:
        raise RuntimeError

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="throwstack"):
        cache_directory().mkdir(parents=True)
