# SPDX-License-Identifier: Apache-2.0
"""Files that a scan writes of a dump beside the tables: the report as a page, and minidumps of its stuck processes.

They are written of all dumps with stuck threads, or for each signature of the first dump that has it. Which dump that
is depends on which worker is there first: it says so in a file of the directory `signatures`, which only one can make.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from throwstack import __version__
from throwstack.core.errors import ThrowstackError
from throwstack.report.dump_report import DumpReport
from throwstack.scan.part_store import durably_write

if TYPE_CHECKING:
    from throwstack.volatility.dump import Dump

NEW, ALL = "new", "all"
"""Of which dumps files are written: for each new signature one, or all with stuck threads."""
_DIGEST = re.compile(r"[0-9a-f]{1,64}")
_UNPORTABLE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_NAME = 48


@dataclass(frozen=True, slots=True)
class WantedFiles:
    """What to write: `reports` and `minidumps` are `new`, `all`, or empty for none. `out` is the scan's directory."""

    out: str = ""
    reports: str = ""
    minidumps: str = ""


def write_files(dump: Dump, report: DumpReport, path: str, wanted: WantedFiles) -> tuple[list[list[str]], str]:
    """Write what is wanted of the opened `dump`, whose file is at `path`.

    Return the label and the address, relative to `wanted.out`, of each file, and why some were not written, or "".
    """
    files: list[list[str]] = []
    problems: list[str] = []
    if not report.crashes or not (wanted.reports or wanted.minidumps):
        return files, ""
    out = Path(wanted.out)
    every = {crash.pid for crash in report.crashes}
    try:
        new = _new_pids(report, path, out) if NEW in (wanted.reports, wanted.minidumps) else set()
        if new if wanted.reports == NEW else wanted.reports:
            files.append(["report", _write_report(report, path, out)])
        pids = new if wanted.minidumps == NEW else every
        if wanted.minidumps and pids:
            files += (["minidump", address] for address in _write_minidumps(dump, path, out, pids, problems))
    except (ThrowstackError, OSError) as error:
        problems.append(str(getattr(error, "strerror", None) or error))
    return files, "; ".join(problems)


def _new_pids(report: DumpReport, path: str, out: Path) -> set[int]:
    """Return the processes with a signature that no other dump has claimed, which are claimed by that."""
    signed = ((crash.pid, crash.signature.digest) for crash in report.crashes if crash.signature is not None)
    return {pid for pid, digest in signed if _DIGEST.fullmatch(digest) and _is_first(digest, path, out)}


def _is_first(digest: str, path: str, out: Path) -> bool:
    claims = out / "signatures"
    claims.mkdir(exist_ok=True)
    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    claim = claims / digest
    try:
        with claim.open("x") as file:
            file.write(name)
    except FileExistsError:
        claimed_by = claim.read_text("ascii", "replace")
        if claimed_by:
            return claimed_by == name
        claim.write_text(name, "ascii")  # a process was killed, or the disk was full, before the name was in it
    return True


def _write_report(report: DumpReport, path: str, out: Path) -> str:
    from throwstack.report.page.report_page import page_of  # noqa: PLC0415 jinja2, for those who want pages

    directory = out / "reports"
    directory.mkdir(exist_ok=True)
    target = directory / f"{_name_of(path)}.html"
    durably_write(target, page_of(report, version=__version__).encode("utf-8", "backslashreplace"))
    return f"reports/{target.name}"


def _write_minidumps(dump: Dump, path: str, out: Path, pids: set[int], problems: list[str]) -> Iterator[str]:
    directory = out / "minidumps" / _name_of(path)
    shutil.rmtree(directory, ignore_errors=True)  # what an attempt that was killed has left
    directory.mkdir(parents=True)
    for written in dump.minidumps(directory, pids=sorted(pids)):
        if written.path is None:
            problems.append(written.problem)
        else:
            yield f"minidumps/{directory.name}/{written.path.name}"


def _name_of(path: str) -> str:
    """Return a name for files of the dump at `path`: readable, of characters that every system has, and its own."""
    folder, file = Path(path).parent.name, Path(path).name
    words = _UNPORTABLE.sub("_", f"{folder}-{file}").strip("._-")[-_MOST_NAME:] or "dump"
    return f"{words}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
