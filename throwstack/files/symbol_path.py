# SPDX-License-Identifier: Apache-2.0
r"""Symbol paths as WinDbg writes them, and the search for a file of a known identity along one.

`dir;srv*cache*server;cache*dir;symsrv*symsrv.dll*cache*server`. A directory is searched as a plain one (`dir\name`,
`dir\pdb\name`, `dir\symbols\pdb\name`) and as a symbol store (`dir\name\KEY\name`, or `dir\na\name\KEY\name` where
`index2.txt` marks a two-tier store). The key is a PDB's GUID and age or an image's timestamp and size, spelled as
SymSrv spells it. Names come from a dump: one that could step out of a directory or a URL is never looked up.

A file that is found is only a candidate: the caller's check opens it and compares what it holds with what is wanted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from throwstack.images import PdbIdentity

_MAX_NAME = 128
_MAX_PATH_ELEMENTS = 64
_MAX_DIRECTORY_ENTRIES = 200_000
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ufffd]|[. ]$|^\.{1,2}$')
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)

Say = Callable[[str], None]
"""Takes a message for the user: one line, safe to print."""


def safe_name(name: str) -> str | None:
    r"""Return the last part of `name` (after any `/` or `\`) if it can stand in a path and a URL, else None."""
    last = re.split(r"[\\/]", name)[-1]
    if not last or not last.isprintable() or _UNSAFE.search(last) or _DEVICES.match(last):
        return None
    return last if len(last.encode()) <= _MAX_NAME else None


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What a symbol store knows an image by: file name, time stamp and SizeOfImage from its header."""

    name: str
    timestamp: int
    size: int


Identity = PdbIdentity | ImageIdentity


def store_key(identity: Identity) -> str:
    """Return the name of the store's directory for `identity`: `GUIDage` of a PDB, `TIMESTAMPsize` of an image."""
    if isinstance(identity, PdbIdentity):
        return f"{identity.guid}{identity.age:x}"
    return f"{identity.timestamp:08X}{identity.size:x}"


@dataclass(frozen=True, slots=True)
class Server:
    """A symbol store behind `http(s)://`, without a slash at its end."""

    url: str

    def file_url(self, identity: Identity) -> str | None:
        """Return the address of the file, or None if its name cannot stand in one."""
        name = safe_name(identity.name)
        if name is None:
            return None
        return f"{self.url}/{quote(name)}/{quote(store_key(identity))}/{quote(name)}"


@dataclass(frozen=True, slots=True)
class PathElement:
    """One element of a symbol path: places from the nearest to the farthest, and where downloads are kept."""

    places: tuple[Path | Server, ...]
    cache: Path | None = None
    is_store: bool = False
    """Written `srv*`: its directories are symbol stores only."""


def parse_symbol_path(text: str, default_cache: Path) -> tuple[PathElement, ...]:
    """Parse a symbol path. An empty place in `srv*…` and a `srv*` without a cache stand for `default_cache`.

    Elements that name no place are dropped, and so is what follows the 64th.
    """
    elements: list[PathElement] = []
    cache: Path | None = None
    for part in text.replace("\0", "").split(";")[:_MAX_PATH_ELEMENTS]:
        words = [word.strip() for word in part.strip().split("*")]
        kind = words[0].lower()
        if len(words) == 1:
            if words[0]:
                place = _place(words[0])
                elements.append(PathElement((place,), cache or default_cache, is_store=isinstance(place, Server)))
            continue
        if kind == "cache":
            cache = Path(words[1]) if words[1] else default_cache
            elements.append(PathElement((cache,), is_store=True))
            continue
        if kind not in ("srv", "symsrv"):
            continue
        given = words[2:] if kind == "symsrv" else words[1:]
        places = tuple(_place(word) if word else default_cache for word in given)
        if not places:
            continue
        kept = next((place for place in places if isinstance(place, Path)), cache or default_cache)
        if kept not in places:
            places = (kept, *places)
        elements.append(PathElement(places, kept, is_store=True))
    return tuple(elements)


def _place(word: str) -> Path | Server:
    if re.match(r"https?://", word, re.IGNORECASE):
        return Server(word.rstrip("/"))
    try:
        return Path(word).expanduser()
    except RuntimeError:  # `~name` of nobody
        return Path(word)


class Fetcher(Protocol):
    """Brings a file from a server."""

    def fetch(self, url: str, target: Path) -> bool:
        """Store what is at `url` as `target`; return False if that was not possible, and have said why."""
        ...


Check = Callable[[Path], str | None]
"""Opens a candidate and returns why it is not the wanted file, or None if it is."""


class SymbolPath:
    """Finds files along a symbol path. Downloads only with a `fetcher`; refusals and failures go to `say`."""

    def __init__(self, elements: tuple[PathElement, ...], *, fetcher: Fetcher | None = None, say: Say) -> None:
        """Search `elements` in order."""
        self.elements = elements
        self._fetcher = fetcher
        self._say = say
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, identity: Identity, check: Check) -> Path | None:
        """Return the first file along the path that has the wanted identity, as `check` finds it, or None.

        What bears the name and fails the check is named in a message with the reason; the search goes on.
        """
        name = safe_name(identity.name)
        if name is None:
            self._say(f"{identity.name[:_MAX_NAME]!a}: not a file name that can be looked up")
            return None
        for element in self.elements:
            for place in element.places:
                if isinstance(place, Server):
                    found = self._download(place, element.cache, identity, name, check)
                    if found is not None:
                        return found
                    continue
                for candidate in self._candidates(place, name, store_key(identity), element.is_store):
                    reason = check(candidate)
                    if reason is None:
                        return candidate
                    self._say(f"{candidate}: refused: {reason}")
        return None

    def _candidates(self, directory: Path, name: str, key: str, is_store: bool) -> Iterator[Path]:
        first = (name[:2],) if self._resolve(directory, "index2.txt") else ()
        extension = name.rpartition(".")[2]
        layouts = [(*first, name, key, name)]
        if not is_store:
            layouts += [(name,), (extension, name), ("symbols", extension, name)]
        for layout in layouts:
            found = self._resolve(directory, *layout)
            if found is not None and os.path.isfile(found):  # noqa: PTH113 as above
                yield found
        packed = self._resolve(directory, *first, name, key, f"{name[:-1]}_")
        if packed is not None:
            self._say(f"{packed}: compressed; unpack it (expand, cabextract) to {name} beside it")

    def _resolve(self, directory: Path, *parts: str) -> Path | None:
        """Return `directory/parts` as it is spelled on disk: stores are written by systems that ignore case."""
        path = directory
        for part in parts:
            exact = path / part
            if os.path.exists(exact):  # noqa: PTH110 Path.exists raises where a directory may not be read
                path = exact
                continue
            spelled = self._listing(path).get(part.lower())
            if spelled is None:
                return None
            path = path / spelled
        return path

    def _listing(self, directory: Path) -> dict[str, str]:
        listing = self._listings.get(directory)
        if listing is None:
            listing = {}
            try:
                with os.scandir(directory) as entries:
                    for entry, _ in zip(entries, range(_MAX_DIRECTORY_ENTRIES), strict=False):
                        listing.setdefault(entry.name.lower(), entry.name)
            except (OSError, ValueError):
                pass
            self._listings[directory] = listing
        return listing

    def _download(self, server: Server, cache: Path | None, identity: Identity, name: str, check: Check) -> Path | None:
        url = server.file_url(identity)
        if self._fetcher is None or cache is None or url is None:
            return None
        target = cache / name / store_key(identity) / name
        if target.exists() or not self._fetcher.fetch(url, target):
            return None
        reason = check(target)
        if reason is None:
            return target
        self._say(f"{url}: refused: {reason}")
        target.unlink(missing_ok=True)
        return None
