# SPDX-License-Identifier: Apache-2.0
r"""Symbol paths in WinDbg's syntax, and the search along one for a file of a known identity.

`dir;srv*cache*server;cache*dir;symsrv*symsrv.dll*cache*server` is a symbol path. Each directory is searched in two
layouts:

- symbol store: `dir\name\KEY\name`, or `dir\na\name\KEY\name` if the file `index2.txt` marks a two-tier store;
- plain: `dir\name`, `dir\dll\name`, `dir\symbols\dll\name`, where Microsoft's symbol packages put their files.

The key is a PDB's GUID and age, or an image's time stamp and size, spelled as SymSrv spells them. Names come from a
dump: one that could lead out of a directory or a URL is never looked up.

A file with the right name is only a candidate: the caller's check opens it and compares its identity.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from throwstack.files.cabinet import NotUnpacked, unpack
from throwstack.files.cache_files import private_directory, put
from throwstack.images.image import PdbIdentity

_MAX_NAME = 128
_MAX_PATH_ELEMENTS = 64
_MAX_DIRECTORY_ENTRIES = 200_000
_KINDS = ("pdb", "dll", "exe", "sys", "drv", "ocx", "cpl", "acm", "ax", "scr", "tsp")
"""Subdirectories of the plain layout, named after extensions. A PDB is mostly in the subdirectory for the extension of
its image, such as `dll`.
"""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ufffd]|[. ]$|^\.{1,2}$')
_WINDOWS_PATH = re.compile(r"[A-Za-z]:([\\/]|$)|\\\\")
_KEY = re.compile(r"[0-9a-f]{9,41}", re.IGNORECASE)
_DEVICES = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d\u00b9\u00b2\u00b3])(\.|$)", re.IGNORECASE)

Say = Callable[[str], None]
"""A function that is called with a message for the user, which is one line and safe to print."""


def safe_name(name: str) -> str | None:
    r"""Return the last part of `name` (after any `/` or `\`), or None if this part is not safe in a path or a URL.

    Characters that Windows forbids in file names are not safe. Neither are the names of devices: on Windows, `con.pdb`
    is the console.
    """
    last = re.split(r"[\\/]", name)[-1]
    if not last or not last.isprintable() or _UNSAFE.search(last) or _DEVICES.match(last):
        return None
    return last if len(last.encode()) <= _MAX_NAME else None


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What identifies an image in a symbol store: its file name, and the time stamp and SizeOfImage of its header."""

    name: str
    timestamp: int
    size: int


Identity = PdbIdentity | ImageIdentity


def store_key(identity: Identity) -> str:
    """Return the key of a file in a symbol store, which is the name of its directory there.

    The key is `GUIDage` for a PDB and `TIMESTAMPsize` for an image.
    """
    if isinstance(identity, PdbIdentity):
        return f"{identity.guid}{identity.age:x}"
    return f"{identity.timestamp:08X}{identity.size:x}"


@dataclass(frozen=True, slots=True)
class Server:
    """A symbol server. `url` begins with `http://` or `https://` and does not end with a slash."""

    url: str

    def file_url(self, identity: Identity) -> str | None:
        """Return the URL of the file on this server, or None if its name is not safe in a URL."""
        name = safe_name(identity.name)
        if name is None:
            return None
        return f"{self.url}/{quote(name)}/{quote(store_key(identity))}/{quote(name)}"


@dataclass(frozen=True, slots=True)
class PathElement:
    """One element of a symbol path.

    `places` are the directories and servers to search, nearest first. `cache` is the directory that keeps downloads, or
    None.
    """

    places: tuple[Path | Server, ...]
    cache: Path | None = None
    is_store: bool = False
    """The directories of the element are only searched in the layout of a symbol store (`srv*`, `cache*`)."""


def parse_symbol_path(text: str, default_cache: Path, say: Say | None = None) -> tuple[PathElement, ...]:
    r"""Parse the symbol path `text` and return its elements.

    `default_cache` is used for an empty element in `srv*…`, and for a `srv*` with a server and no directory.

    Some parts are left out: elements without a directory or server, all elements after the 64th, and on systems other
    than Windows all Windows paths. The latter occur when an analyst's `_NT_SYMBOL_PATH` is used on Linux:
    `srv*c:\symbols*SERVER` is then read as `srv*SERVER`. `say` is called with a message for each Windows path and each
    malformed element that is left out.
    """
    say = say or (lambda _: None)
    elements: list[PathElement] = []
    cache: Path | None = None
    for part in text.replace("\0", "").split(";")[:_MAX_PATH_ELEMENTS]:
        kind, *given = (word.strip().strip('"') for word in part.strip().split("*"))
        if not given:
            given, is_store = [kind] if kind else [], False
        elif kind.lower() == "cache":
            place = _place(given[0], say) if given[0] else None
            cache = place if isinstance(place, Path) else default_cache
            elements.append(PathElement((cache,), is_store=True))
            continue
        elif kind.lower() in ("srv", "symsrv"):
            given, is_store = given[kind.lower() == "symsrv" :], True
        else:
            say(f"{part.strip()}: not an element of a symbol path")
            continue
        places = (_place(word, say) if word else default_cache for word in given)
        found = [place for place in places if place is not None]
        if not found:
            continue
        kept = cache or default_cache
        if is_store or isinstance(found[0], Server):
            is_store = True
            kept = next((place for place in found if isinstance(place, Path)), kept)
            found = found if kept in found else [kept, *found]
        elements.append(PathElement(tuple(found), kept, is_store=is_store))
    return tuple(elements)


def _place(word: str, say: Say) -> Path | Server | None:
    """Return the server or directory that `word` names.

    On systems other than Windows, a Windows path gives a message and None.
    """
    if re.match(r"https?://", word, re.IGNORECASE):
        return Server(word.rstrip("/"))
    if os.name != "nt" and _WINDOWS_PATH.match(word):
        say(f"{word}: a path of Windows, not used on this system")
        return None
    try:
        return Path(word).expanduser()
    except RuntimeError:  # `~name`, and there is no user of this name
        return Path(word)


def _is_readable(directory: Path) -> bool:
    # Path.is_dir would raise if a directory above may not be entered.
    return os.path.isdir(directory) and os.access(directory, os.R_OK | os.X_OK)  # noqa: PTH112


class Fetcher(Protocol):
    """Downloads a file from a server."""

    def fetch(self, url: str, target: Path) -> bool:
        """Download `url` to the new file `target` and return True. If that fails, leave no file and return False."""
        ...


Check = Callable[[Path], str | None]
"""A function that opens a file with the right name and decides whether it is the wanted file.

It returns None if it is, or else the reason why it is not.
"""


class SymbolPath:
    """Finds files along a symbol path, and downloads them if there is a `fetcher`."""

    def __init__(self, elements: tuple[PathElement, ...], *, fetcher: Fetcher | None = None, say: Say) -> None:
        """`elements` are searched in order. `fetcher` downloads files; without it, no server is used.

        `say` is called with refusals and failures, and here for each place that is no readable directory.
        """
        self.elements = elements
        for element in elements:
            is_filled = element.cache is None or len(element.places) > 1
            for place in element.places[is_filled:]:  # not the cache, which is made when it is needed
                if isinstance(place, Path) and not _is_readable(place):
                    say(f"{place}: not a directory that can be read")
        self._fetcher = fetcher
        self._say = say
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, identity: Identity, check: Check) -> Path | None:
        """Return the first file along the path that has the name of `identity` and passes `check`, or None.

        If a file fails the check, `say` is called with its path and the reason, and the search goes on. A file that was
        downloaded or unpacked is checked before it is put into the cache.
        """
        name = safe_name(identity.name)
        if name is None:
            self._say(f"{identity.name[:_MAX_NAME]!a}: not a file name that can be looked up")
            return None
        for element in self.elements:
            for place in element.places:
                if isinstance(place, Server):
                    made = self._downloads(place, element.cache, identity, name)
                    found = None if element.cache is None else self._made(made, element.cache, identity, name, check)
                else:
                    found = self._find_in(place, element, identity, name, check)
                if found is not None:
                    return found
        return None

    def _find_in(
        self, directory: Path, element: PathElement, identity: Identity, name: str, check: Check
    ) -> Path | None:
        folder = (*self._tier(directory, name), name, store_key(identity))
        for candidate in self._candidates(directory, folder, name, is_store=element.is_store):
            reason = check(candidate)
            if reason is None:
                return candidate
            self._say(f"{candidate}: refused: {reason}")
        cache = element.cache or directory
        layouts = [folder] if element.is_store else [folder, ()]
        packed = chain.from_iterable(self._resolve(directory, *layout, _packed(name)) for layout in layouts)
        found = self._made(self._unpacks(packed, cache, name), cache, identity, name, check)
        for pointer in self._resolve(directory, *folder, "file.ptr") if found is None else ():
            self._say(f"{pointer}: points to a file in another place; such pointers are not followed")
        return found

    def _candidates(self, directory: Path, folder: tuple[str, ...], name: str, *, is_store: bool) -> Iterator[Path]:
        """Yield the files in `directory` that have the right name, in both layouts of a symbol path.

        `is_store`: only the layout of a symbol store is searched. `folder` is the path of the file's directory in that
        layout.
        """
        layouts = [(*folder, name)]
        if not is_store:
            layouts += [(name,), *((*top, kind, name) for top in ((), ("symbols",)) for kind in _KINDS)]
        for layout in layouts:
            for found in self._resolve(directory, *layout):
                if os.path.isfile(found):  # noqa: PTH113 as above
                    yield found
                elif layout != (name,) or not self._is_of_store(found):
                    self._say(f"{found}: refused: {_what_else(found)}")

    def _is_of_store(self, found: Path) -> bool:
        """Say whether `found` is the directory `app.pdb` of a store, in which there is one for each version."""
        return any(map(_KEY.fullmatch, self._listing(found)))

    def _made(
        self, files: Generator[tuple[Path, str], None, None], cache: Path, identity: Identity, name: str, check: Check
    ) -> Path | None:
        """Put the first of `files` that passes `check` into `cache`, and return its path there, or None.

        `files` yields (path, origin). The paths are in a private directory of `cache`; the origin is where the file
        came from.
        """
        target = self._kept(cache, name, store_key(identity))
        try:
            for file, origin in files:
                reason = check(file)
                if reason is not None:
                    self._say(f"{origin}: refused: {reason}")
                    continue
                try:
                    put(file, target, cache)
                except OSError as error:
                    # On Windows a file that another run has open cannot be replaced. It may be the right one.
                    if not os.path.isfile(target) or check(target) is not None:  # noqa: PTH113 as above
                        self._say(f"{target}: cannot be stored: {error.strerror or error}")
                        continue
                return target
        finally:
            files.close()  # removes its private directory
        return None

    def _unpacks(self, cabinets: Iterable[Path], cache: Path, name: str) -> Generator[tuple[Path, str], None, None]:
        """Yield (path of the unpacked file, path of the cabinet) for each of `cabinets` that can be unpacked."""
        for packed in cabinets:
            if not os.path.isfile(packed):  # noqa: PTH113 as above; to open a FIFO would wait for a writer
                self._say(f"{packed}: refused: {_what_else(packed)}")
                continue
            with self._private(cache) as private:
                if private is not None and self._unpack(packed, private / name):
                    yield private / name, str(packed)

    @contextmanager
    def _private(self, cache: Path) -> Iterator[Path | None]:
        """Make a private directory in `cache`, and remove it at the end of the `with` block.

        If that fails, give a message and yield None.
        """
        with ExitStack() as stack:
            try:
                private = stack.enter_context(private_directory(cache))
            except OSError as error:
                self._say(f"{cache}: nothing can be stored in it: {error.strerror or error}")
                private = None
            yield private

    def _unpack(self, packed: Path, target: Path) -> bool:
        try:
            unpack(packed, target)
        except NotUnpacked as error:
            self._say(f"{packed}: {error}; unpack it (expand, cabextract) to {target.name} beside it")
        except OSError as error:
            self._say(f"{packed}: cannot be unpacked: {error.strerror or error}")
        else:
            return True
        return False

    def _kept(self, cache: Path, name: str, key: str) -> Path:
        """Return the path of a file in `cache`, where `key` is its store key. `cache` may be a two-tier store."""
        return cache.joinpath(*self._tier(cache, name), name, key, name)

    def _tier(self, directory: Path, name: str) -> tuple[str, ...]:
        return (name[:2],) if any(map(os.path.isfile, self._resolve(directory, "index2.txt"))) else ()

    def _resolve(self, directory: Path, *parts: str) -> Iterator[Path]:
        """Yield the existing paths that equal `directory/parts` apart from upper and lower case.

        Windows ignores case, so that stores have files like `Ntdll.pdb` and `NTDLL.PDB`. On Linux these are two names.
        """
        if not parts:
            yield directory
            return
        part, *rest = parts
        exact = directory / part
        if os.path.lexists(exact):  # a link that leads nowhere, too, of which there is a message
            yield from self._resolve(exact, *rest)
        for spelled in self._listing(directory).get(part.lower(), ()):
            if os.path.normcase(spelled) != os.path.normcase(part):
                yield from self._resolve(directory / spelled, *rest)

    def _listing(self, directory: Path) -> dict[str, list[str]]:
        listing = self._listings.get(directory)
        if listing is None:
            listing = {}
            try:
                with os.scandir(directory) as entries:
                    for entry, _ in zip(entries, range(_MAX_DIRECTORY_ENTRIES), strict=False):
                        listing.setdefault(entry.name.lower(), []).append(entry.name)
            except (OSError, ValueError):
                pass
            self._listings[directory] = listing
        return listing

    def _downloads(
        self, server: Server, cache: Path | None, identity: Identity, name: str
    ) -> Generator[tuple[Path, str], None, None]:
        """Download the file `identity` from `server`, or else the cabinet that contains it.

        Yields the path of the file in a private directory, and the URL from which it came.
        """
        url = server.file_url(identity)
        if self._fetcher is None or cache is None or url is None:
            return
        with self._private(cache) as private:
            if private is None:
                return
            target = private / name
            if self._fetcher.fetch(url, target):
                yield target, url
                return
            packed, url = private / _packed(name), url[: -len(quote(name))] + quote(_packed(name))
            if self._fetcher.fetch(url, packed) and self._unpack(packed, target):
                yield target, url


def _what_else(path: Path) -> str:
    """Return what there is at a path where a file should be."""
    if os.path.isdir(path):  # noqa: PTH112 as above
        return "a directory"
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 as above
        return "a symbolic link that leads to no file"
    return "not a regular file"


def _packed(name: str) -> str:
    return f"{name[:-1]}_"
