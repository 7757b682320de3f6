# SPDX-License-Identifier: Apache-2.0
"""Opens the dump of a command with the options that all commands share, under a progress bar."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from throwstack.cli.progress import progress_bar

if TYPE_CHECKING:
    from throwstack.volatility.dump import Dump


@contextmanager
def opened_dump(options: argparse.Namespace) -> Iterator[Dump]:
    """Open `options.dump` with what the options of all commands name; raises a `ThrowstackError` as `open` does."""
    from throwstack import open as open_dump  # noqa: PLC0415 imports volatility3, which may be missing

    with (
        progress_bar() as progress,
        open_dump(
            options.dump,
            symbols=options.symbols,
            symbol_path=options.symbol_path,
            image_path=options.image_path,
            page_files=options.page_file,
            offline=options.offline,
            progress=progress,
        ) as dump,
    ):
        yield dump
