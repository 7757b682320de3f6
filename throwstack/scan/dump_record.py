# SPDX-License-Identifier: Apache-2.0
"""What is known of one dump after a scan has examined it, and its JSON form, in which it is kept on disk.

A record says what the file is, how its examination ended, and what it took. `report` is the `DumpReport` in the JSON
form that `docs/schema` describes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from throwstack.core.errors import ThrowstackError

PART_FORMAT = 2
"""The version of the JSON form. Records of another version are not used: their dumps are examined again."""


class DumpOutcome(Enum):
    """How the examination of a file ended."""

    EXAMINED = "examined"
    NO_MEMORY_IMAGE = "no-memory-image"
    """The file is of a kind that holds no image of a machine's memory."""
    UNREADABLE = "unreadable"
    """The file cannot be opened or read."""
    FAILED = "failed"
    """The file may be a memory image, but could not be examined: damaged, or the kernel's symbols are not at hand."""
    KILLED = "killed"
    """The process that examined it ended, in each attempt."""
    TIMED_OUT = "timed-out"
    """The examination took longer than the time limit, in each attempt."""

    @property
    def is_final(self) -> bool:
        """Say whether the same file would give the same outcome again. The others are tried again by the next run."""
        return self in (DumpOutcome.EXAMINED, DumpOutcome.NO_MEMORY_IMAGE)


class NoDumpRecord(ThrowstackError):
    """A text is not the JSON form of a record."""


@dataclass(frozen=True, slots=True)
class DumpRecord:
    """The result of examining one file.

    `path` is absolute. `key` is a digest of all that the answer depends on. `modified` is in nanoseconds since 1970.
    `kind` and `description` say what kind of file it is. `reason` says why there is no report. `seconds` and
    `processor_seconds` are those of the last attempt, `peak_memory` (bytes) is that of the process which examined it;
    they are None if not known. `files` are label and address, relative to the results, of what was written of the dump
    beside the tables; `files_problem` says why something was not.
    """

    path: str
    key: str
    outcome: DumpOutcome
    size: int | None = None
    modified: int | None = None
    kind: str = ""
    description: str = ""
    reason: str = ""
    seconds: float | None = None
    processor_seconds: float | None = None
    peak_memory: int | None = None
    attempts: int = 1
    report: dict[str, Any] | None = None
    files: list[list[str]] = dataclasses.field(default_factory=list)
    files_problem: str = ""

    @property
    def crashes(self) -> int:
        """Return how many stuck threads were found."""
        return 0 if self.report is None else len(self.report["crashes"])

    def to_bytes(self) -> bytes:
        """Return the record as JSON, in ASCII, because paths may hold bytes that are no text."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["outcome"] = self.outcome.value
        return json.dumps({"format": PART_FORMAT, "sha256": _digest(fields), "record": fields}).encode("ascii")


def _digest(fields: dict[str, Any]) -> str:
    """Return the digest by which a part shows that it is as it was written: disks fail, and people edit files."""
    return hashlib.sha256(json.dumps(fields).encode("ascii")).hexdigest()


def read_record(data: bytes) -> DumpRecord:
    """Return the record whose JSON form is `data`; raises NoDumpRecord if it is none, or one of another version."""
    try:
        part = json.loads(data)
        if part["format"] != PART_FORMAT:
            message = "it is of another version"
            raise NoDumpRecord(message)
        fields = part["record"]
        if part["sha256"] != _digest(fields):
            message = "it was changed after it was written"
            raise NoDumpRecord(message)
        return DumpRecord(**{**fields, "outcome": DumpOutcome(fields["outcome"])})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"it is not a record of a dump: {error}"
        raise NoDumpRecord(message) from error
