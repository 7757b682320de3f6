# SPDX-License-Identifier: Apache-2.0
"""The reference case looked at with its PDBs: the sources that the transcript shows, and how the plugin is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.vol import Output, vol

COM = r"f:\sp\vctools\compiler\cxxfe\sl\vccom"


# Of the transcript: the function, its source, and what `kv` says of its frame, innermost first.
THROWN = [
    ("KERNEL32!RaiseException", None, "FPO: [4,20,4]"),
    ("MSVCR80!_CxxThrowException", None, "FPO: [2,8,0]"),
    ("ftpsrvdata_pg!_com_raise_error", rf"[{COM}\comraise.cpp @ 18]", "FPO: [2,4,0]"),
    ("ftpsrvdata_pg!_com_issue_error", rf"[{COM}\comsupp.cpp @ 40]", "FPO: [1,0,0]"),
    ("ftpsrvdata_pg!PrintProviderError", r"[d:\fts\ftpsrvdata_pg\src\idbcommand.cpp @ 860]", "FPO: [1,2058,0]"),
    ("ftpsrvdata_pg!IDBCommand::ExecuteResults", r"[d:\fts\ftpsrvdata_pg\src\idbcommand.cpp @ 610]", None),
    (
        "ftpsrvdata_pg!IFTPSystemStats_Impl::UpdateSystemStats",
        r"[d:\fts\ftpsrvdata_pg\src\ftpsystemstats_impl.cpp @ 288]",
        None,
    ),
    ("FTPParsers!SessionManagerThreadProc", r"[d:\fts\ftpparsers\ftpstats.cpp @ 413]", None),
    ("MSVCR80!_endthreadex", None, None),
    ("MSVCR80!_endthreadex", None, None),
    ("KERNEL32!BaseThreadStart", None, None),
]


PDB = "ftpsrvdata_pg.pdb"


def stack(out: Path, *options: str, **more: Any) -> Output:
    return vol(out, "windows.cxrstack", *options, **more)


def sources(rows: list[dict[str, Any]]) -> list[str | None]:
    return [row["Source"] for row in rows]


def tables(rows: list[dict[str, Any]], module: str) -> set[str]:
    """Where the names of a module's functions come from."""
    return {row["Symbols"] for row in rows if row["Call Site"].startswith(f"{module}!")}


SOURCES = [source for _, source, _ in THROWN]


def stored(directory: Path, name: str) -> Path:
    (path,) = directory.glob(f"{name}/*/{name}")
    return path
