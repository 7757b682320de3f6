# SPDX-License-Identifier: Apache-2.0
"""PDBs of images: functions, inlined functions, files and lines, frame data. Read with symbolic, once per identity.

A PDB is found along the symbol path by the identity in the image's RSDS record, converted by a process of its own
(`throwstack.pdb.convert`), and what that makes is kept in the user's cache directory. Whatever is wrong with a file
is said once, and the image's names then come from the next source.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from throwstack.demangle import display_name, is_decorated
from throwstack.files.download import Progress
from throwstack.files.symbol_path import Say, SymbolPath, safe_name, store_key
from throwstack.frame_data import FrameData
from throwstack.images import Image, PdbIdentity
from throwstack.pdb.convert import Converted, count_functions, load, save, unpack_functions
from throwstack.pdb.identity import check_pdb
from throwstack.pdb.omap import Omap
from throwstack.pdb.stack_win import FrameDataTable
from throwstack.symbols import Location, SymbolKind, SymbolTable

_START = "import json,os,sys; sys.path[:] = json.loads(os.environ.pop('THROWSTACK_PATH')); \
from throwstack.pdb.convert import main; sys.exit(main(sys.argv[1:]))"
_POLL = 0.2
_SPARE = 1 << 20
"""Bytes that have to be free in the cache beside the PDB's own size, which a converted one hardly ever reaches."""
_DRIVE_INSIDE = re.compile(r"^.*[\\/](?=[A-Za-z]:[\\/])")
"""What clang on another system puts before a Windows path that it takes for a relative one: its working directory."""
_MAX_REMEMBERED = 200_000


class PdbTable(SymbolTable):
    """The symbols of one PDB."""

    __slots__ = ("_frames", "_listed", "_located", "_omap", "_parts", "_symcache")

    def __init__(self, parts: Converted) -> None:
        """Open a converted PDB."""
        import symbolic  # noqa: PLC0415 plugins have to load where it is not installed

        super().__init__(SymbolKind.PDB, ())
        self._parts = parts
        self._omap = Omap(parts.omap_from_source, parts.omap_to_source)
        self._symcache = symbolic.SymCache.from_bytes(parts.symcache)
        self._listed: SymbolTable | None = None
        self._frames: FrameDataTable | None = None
        self._located: dict[int, tuple[Location, ...]] = {}

    @property
    def _list(self) -> SymbolTable:
        """The functions as a list (before the image was rearranged).

        Naming an address does not need it, and a large PDB has a million.
        """
        if self._listed is None:
            self._listed = SymbolTable(SymbolKind.PDB, unpack_functions(self._parts.functions))
        return self._listed

    def __len__(self) -> int:
        """Return the number of functions."""
        return count_functions(self._parts.functions)

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """Return the function that starts at or before `rva` and its RVA, or None.

        None too for a piece of a function that was moved away from its start.
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

    def locate(self, rva: int) -> tuple[Location, ...]:
        """Return the functions at `rva`, innermost inlined one first; the last is the function that holds the code."""
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
        """Return the record that `kv` shows of the function at `rva`, or None."""
        return self._frame_table().described(rva)

    def _frame_table(self) -> FrameDataTable:
        if self._frames is None:
            self._frames = FrameDataTable(self._parts.frames.decode("utf-8", "replace"))
        return self._frames

    def _look_up(self, rva: int) -> tuple[Location, ...]:
        """Offsets into a rearranged function count as in the image before: its pieces may lie anywhere now."""
        before = self._omap.before(rva)
        try:
            found = self._symcache.lookup(before)
        except Exception:  # noqa: BLE001 what symbolic made of a damaged PDB can still make it panic
            found = []
        if not found:  # between functions, or before the first
            return tuple(replace(location, is_inside=False) for location in super().locate(rva))
        is_inside = True if found[0].full_path else None  # a public symbol reaches to the next one
        start_now = found[-1].sym_addr + rva - before
        if is_inside is None and self._omap.after(found[-1].sym_addr) != start_now:
            is_inside = True  # in a block that was moved, what lies around it tells nothing
        locations = []
        for index, entry in enumerate(found):
            name = display_name(entry.symbol)
            file = _DRIVE_INSIDE.sub("", entry.full_path or "")
            source = f"{file} @ {entry.line}" if file and entry.line else ""
            start = start_now if index == len(found) - 1 else None
            has_types = entry.symbol != name and not is_decorated(entry.symbol)
            signature = entry.symbol.replace("<NoType>", "...") if has_types else ""
            locations.append(Location(name, start, source, entry.symbol, signature, is_inside))
        return tuple(locations)


class PdbSymbols:
    """A symbol source (`throwstack.symbols.SymbolSource`) and `FrameDataSource` over the PDBs of a symbol path."""

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
        """Search `path`; keep converted PDBs under `cache`.

        `identify` is asked where the image's own RSDS record cannot be read. A PDB of more than `max_size` bytes is
        refused; a conversion that takes more than `time_limit` seconds is given up.
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
        """Return the symbols of the image's PDB, or None if there is none to be had."""
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
            stamp = status.st_size, status.st_mtime_ns
            parts = self._converted(pdb, identity, stamp)
            return None if parts is None else PdbTable(parts)
        except ImportError as error:
            self._say(f"{pdb}: not read: {error}")
        except Exception as error:  # noqa: BLE001 the library's own kinds, and a panic in it, are all reasons to go on
            self._say(f"{pdb}: cannot be read: {_one_line(error)}")
        return None

    def _converted(self, pdb: Path, identity: PdbIdentity, stamp: tuple[int, int]) -> Converted | None:
        name = safe_name(identity.name) or "pdb"
        kept = self._cache / "pdb" / name / f"{store_key(identity)}.symbols"
        parts = load(kept, stamp)
        if parts is not None:
            return parts
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            usable = os.access(kept.parent, os.W_OK) and shutil.disk_usage(kept.parent).free > stamp[0] + _SPARE
        except OSError:
            usable = False
        if usable:
            # Another process may be at it, with a copy of the PDB that is a moment older: each reads what it made.
            own = kept.with_name(f"{kept.name}-{os.getpid()}")
            try:
                parts = self._convert(pdb, own, stamp)
                with suppress(OSError):
                    own.replace(kept)
            finally:
                own.unlink(missing_ok=True)
            return parts
        self._say(f"{self._cache}: cannot be written or is full; PDBs are converted anew in every run")
        with tempfile.TemporaryDirectory() as directory:
            return self._convert(pdb, Path(directory) / "pdb.symbols", stamp)

    def _convert(self, pdb: Path, out: Path, stamp: tuple[int, int]) -> Converted | None:
        if not sys.executable or getattr(sys, "frozen", False):
            from throwstack.pdb.convert import convert  # noqa: PLC0415 no interpreter to start: in this process then

            save(out, convert(pdb), stamp)
            return load(out, stamp)
        command = [sys.executable, "-c", _START, str(pdb), str(out), *map(str, stamp)]
        environment = {**os.environ, "THROWSTACK_PATH": json.dumps(sys.path)}
        with tempfile.TemporaryFile() as answer:
            process = subprocess.Popen(  # noqa: S603 our own module; the arguments are paths and numbers
                command, env=environment, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.DEVNULL
            )
            try:
                in_time = self._wait(process, pdb)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            answer.seek(0)
            reason = answer.read(400).decode("utf-8", "replace")
        if not in_time:
            self._say(f"{pdb}: given up after {self._time_limit:.0f} s")
            return None
        if process.returncode:
            self._say(f"{pdb}: cannot be read: {_one_line(reason or 'its reader was ended by the system')}")
            return None
        return load(out, stamp)

    def _wait(self, process: subprocess.Popen[bytes], pdb: Path) -> bool:
        """Wait for the conversion to end; return False if it takes too long."""
        deadline = time.monotonic() + self._time_limit
        while process.poll() is None:
            if time.monotonic() > deadline:
                return False
            if self._progress is not None:
                self._progress(0, f"Reading {pdb.name}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        return True


def _one_line(error: object) -> str:
    """Return the first line of what a library says, printable and bounded."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
