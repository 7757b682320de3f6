# SPDX-License-Identifier: Apache-2.0
r"""The settings of a scan that change an answer, and the keys by which a later run knows what is done already.

The key of a dump is a digest of its path, size and time of change, of the versions of throwstack and Volatility, and of
these settings, with the sizes and times of all files that they name: if somebody puts a PDB into a directory of the
symbol path, the dumps are examined again.

Directories that only keep what a server gave do not count. Example: of `srv*C:\cache*https://server`, the scan itself
fills `C:\cache`; if that changed the keys, no second run would find anything done. A file has the same contents
wherever it was taken from, because it is found by its identity.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

from throwstack import __version__
from throwstack.files.symbol_path import Server, parse_symbol_path
from throwstack.files.user_cache import cache_directory
from throwstack.scan.scan_inputs import DumpInput

_MAX_FILES = 500_000
"""How many files beside the dumps are asked for their times. Symbol stores with more than that are rare."""
_WORDS = {"srv", "symsrv", "cache", "symsrv.dll"}


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What every dump of a scan is opened and examined with; paths are absolute.

    `symbol_path` and `image_path` have WinDbg's syntax, and are empty if there is none. `reports` and `minidumps` say
    which files are written into the directory `out` (`throwstack.scan.dump_files`). The rest is as for
    `throwstack.open` and `Dump.report`.
    """

    symbols: tuple[str, ...] = ()
    symbol_path: str = ""
    image_path: str = ""
    page_files: tuple[str, ...] = ()
    offline: bool = False
    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    wow64: str = "both"
    out: str = ""
    reports: str = ""
    minidumps: str = ""

    def fingerprint(self) -> str:
        """Return a digest of the settings, the versions of throwstack and Volatility, and the state of named files."""
        digest = hashlib.sha256(json.dumps([__version__, _volatility(), asdict(self)]).encode())
        for name, size, modified in islice(self._files(), _MAX_FILES):
            digest.update(os.fsencode(name) + f"\0{size}\0{modified}\n".encode())
        return digest.hexdigest()

    def _files(self) -> Iterator[tuple[str, int, int]]:
        for directory in (*self.symbols, *_kept_directories(self.symbol_path), *_kept_directories(self.image_path)):
            yield from _states(directory)
        for path in self.page_files:
            yield from _state(path)


def _volatility() -> str:
    """Return Volatility's version, "" if it is not installed as a package: it opens the images and finds symbols."""
    try:
        return version("volatility3")
    except PackageNotFoundError:
        return ""


def key_of(dump: DumpInput, fingerprint: str) -> str:
    """Return the key of a dump under settings that have this fingerprint."""
    return hashlib.sha256(json.dumps([dump.path, dump.size, dump.modified, fingerprint]).encode()).hexdigest()


def absolute_path(text: str) -> str:
    """Return a symbol path or an image path whose directories are absolute, for processes that are elsewhere."""
    return ";".join("*".join(map(_absolute_word, part.strip().split("*"))) for part in text.split(";"))


def _absolute_word(word: str) -> str:
    name = word.strip().strip('"')
    if not name or name.lower() in _WORDS or "://" in name or name.startswith("\\\\") or name[1:2] == ":":
        return word
    return os.path.abspath(os.path.expanduser(name))


def _kept_directories(text: str) -> Iterator[str]:
    """Yield the directories of a path, without those that keep what a server gave."""
    for element in parse_symbol_path(text, cache_directory()):
        has_server = any(isinstance(place, Server) for place in element.places)
        is_cache = element.is_store and element.cache is None  # `cache*DIR`
        for place in element.places:
            is_filled = place == cache_directory() or (place == element.cache and len(element.places) > 1)
            if isinstance(place, Path) and not (has_server or is_cache or is_filled):
                yield str(place)


def _states(directory: str) -> Iterator[tuple[str, int, int]]:
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            yield from _state(os.path.join(folder, name))


def _state(path: str) -> Iterator[tuple[str, int, int]]:
    try:
        status = os.stat(path)
    except OSError:
        return
    yield path, status.st_size, status.st_mtime_ns
