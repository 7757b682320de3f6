# SPDX-License-Identifier: Apache-2.0
"""Symbols from PDBs: functions, inlined functions, files and lines, frame data. Read with the library symbolic.

A PDB is found along the symbol path by the identity in the image's RSDS record. A separate process converts it
(`throwstack.pdb.convert`), and the result is kept in the user's cache directory. If a PDB cannot be used, there is one
message, and the names of the image come from another source, such as its exports.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from throwstack.core.text import escape
from throwstack.files.cache_files import free_space, private_directory, put
from throwstack.files.download import Progress
from throwstack.files.symbol_path import Say, SymbolPath, safe_name, store_key
from throwstack.files.user_cache import distrust, make_private
from throwstack.images.image import Image, PdbIdentity
from throwstack.names.demangle import display_name, is_decorated
from throwstack.names.frame_records import FrameData
from throwstack.names.symbols import LocatedFunction, SymbolKind, SymbolTable
from throwstack.pdb.child_process import can_start, command
from throwstack.pdb.convert import Converted, HeldStream, NotConverted, count_functions, load, save, unpack_functions
from throwstack.pdb.omap import Omap
from throwstack.pdb.pdb_identity import check_pdb
from throwstack.pdb.stack_win import FrameDataTable

_LIBRARIES = ("symbolic", "_cffi_backend", "pydemumble")
"""The libraries that the process which converts a PDB imports."""
_POLL = 0.2
_DRIVE_INSIDE = re.compile(r"^.*[\\/](?=[A-Za-z]:[\\/])")
r"""A working directory in front of a Windows path, which is cut off.

On Linux, clang takes a Windows path for a relative one and puts its working directory in front of it:
`/home/me/build/d:\src\app.cpp`.
"""
_MAX_REMEMBERED = 200_000


class PdbTable(SymbolTable):
    """The symbols of one PDB."""

    __slots__ = ("_frames", "_listed", "_located", "_omap", "_parts", "_symcache")

    def __init__(self, parts: Converted, identity: PdbIdentity) -> None:
        """Open `parts`, a converted PDB.

        Raises `NotConverted` if it is not the PDB `identity`, and whatever symbolic raises.
        """
        import symbolic  # noqa: PLC0415 plugins have to load where it is not installed

        super().__init__(SymbolKind.PDB, ())
        self._parts = parts
        self._omap = Omap(HeldStream(parts.omap_from_source), HeldStream(parts.omap_to_source))
        self._symcache = symbolic.SymCache.from_bytes(parts.symcache)
        found = self._symcache.debug_id.replace("-", "").upper()
        if found[:32] != identity.guid or (identity.age and found[32:] != f"{identity.age:X}"):
            message = f"it is of the PDB {escape(found)}, not of {identity.guid} age {identity.age}"
            raise NotConverted(message)
        self._listed: SymbolTable | None = None
        self._frames: FrameDataTable | None = None
        self._located: dict[int, tuple[LocatedFunction, ...]] = {}

    @property
    def _list(self) -> SymbolTable:
        """The list of functions, with their RVAs before the image was rearranged.

        The list is made on first use, because a large PDB has a million functions, and finding the name of an address
        does not need the list.
        """
        if self._listed is None:
            self._listed = SymbolTable(SymbolKind.PDB, unpack_functions(self._parts.functions))
        return self._listed

    def __len__(self) -> int:
        """Return the number of functions in the PDB."""
        return count_functions(self._parts.functions)

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """Return name and RVA of the function that starts at or before `rva`, or None.

        The result is also None if `rva` is in a piece of a function that was moved away from the function's start.
        """
        before = self._omap.before(rva)
        found = self._list.nearest(before)
        if found is None:
            return None
        start = rva - (before - found[1])
        return (found[0], start) if self._omap.after(found[1]) == start else None

    def rva_of(self, name: str) -> int | None:
        """Return the RVA of the function called `name`, or None."""
        before = self._list.rva_of(name)
        return None if before is None else self._omap.after(before)

    def locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        """Return the functions at `rva`. Inlined ones come first, from the innermost outwards.

        The last is the function into which they were inlined.
        """
        known = self._located.get(rva)
        if known is None:
            if len(self._located) >= _MAX_REMEMBERED:
                self._located.clear()
            known = self._located[rva] = self._look_up(rva)
        return known

    def frame_data(self, rva: int) -> FrameData | None:
        """Return the innermost frame data record that covers `rva`, or None."""
        return self._frame_table().find(rva)

    def frame_description(self, rva: int) -> FrameData | None:
        """Return the record that `kv` shows for the function at `rva`, or None."""
        return self._frame_table().described(rva)

    def _frame_table(self) -> FrameDataTable:
        if self._frames is None:
            self._frames = FrameDataTable(self._parts.frames.decode("utf-8", "replace"))
        return self._frames

    def _look_up(self, rva: int) -> tuple[LocatedFunction, ...]:
        # If the image was rearranged, the pieces of a function may be anywhere. Offsets into a function therefore count
        # as in the image before: `f+0x20` is 0x20 bytes after the start of `f` there.
        before = self._omap.before(rva)
        try:
            found = self._symcache.lookup(before)
        except Exception:  # noqa: BLE001 the SymCache of a damaged PDB can make symbolic panic
            found = []
        if not found:  # the address is between two functions or before the first
            return tuple(replace(location, is_inside=False) for location in super().locate(rva))
        is_inside = True if found[0].full_path else None  # a public symbol has no end
        start_now = found[-1].sym_addr + rva - before
        if is_inside is None and self._omap.after(found[-1].sym_addr) != start_now:
            is_inside = True  # the block was moved away: its neighbours are other functions and prove nothing
        locations = []
        for index, entry in enumerate(found):
            name = display_name(entry.symbol)
            file = _DRIVE_INSIDE.sub("", entry.full_path or "")
            source = f"{file} @ {entry.line}" if file and entry.line else ""
            start = start_now if index == len(found) - 1 else None
            has_types = entry.symbol != name and not is_decorated(entry.symbol)
            signature = entry.symbol.replace("<NoType>", "...") if has_types else ""
            locations.append(LocatedFunction(name, start, source, entry.symbol, signature, is_inside))
        return tuple(locations)


class PdbSymbols:
    """A `SymbolSource` and `FrameDataSource` that finds the PDBs of images along a symbol path."""

    def __init__(
        self,
        path: SymbolPath,
        *,
        cache: Path,
        say: Say,
        progress: Progress | None = None,
        identify: Callable[[Image], PdbIdentity | None] | None = None,
        max_size: int = 2 << 30,
        time_limit: float = 300.0,
    ) -> None:
        """`path` is searched for PDBs. Converted PDBs are kept in the directory `cache`.

        `say` is called with messages for the user, and `progress` while a PDB is converted. `identify` returns the
        identity of the PDB of an image whose RSDS record cannot be read. A PDB of more than `max_size` bytes is
        refused. A conversion that takes more than `time_limit` seconds is given up.
        """
        self._path = path
        self._cache = cache
        self._say = say
        self._progress = progress
        self._identify = identify
        self._max_size = max_size
        self._time_limit = time_limit
        self._tables: dict[PdbIdentity, PdbTable | None] = {}

    def __call__(self, image: Image) -> PdbTable | None:
        """Return the symbols of the PDB of `image`, or None if there is none that can be read."""
        identity = image.pdb
        if identity is None and self._identify is not None:
            identity = self._identify(image)
        if identity is None:
            return None
        if identity not in self._tables:
            self._tables[identity] = self._load(identity)
        return self._tables[identity]

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the innermost frame data record of the image's PDB that covers `rva`, or None."""
        table = self(image)
        return None if table is None else table.frame_data(rva)

    def _load(self, identity: PdbIdentity) -> PdbTable | None:
        pdb = self._path.find(identity, lambda candidate: check_pdb(candidate, identity, self._max_size))
        if pdb is None:
            return None
        try:
            status = pdb.stat()
            return self._table(pdb, identity, (status.st_size, status.st_mtime_ns))
        except ImportError as error:
            self._say(f"{pdb}: not read: {error}")
        except Exception as error:  # noqa: BLE001 whatever the library raises, a panic too: go on without the PDB
            self._say(f"{pdb}: cannot be read: {_one_line(error)}")
        return None

    def _table(self, pdb: Path, identity: PdbIdentity, stamp: tuple[int, int]) -> PdbTable | None:
        name = safe_name(identity.name) or "pdb"
        kept = self._cache / "pdb" / name / f"{store_key(identity)}.symbols"
        reason = self._distrust()
        table = self._from_cache(kept, identity, stamp) if reason is None else None
        if table is not None:
            return table
        reason = reason or self._full(stamp[0])
        if reason is not None:
            self._say(f"{self._cache} is not used: {reason}; PDBs are converted again in every run")
            with tempfile.TemporaryDirectory() as private:
                return self._convert(pdb, identity, Path(private).resolve() / kept.name, stamp)
        with private_directory(self._cache) as private:
            own = private.resolve() / kept.name
            # Another run may convert the same PDB now. Each run reads the file that it made itself.
            table = self._convert(pdb, identity, own, stamp)
            if table is not None:
                with suppress(OSError):
                    put(own, kept, self._cache)
            return table

    def _from_cache(self, kept: Path, identity: PdbIdentity, stamp: tuple[int, int]) -> PdbTable | None:
        try:
            parts = load(kept, stamp)
            return None if parts is None else PdbTable(parts, identity)
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 as above; the file in the cache may be damaged in any way
            self._say(f"{kept}: not a valid converted PDB ({_one_line(error)}); the PDB is converted again")
        return None

    def _distrust(self) -> str | None:
        """Make the cache directory if it does not exist. Return why its files are not trusted, or None if they are."""
        try:
            make_private(self._cache)
            return distrust(self._cache)
        except OSError:
            return "it cannot be made"

    def _full(self, size: int) -> str | None:
        """Return why a file of `size` bytes cannot be put into the cache, or None if it can."""
        try:
            if os.access(self._cache, os.W_OK) and free_space(self._cache) >= size:
                return None
        except OSError:
            pass
        return "it cannot be written or is full"

    def _convert(self, pdb: Path, identity: PdbIdentity, out: Path, stamp: tuple[int, int]) -> PdbTable | None:
        """Convert `pdb` into the file `out` in a private directory, and open it.

        If that fails, give a message and return None.
        """
        if can_start():
            reason = self._run(command("throwstack.pdb.convert", _LIBRARIES, _arguments(pdb, out, stamp)), pdb, out)
            if reason is not None:
                self._say(f"{pdb}: {reason}")
                return None
        else:
            from throwstack.pdb.convert import convert  # noqa: PLC0415 only if there is no interpreter to start

            save(out, convert(pdb), stamp)
        parts = load(out, stamp)
        return None if parts is None else PdbTable(parts, identity)

    def _run(self, command: list[str], pdb: Path, out: Path) -> str | None:
        """Run the converting process. Return the reason if it fails, or None if it succeeds."""
        with tempfile.TemporaryFile() as answer:
            process = subprocess.Popen(  # noqa: S603 our own module; the arguments are paths and numbers
                command, cwd=out.parent, stdin=subprocess.PIPE, stdout=answer, stderr=subprocess.DEVNULL
            )
            try:
                in_time = self._wait(process, pdb)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdin is not None:
                    process.stdin.close()
            answer.seek(0)
            reason = answer.read(400).decode("utf-8", "replace")
        if not in_time:
            return f"given up after {self._time_limit:.0f} s"
        if process.returncode:
            return f"cannot be read: {_one_line(reason or 'the system ended its reader')}"
        return None

    def _wait(self, process: subprocess.Popen[bytes], pdb: Path) -> bool:
        """Wait until the converting process ends. Return False if it takes too long."""
        deadline = time.monotonic() + self._time_limit
        while process.poll() is None:
            if time.monotonic() > deadline:
                return False
            if self._progress is not None:
                self._progress(0, f"Reading {pdb.name}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        return True


def _arguments(pdb: Path, out: Path, stamp: tuple[int, int]) -> list[str]:
    """Return the arguments of `throwstack.pdb.convert`.

    The path of the PDB is absolute, because the process works in another directory.
    """
    return [str(pdb.absolute()), str(out), *map(str, stamp)]


def _one_line(error: object) -> str:
    """Return an error of a library as one line of at most 200 printable characters."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
