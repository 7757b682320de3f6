# SPDX-License-Identifier: Apache-2.0
"""The options that every command which opens a dump has, and how their texts are read."""

from __future__ import annotations

import argparse
from pathlib import Path

from throwstack.core import identifiers
from throwstack.files.at_hand import FilesAtHand


def add_dump_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where symbols, images and page files are."""
    parser.add_argument(
        "-s", "--symbols", metavar="DIR", type=Path, action="append", default=[], help="a directory with ISF files"
    )
    parser.add_argument(
        "--symbol-path", metavar="PATH", help="where PDBs are: directories and srv*cache*server, as .sympath takes them"
    )
    parser.add_argument("--image-path", metavar="PATH", help="where the machine's DLLs and EXEs are")
    parser.add_argument(
        "--page-file", metavar="FILE", type=Path, action="append", default=[], help="a page file, in order of number"
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
        "--pid", metavar="PID", type=identifier, nargs="+", action="extend", default=[], help="only these processes"
    )
    parser.add_argument(
        "--tid", metavar="TID", type=identifier, nargs="+", action="extend", default=[], help="only these threads"
    )
    parser.add_argument(
        "--wow64",
        choices=["x86", "native", "both"],
        default="both",
        help="which stacks of 32-bit processes on 64-bit Windows",
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
    """End with wrong usage if an option names a file that is none."""
    for path in options.page_file:
        if not path.is_file():
            parser.error(f"--page-file: {path} is not a file")


def identifier(text: str) -> int:
    """Return the process or thread ID that `text` names (`throwstack.core.identifiers`); argparse shows the error."""
    try:
        return identifiers.identifier(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
