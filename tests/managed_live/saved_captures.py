# SPDX-License-Identifier: Apache-2.0
"""Keeps a captured process in a file, a third of its size: some 20 MB."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

from tests.live.capture import Capture

NAME = "capture.gz"


def save(capture: Capture, folder: Path) -> None:
    """Write a capture into a fixture's directory."""
    with gzip.open(folder / NAME, "wb", compresslevel=1) as file:
        pickle.dump(capture, file, pickle.HIGHEST_PROTOCOL)


def load(folder: Path) -> Capture:
    """Return the capture in a fixture's directory: one of our own, pickle trusts what it reads."""
    with gzip.open(folder / NAME, "rb") as file:
        captured = pickle.load(file)
    assert isinstance(captured, Capture)
    return captured
