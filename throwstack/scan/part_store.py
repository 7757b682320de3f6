# SPDX-License-Identifier: Apache-2.0
"""The directory `parts` of a scan's results: one file a dump, which holds the dump's record.

A part has a temporary name until it is whole and on the disk, and is then renamed. So whatever kills a run, each part
is either whole or absent. The name of a part is a digest of the dump's path: a new record replaces the old one of the
same path, and no dump has two.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from throwstack.core.errors import ThrowstackError
from throwstack.scan.dump_record import DumpRecord, NoDumpRecord, read_record

_SUFFIX = ".json"
_UNFINISHED = ".unfinished"


class StorageFailed(ThrowstackError):
    """A result cannot be written; the message says where and why."""


class PartStore:
    """The parts in a directory. Any number of processes may write to it at once."""

    def __init__(self, directory: Path) -> None:
        """Keep `directory`, the parts' own directory; it exists after `prepare`."""
        self.directory = directory

    def prepare(self) -> None:
        """Make the directory, and remove what killed runs have left unfinished. Raises StorageFailed."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob(f"*{_UNFINISHED}"):
                with suppress(FileNotFoundError):
                    left.unlink()
        except OSError as error:
            raise _failed(self.directory, error) from error

    def write(self, record: DumpRecord) -> None:
        """Keep `record` in place of any that its dump had before. Raises StorageFailed."""
        target = self._path(record.path)
        try:
            durably_write(target, record.to_bytes())
        except OSError as error:
            raise _failed(self.directory, error) from error

    def read(self, path: str) -> DumpRecord | None:
        """Return the record of the dump at `path`, or None if there is none that can be read."""
        try:
            record = read_record(self._path(path).read_bytes())
        except (OSError, NoDumpRecord):
            return None
        return record if record.path == path else None

    def records(self, paths: Iterator[str]) -> Iterator[DumpRecord]:
        """Yield the records of the dumps at `paths` that have one, in their order, one after the other."""
        for path in paths:
            record = self.read(path)
            if record is not None:
                yield record

    def _path(self, path: str) -> Path:
        return self.directory / (hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + _SUFFIX)


def durably_write(target: Path, data: bytes) -> None:
    """Write `data` to the file `target`, which then is whole and on the disk, or as it was before. Raises OSError."""
    unfinished = target.with_name(f"{target.stem}-{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in `directory` written to the disk, on systems where a directory can be opened for that."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems refuse it
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _failed(directory: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{directory}: {error.strerror or error}")
