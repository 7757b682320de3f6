# SPDX-License-Identifier: Apache-2.0
"""`throwstack scan`: many dumps at once, into tables and a page."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from throwstack.cli import console, dump_options
from throwstack.cli.exit_status import ExitStatus
from throwstack.core.text import escape

if TYPE_CHECKING:
    from throwstack.scan.run_scan import ScanPlan
    from throwstack.scan.scan_settings import ScanSettings

NAME = "scan"
USAGE = "%(prog)s PATH [PATH ...] -o DIR [option ...]"
HELP = "examine many dumps, into Parquet tables and a page"
DESCRIPTION = """\
Examines many dumps on all cores, or on a Dask cluster. The results in DIR are tables (dumps, crashes and frames, as
Parquet), the whole reports (crashes.jsonl), the list of symbol files that would improve them (symbols-needed.txt) and a
page with the crashes by signature (index.html).
A second run with the same DIR goes on where the first was interrupted. Exit status: 0 when all dumps were
examined, 1 when some were not or not all files were written, 2 when none can be or the results cannot be written; 64
for wrong usage, 130 when interrupted.
"""
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", re.IGNORECASE)
_LEAST_MEMORY = 1 << 28


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a dump, a directory, a pattern such as '/dumps/**/*.dmp', or @FILE with one of these a line",
    )
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="where the results go")
    parser.add_argument("--pattern", default="*", help="which files of a directory are taken, by name (default: all)")
    parser.add_argument("--recursive", action="store_true", help="search directories inside directories as well")
    parser.add_argument("--again", action="store_true", help="examine what is done already, too")
    for what in ("reports", "minidumps"):
        parser.add_argument(
            f"--{what}",
            choices=("new", "all"),
            nargs="?",
            const="new",
            default="",
            help=f"write {what} too: one for each signature (new, the default), or for all dumps with a crash (all)",
        )
    dump_options.add_dump_options(parser)
    dump_options.add_selection_options(parser)
    machine = parser.add_argument_group("what does the work")
    machine.add_argument("--workers", metavar="N", type=_positive, help="dumps at a time (default: the cores)")
    machine.add_argument(
        "--memory-limit", metavar="SIZE", type=_size, help="of each worker, such as 2G (default: a share of all)"
    )
    machine.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_positive,
        default=1800,
        help="of one dump, after which it is tried once more (default: 1800)",
    )
    machine.add_argument("--scheduler", metavar="tcp://HOST:PORT", default="", help="use this Dask cluster")
    machine.add_argument(
        "--dashboard", metavar="PORT", type=int, nargs="?", const=8787, help="show Dask's web page on this machine"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="show no progress")
    shown.add_argument("--json-progress", action="store_true", help="show progress as lines of JSON")


def run(options: argparse.Namespace) -> tuple[int, Iterable[str]]:
    """Scan the dumps and return the exit status and the lines to print."""
    try:
        from throwstack.scan import run_scan, write_results  # noqa: PLC0415 an extra, which may be missing
    except ImportError as error:
        console.say(f"throwstack scan: {error}: pip install 'throwstack[scan]'")
        return ExitStatus.CANNOT, ()
    from throwstack.cli.scan_progress import progress_display  # noqa: PLC0415
    from throwstack.core.errors import ThrowstackError  # noqa: PLC0415
    from throwstack.scan.part_store import PartStore  # noqa: PLC0415
    from throwstack.scan.results_lock import ResultsInUse, results_lock  # noqa: PLC0415

    if os.path.exists(options.out) and not os.path.isdir(options.out):  # noqa: PTH110, PTH112 raise
        _say(f"{options.out} is not a directory")
        return ExitStatus.CANNOT, ()
    plan = _plan(options)
    if not plan.inputs:
        deeper = "" if options.recursive else "; --recursive searches directories inside directories as well"
        _say(f"there is no file to examine{deeper}")
        return ExitStatus.CANNOT, ()
    try:
        with results_lock(plan.out):
            with progress_display(is_quiet=options.quiet, as_json=options.json_progress) as watch:
                run_scan.scan(plan, watch)
            parts = PartStore(plan.out / run_scan.PARTS)
            totals = write_results.write_results(plan.out, parts.records(dump.path for dump in plan.inputs))
    except ThrowstackError as error:
        console.say(f"throwstack scan: {escape(str(error), 1024)}")
        if not isinstance(error, ResultsInUse) and (plan.out / run_scan.PARTS).is_dir():
            console.say("throwstack scan: what is done is kept: run the same command again to go on")
        return ExitStatus.CANNOT, ()
    except KeyboardInterrupt:
        console.say("throwstack scan: what is done is kept: run the same command again to go on")
        raise
    if totals.dumps < len(plan.inputs):
        missing = len(plan.inputs) - totals.dumps
        console.say(f"throwstack scan: {missing} records are not in {plan.out}: do all workers write there?")
        return ExitStatus.CANNOT, ()
    lines = [*totals.lines(), f"the page of the crashes: {escape(str(options.out / write_results.PAGE), 4096)}"]
    return ExitStatus.NOTHING if totals.failed or totals.without_files else ExitStatus.DONE, lines


def _plan(options: argparse.Namespace) -> ScanPlan:
    from throwstack.scan.run_scan import ScanPlan  # noqa: PLC0415
    from throwstack.scan.scan_cluster import ClusterChoice  # noqa: PLC0415
    from throwstack.scan.scan_inputs import find_inputs  # noqa: PLC0415

    out = options.out.absolute()
    inputs = find_inputs(
        options.paths, pattern=options.pattern, is_recursive=options.recursive, leave_out=out, say=_say
    )
    cluster = ClusterChoice(options.scheduler, options.workers, options.memory_limit, options.dashboard)
    return ScanPlan(inputs, out, _settings(options), cluster, float(options.time_limit), options.again)


def _settings(options: argparse.Namespace) -> ScanSettings:
    """Return the settings for processes that have another directory and another environment than this one."""
    from throwstack.scan.scan_settings import ScanSettings, absolute_path  # noqa: PLC0415
    from throwstack.volatility.opening.sources import paths  # noqa: PLC0415

    symbol_path, image_path = paths(options.symbol_path, options.image_path)
    return ScanSettings(
        symbols=tuple(str(path.absolute()) for path in options.symbols),
        symbol_path=absolute_path(symbol_path),
        image_path=absolute_path(image_path),
        page_files=tuple(str(path.absolute()) for path in options.page_file),
        offline=options.offline,
        pids=tuple(options.pid),
        tids=tuple(options.tid),
        wow64=options.wow64,
        out=str(options.out.absolute()) if options.reports or options.minidumps else "",
        reports=options.reports,
        minidumps=options.minidumps,
    )


def _say(message: str) -> None:
    console.say(f"throwstack scan: {escape(message, 1024)}")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        message = f"{text!r} is no number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _size(text: str) -> int:
    """Return the bytes that `text` names: `512M`, `2G`, `1.5 GiB`."""
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * (1 << _UNITS[match[2].lower()]))
    if size < _LEAST_MEMORY:
        message = f"{text!r} is no size of 256M or more"
        raise argparse.ArgumentTypeError(message)
    return size
