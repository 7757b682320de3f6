# SPDX-License-Identifier: Apache-2.0
"""The commands whose output a snapshot keeps. The worker imports this file alone: it imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command of a dump: the name of its files, and its arguments (those of `vol` after the plugin's name)."""

    name: str
    plugin: str
    options: tuple[str, ...] = ()


DOCTOR = "doctor"


def commands(folder: Path) -> Iterator[Command]:
    """Yield the commands of the dump in a directory; with its PDBs too, if it has any.

    Live captures are many and alike: they are looked at with fewer commands than the forged cases.
    """
    is_live = (folder / "plugins.log").exists()
    yield Command("doctor", DOCTOR)
    yield Command("unhandled", "windows.unhandled")
    if not is_live:
        yield Command("cxrstack", "windows.cxrstack")
    yield Command("cxrstack-registers", "windows.cxrstack", ("--registers", "--kv"))
    if folder.name != "fleet":  # 4,000 threads: 70 MB of JSON
        yield Command("stackwalk", "windows.stackwalk")
    if not is_live:
        yield Command("stackwalk-brief", "windows.stackwalk", ("--brief",))
    if folder.name.startswith("wow64"):
        yield Command("cxrstack-native", "windows.cxrstack", ("--wow64", "native"))
        yield Command("stackwalk-both", "windows.stackwalk", ("--wow64", "both"))
    if (folder / "pdb").is_dir():
        pdb = ("--symbol-path", str(folder / "pdb"))
        if not is_live:
            yield Command("unhandled-pdb", "windows.unhandled", pdb)
        yield Command("cxrstack-pdb", "windows.cxrstack", (*pdb, "--registers", "--kv"))
        yield Command("stackwalk-pdb", "windows.stackwalk", (*pdb, "--kv", "--names", "signature"))
