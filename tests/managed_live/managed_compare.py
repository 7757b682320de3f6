# SPDX-License-Identifier: Apache-2.0
"""Compares what is said of a crashed managed process with what the runtime printed, and with the program's notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.live.capture import Capture
from tests.managed_live.console_text import OVERFLOW
from tests.managed_live.managed_fixtures import DECOYS, HRESULTS, Scenario, scenario_named

Row = Mapping[str, Any]
PROGRAMS_OWN = "Shop."
PRINTS_FIRST_INNER_ONLY = ("2.1-x64", "2.1-x86")


@dataclass(frozen=True)
class SeenFrame:
    """A frame of an exception, as it was read out of memory. `name` is `Namespace.Type.Method(Int32 number)`."""

    name: str
    is_last_of_earlier: bool = False


@dataclass(frozen=True)
class SeenException:
    """An exception, as it was read out of memory. `frames` are innermost first; no `hresult` is not looked at."""

    type: str
    message: str | None
    frames: tuple[SeenFrame, ...] = ()
    inner: tuple[SeenException, ...] = ()
    hresult: int | None = None

    def flat(self) -> list[SeenException]:
        """Return it and all inner ones, depth first."""
        return [self, *(one for inner in self.inner for one in inner.flat())]


@dataclass
class Comparison:
    """The figures of one process, and what is wrong."""

    exceptions: int = 0
    types: int = 0
    messages: int = 0
    frames: int = 0
    names: int = 0
    problems: list[str] = field(default_factory=list)


def compare(capture: Capture, truth: Mapping[str, Any], seen: SeenException | None = None) -> Comparison:
    """Compare a process with its truth: what was printed with what the program throws, and with that what was read.

    Where nothing was read (`seen` is None), the figures have only what the truth holds. Frames of a stack overflow are
    not counted: no object has recorded them.
    """
    printed = list(_flat(truth["exception"]))
    found = Comparison(len(printed), frames=sum(len(one["frames"]) for one in printed if one["type"] != OVERFLOW))
    found.problems += _truth_problems(capture, truth, [one["type"] for one in printed])
    if seen is not None:
        _compare_exceptions(found, truth, printed, seen.flat())
    return found


def row_problems(truth: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Return what is wrong with the rows of `windows.unhandled`: the thread that threw has one, and no other thread."""
    names = {decoy["tid"]: decoy["name"] for decoy in truth["decoys"]}
    own = [row for row in rows if row["TID"] == truth["tid"]]
    others = [row["TID"] for row in rows if row["TID"] != truth["tid"]]
    problems = [f"a row of thread {tid} ({names.get(tid, 'not noted')})" for tid in others]
    if len(own) != 1:
        problems.append(f"{len(own) or 'no'} rows of thread {truth['tid']}, which threw")
    return problems


def _truth_problems(capture: Capture, truth: Mapping[str, Any], printed: Sequence[str]) -> Iterator[str]:
    """Yield where the truth itself is not what the program makes."""
    expected = _expected(scenario_named(truth["scenario"]), truth["runtime"])
    if list(printed) != expected:
        yield f"the runtime printed {', '.join(printed)}; the program throws {', '.join(expected)}"
    if printed[0] != OVERFLOW and not truth["exception"]["frames"]:
        yield "the runtime printed no frame"
    names = sorted(decoy["name"] for decoy in truth["decoys"])
    if names != sorted(DECOYS):
        yield f"the program noted the threads {', '.join(names)}"
    if truth["tid"] in {decoy["tid"] for decoy in truth["decoys"]}:
        yield f"thread {truth['tid']} threw, and was to wait only"
    missing = [decoy["name"] for decoy in truth["decoys"] if decoy["tid"] not in {t.tid for t in capture.threads}]
    if missing:
        yield f"threads that were not captured: {', '.join(missing)}"


def _expected(scenario: Scenario, runtime: str) -> list[str]:
    several = scenario.types[0] == "System.AggregateException"
    return list(scenario.types[:2] if several and runtime in PRINTS_FIRST_INNER_ONLY else scenario.types)


def _flat(exception: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield exception
    for inner in exception["inner"]:
        yield from _flat(inner)


def _compare_exceptions(
    found: Comparison, truth: Mapping[str, Any], printed: Sequence[Mapping[str, Any]], seen: Sequence[SeenException]
) -> None:
    """Compare one exception after the other; .NET Core 2.1 prints fewer of several than there are."""
    if len(seen) < len(printed) or (len(seen) > len(printed) and truth["runtime"] not in PRINTS_FIRST_INNER_ONLY):
        found.problems.append(f"{len(seen)} exceptions, printed are {len(printed)}")
    for one, other in zip(printed, seen, strict=False):
        found.types += one["type"] == other.type
        if one["type"] != other.type:
            found.problems.append(f"{other.type}, printed is {one['type']}")
        hresult = HRESULTS.get(one["type"])
        if hresult is not None and other.hresult not in {None, hresult}:
            found.problems.append(f"{other.type} has HRESULT {other.hresult:#x}, not {hresult:#x}")
        if one["type"] == OVERFLOW:
            continue
        # An empty message is printed as none is.
        is_right = (one["message"] or "") == (other.message or "")
        found.messages += is_right
        if not is_right:
            found.problems.append(f"message {other.message!r}, printed is {one['message']!r}")
        found.names += _frames_right(found, one["frames"], other.frames)


def _frames_right(found: Comparison, printed: Sequence[Mapping[str, Any]], seen: Sequence[SeenFrame]) -> int:
    """Return how many printed frames are there, in the order of print.

    The runtime does not print some of its own frames, and of async methods not where an earlier stack ends: both may be
    there. Before .NET 5 it prints a blank after a parameter that has no name, `(Int32 , String )`, which nobody reads.
    """
    places: list[int] = []
    ends: list[tuple[int, str]] = []
    for frame in printed:
        parameters = frame["parameters"].replace(" ,", ",").removesuffix(" ")
        name = f"{frame['method']}({parameters})"
        start = places[-1] + 1 if places else 0
        place = next((index for index in range(start, len(seen)) if seen[index].name == name), None)
        if place is None:
            found.problems.append(f"no frame {name}")
            continue
        if frame.get("is_last_of_earlier"):
            ends.append((len(places), name))
        places.append(place)
    for index, name in ends:
        until = places[index + 1] if index + 1 < len(places) else len(seen)
        if not any(one.is_last_of_earlier for one in seen[places[index] : until]):
            found.problems.append(f"an earlier stack does not end with {name}")
    more = [one.name for index, one in enumerate(seen) if index not in places and one.name.startswith(PROGRAMS_OWN)]
    found.problems += [f"a frame {name}, which was not printed" for name in more]
    return len(places)
