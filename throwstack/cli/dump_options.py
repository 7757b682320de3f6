# SPDX-License-Identifier: Apache-2.0
"""The options that every command which opens a dump has, and how their texts are read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from throwstack.cli import console
from throwstack.core import identifiers
from throwstack.core.text import escape
from throwstack.files.at_hand import FilesAtHand


def add_dump_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where symbols, images and page files are."""
    parser.add_argument(
        "-s",
        "--symbols",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a directory with ISF files, such as the kernel's symbols; may be repeated",
    )
    parser.add_argument(
        "--symbol-path", metavar="PATH", help="where PDBs are: directories and srv*cache*server, as .sympath takes them"
    )
    parser.add_argument("--image-path", metavar="PATH", help="where the machine's DLLs and EXEs are, written alike")
    parser.add_argument(
        "--page-file",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a page file of the machine; repeated, in the order of their numbers",
    )
    parser.add_argument("--offline", action="store_true", help="ask no server")


def add_selection_options(parser: argparse.ArgumentParser, *, by_name: bool = False) -> None:
    """Add the options that select processes, threads, and sides of 32-bit processes on 64-bit Windows.

    `by_name` adds `--process`, for commands that hand it on as `names` to the library.
    """
    if by_name:
        parser.add_argument(
            "--process",
            metavar="NAME",
            nargs="+",
            action="extend",
            default=[],
            help="only processes of these names, with or without .exe",
        )
    parser.add_argument(
        "--pid",
        metavar="PID",
        type=identifier,
        nargs="+",
        action="extend",
        default=[],
        help="only these processes: 2564, 0xa04, a04",
    )
    parser.add_argument(
        "--tid", metavar="TID", type=identifier, nargs="+", action="extend", default=[], help="only these threads"
    )
    parser.add_argument(
        "--wow64",
        choices=["x86", "native", "both"],
        default="both",
        help="of 32-bit processes on 64-bit Windows: threads stuck in 32-bit code, in 64-bit code, or both (default)",
    )


def files_at_hand(options: argparse.Namespace) -> FilesAtHand:
    """Return the files that the options of `add_dump_options` name."""
    return FilesAtHand(
        options.symbols,
        symbol_path=options.symbol_path,
        image_path=options.image_path,
        page_files=options.page_file,
        is_offline=options.offline,
    )


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with wrong usage if an option names a file that is none; say which directories of a path are not there."""
    for path in options.symbols:
        if not os.path.exists(path):  # noqa: PTH110 raises where a directory may not be entered
            parser.error(f"-s: there is no {path}")
    for path in options.page_file:
        if not path.is_file():
            parser.error(f"--page-file: {path} is not a file")
    for name, text in (("--symbol-path", options.symbol_path), ("--image-path", options.image_path)):
        for directory in _missing(text or ""):
            console.say(f"{parser.prog}: {name}: there is no directory {escape(directory, 1024)}")


def _missing(path: str) -> Iterator[str]:
    """Yield the plain directories on a symbol path that are not there. Caches of servers are made when needed."""
    for element in map(str.strip, path.split(";")):
        is_plain = element and "*" not in element and "://" not in element
        if is_plain and not os.path.isdir(os.path.expanduser(element.strip('"'))):  # noqa: PTH111, PTH112 raise
            yield element


def identifier(text: str) -> int:
    """Return the process or thread ID that `text` names (`throwstack.core.identifiers`); argparse shows the error."""
    try:
        return identifiers.identifier(text)
    except ValueError as error:
        if os.path.exists(text):  # noqa: PTH110 raises for some texts
            message = f"{escape(text, 1024)} is a file, and no number: the dump goes before this option"
            raise argparse.ArgumentTypeError(message) from error
        raise argparse.ArgumentTypeError(str(error)) from error
