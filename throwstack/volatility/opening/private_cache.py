# SPDX-License-Identifier: Apache-2.0
"""Gives Volatility a directory for the files that it keeps from run to run, other than the user's own.

Volatility keeps them in one directory for the whole process: an index of symbol files, and what it has unpacked. Runs
that share it delete entries of each other (`throwstack.volatility.opening.open_image` has an example).
"""

from __future__ import annotations

from pathlib import Path

from volatility3.framework import constants


def keep_files_in(directory: Path) -> None:
    """Let Volatility use `directory`, which is made if it does not exist, until this process ends."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    constants.CACHE_PATH = str(directory)
