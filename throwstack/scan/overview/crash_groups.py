# SPDX-License-Identifier: Apache-2.0
"""The crashes of a scan by signature, as values for the page: small, and no more than a browser shows quickly.

Numbers of crashes and dumps are always those of all. What is listed is limited: the dumps and stacks of a group, and
the groups; the page says how many it leaves out, and the tables have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from throwstack.core.text import escape
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.table_rows import subject

MOST_GROUPS = 10_000
_MOST_CRASHES = 200
"""The most crashes of a group that are listed, and of all groups together `_MOST_LISTED`."""
_MOST_LISTED = 20_000
_MOST_STACKS = 3
_MOST_FRAMES = 60
_MOST_WORDS = 20
_MOST_DUMPS = 20_000
_MAX_TEXT = 512


@dataclass(slots=True)
class _Group:
    """The crashes that have one signature."""

    text: str
    digest: str
    what: str = ""
    crashes: int = 0
    dumps: int = 0
    last_dump: str = ""
    times: dict[str, int] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    machines: set[str] = field(default_factory=set)
    systems: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    stacks: dict[tuple[str, ...], int] = field(default_factory=dict)
    listed: list[list[Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        days = sorted(self.times)
        return {
            "signature": self.text,
            "digest": self.digest,
            "what": self.what,
            "crashes": self.crashes,
            "dumps": self.dumps,
            "first": days[0] if days else "",
            "last": days[-1] if days else "",
            "days": [[day, self.times[day]] for day in days],
            "processes": list(self.processes),
            "machines": len(self.machines),
            "machine_names": sorted(self.machines)[:_MOST_CRASHES],
            "systems": list(self.systems),
            "versions": list(self.versions),
            "verdicts": list(self.verdicts),
            "stacks": [list(stack) for stack in self.stacks],
            "listed": self.listed,
        }


class CrashGroups:
    """Collects crashes and dumps, record by record."""

    def __init__(self) -> None:
        """Begin with no record."""
        self._groups: dict[tuple[str, str], _Group] = {}
        self._dumps: list[list[Any]] = []
        self._outcomes: dict[str, int] = {}
        self._crashes = self._listed = self._left_out = 0

    def collected(self, records: Iterable[DumpRecord]) -> Iterator[DumpRecord]:
        """Yield `records` as they are, and collect what the page shows of each."""
        for record in records:
            self._add(record)
            yield record

    def as_json(self) -> dict[str, Any]:
        """Return the values for the page: groups with most crashes first, dumps in the order in which they came."""
        ordered = sorted(self._groups.values(), key=lambda group: (-group.crashes, group.text, group.digest))
        return {
            "crashes": self._crashes,
            "left_out": self._left_out,
            "dumps_in_all": sum(self._outcomes.values()),
            "outcomes": self._outcomes,
            "groups": [group.as_json() for group in ordered],
            "dumps": self._dumps,
        }

    def _add(self, record: DumpRecord) -> None:
        outcome = record.outcome.value
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        report = record.report or {}
        machine = report.get("machine", {})
        index = len(self._dumps)
        if index < _MOST_DUMPS:
            self._dumps.append(_dump(record, machine))
        for crash in report.get("crashes", ()):
            self._crashes += 1
            signature = crash.get("signature", {})
            key = signature.get("text", ""), signature.get("digest", "")
            if key not in self._groups and len(self._groups) >= MOST_GROUPS:
                self._left_out += 1
                continue
            group = self._groups.setdefault(key, _Group(*key))
            self._count(group, record, report, crash)
            if len(group.listed) < _MOST_CRASHES and self._listed < _MOST_LISTED and index < _MOST_DUMPS:
                self._listed += 1
                group.listed.append(_listed(index, group, crash))

    def _count(self, group: _Group, record: DumpRecord, report: dict[str, Any], crash: dict[str, Any]) -> None:
        machine = report["machine"]
        group.crashes += 1
        group.dumps += group.last_dump != record.path
        group.last_dump = record.path
        group.what = group.what or _what(crash)
        day = machine.get("time", "")[:10]
        if day:
            group.times[day] = group.times.get(day, 0) + 1
        _tally(group.processes, crash["process"]["name"])
        if machine.get("name"):
            group.machines.add(machine["name"])
        _tally(group.systems, _system(machine))
        _tally(group.versions, subject(report, crash)[1] or "")
        _tally(group.verdicts, crash["verdict"]["text"])
        stack = _stack(crash)
        if stack in group.stacks or len(group.stacks) < _MOST_STACKS:
            group.stacks[stack] = group.stacks.get(stack, 0) + 1


def _dump(record: DumpRecord, machine: dict[str, Any]) -> list[Any]:
    report = record.report or {}
    missing = report.get("file", {}).get("missing_pages")
    return [
        escape(record.path, _MAX_TEXT),
        record.outcome.value,
        record.reason if record.outcome is not DumpOutcome.EXAMINED else "",
        _system(machine) if machine else "",
        machine.get("time", ""),
        record.crashes,
        len(report.get("warnings", ())) + len(report.get("unexamined", ())),
        [warning["text"][:_MAX_TEXT] for warning in report.get("warnings", ())[:_MOST_WORDS]],
        missing,
        record.files,
    ]


def _listed(index: int, group: _Group, crash: dict[str, Any]) -> list[Any]:
    """Return a crash as it is listed: dump, process, PID, TID, verdict, what was thrown if that differs, and stack."""
    what = _what(crash)
    stacks = list(group.stacks)
    stack = _stack(crash)
    return [
        index,
        crash["process"]["name"],
        crash["process"]["pid"],
        crash["tid"],
        crash["verdict"]["text"],
        "" if what == group.what else what,
        stacks.index(stack) if stack in group.stacks else -1,
    ]


def _what(crash: dict[str, Any]) -> str:
    exceptions = crash.get("exceptions")
    title: str = exceptions[0].get("title", exceptions[0]["code"]) if exceptions else ""
    return title[:_MAX_TEXT]


def _stack(crash: dict[str, Any]) -> tuple[str, ...]:
    """Return the call sites of the stack that threw, or of the one on which the thread waits."""
    walk = crash.get("throwing") or crash.get("blocked") or {"frames": []}
    frames = [frame["name"][:_MAX_TEXT] + ("  [guess]" if frame["trust"] == "scan" else "") for frame in walk["frames"]]
    left_out = len(frames) - _MOST_FRAMES
    return (*frames[:_MOST_FRAMES], f"… {left_out} more") if left_out > 0 else tuple(frames)


def _system(machine: dict[str, Any]) -> str:
    words = (machine.get("system", ""), machine.get("service_pack", ""), machine.get("architecture", ""))
    return " ".join(filter(None, words))


def _tally(counts: dict[str, int], word: str) -> None:
    if word and (word in counts or len(counts) < _MOST_WORDS):
        counts[word] = counts.get(word, 0) + 1
