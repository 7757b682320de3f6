# SPDX-License-Identifier: Apache-2.0
"""Data beside the checkout that tests use when it is there: `../shared`, or what THROWSTACK_SHARED names."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("THROWSTACK_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def isf_files() -> list[Path]:
    """Return all ISFs of Windows kernels there are, with symbols and without; none when the data is not there."""
    return sorted([*SHARED.glob("isf/windows/*/*.json.xz"), *SHARED.glob("layouts/*.json.xz")])


def shared() -> Path | None:
    """Return the directory with real kernels' ISF files, or None when it is not there."""
    return SHARED if (SHARED / "isf").is_dir() else None
