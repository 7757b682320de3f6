# SPDX-License-Identifier: Apache-2.0
"""What a report says of a managed crash, as facts that can be compared one by one, and with each what it remarks there.

A loss may take a fact away if a remark says so in the place where a reader looks for it: a frame's own note or the end
of its stack, else the details, notes and doubts of the crash. A fact must not become another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from throwstack.names.symbols import SymbolKind
from throwstack.report.crash_report import CrashReport, InnerException
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.managed_report import RECORDED

_INNER = ("inner exception: ", "its inner exception: ")
_ANEW = "the runtime raised the same exception before"
_DERIVED = ("thrown at", "signature", "title")
"""What is made of other facts: it may become another one where one of these is lost."""


@dataclass
class Facts:
    """The facts by name, "" where one is absent; and the remarks by place, the crash's own under ""."""

    values: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, set[str]] = field(default_factory=dict)

    def remark(self, place: str, texts: Sequence[str]) -> None:
        """Add remarks of a place."""
        self.remarks.setdefault(place, set()).update(text for text in texts if text)


@dataclass(frozen=True)
class Loss:
    """What a report has less than another: names of `missing` facts, of `other` ones, and of those without a remark."""

    missing: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def facts_of(crash: CrashReport) -> Facts:
    """Return the facts of a report."""
    found = Facts()
    # The runtime raises a fault anew: such exceptions have one object, and are one, called after the first CONTEXT.
    first = {one.object_address: one.context_address for one in crash.exceptions if one.object_address is not None}
    for number, exception in enumerate(crash.exceptions):
        where = f"exception at {first.get(exception.object_address) or exception.context_address or number}"
        if f"{where}: type" in found.values:
            continue
        found.values |= {
            f"{where}: type": exception.type,
            f"{where}: message": exception.message,
            f"{where}: HRESULT": str(exception.hresult or ""),
            f"{where}: title": exception.title,
        }
        found.values |= {f"{where}: base {base}": "yes" for base in exception.bases}
        found.remark("", [text for text in exception.details if not text.startswith(_INNER)])
        _add_frames(found, f"{where}: recorded", exception.logical_stack)
        _add_inner(found, where, exception.inner)
        if exception.stack is not None:
            _add_walk(found, f"{where}: stack", exception.stack)
    for name, walk in (("throwing", crash.throwing), ("blocked", crash.blocked)):
        if walk is not None:
            _add_walk(found, name, walk)
    found.values |= {"thrown at": crash.thrown_at, "signature": str(crash.signature or "").partition(" (")[0]}
    found.remark("", [*crash.doubts, *(note for note in crash.notes if not note.startswith(_ANEW))])
    return found


def lost(usual: Facts, now: Facts) -> Loss:
    """Return what is less in `now` than in `usual`."""
    gone = {name for name, value in usual.values.items() if value and not now.values.get(name)}
    changed = {name for name, value in usual.values.items() if value and name not in gone} - {
        name for name, value in usual.values.items() if now.values.get(name) == value
    }
    gone |= {name for name in changed if _is_part(now.values[name], usual.values[name])}
    derived = {name for name in gone | changed if name.endswith(_DERIVED)}
    missing, other = sorted(gone - derived), sorted(changed - gone - derived)
    new = {place: texts - usual.remarks.get(place, set()) for place, texts in now.remarks.items()}
    silent = [name for name in missing if not any(new.get(place) for place in ("", *_places(name)))]
    if not missing and not any(new.values()):
        silent += sorted(derived)
        silent += [f"note: {note}" for note in usual.remarks.get("", set()) - now.remarks.get("", set())]
    said = tuple(dict.fromkeys(text for texts in new.values() for text in sorted(texts)))
    return Loss(tuple(missing), tuple(other), tuple(silent), said)


def _is_part(now: str, usual: str) -> bool:
    """Say whether a text is the beginning of another one (a name without its parameters), or has `…` for what lacks."""
    return usual.startswith(now) or re.fullmatch(re.escape(now).replace("…", ".*"), usual, re.DOTALL) is not None


def _places(name: str) -> Iterator[str]:
    """Yield where a remark on a fact may be: at the fact, and at what it is a part of."""
    yield name
    while ": " in name:
        name = name.rpartition(": ")[0]
        yield name


def _add_inner(found: Facts, where: str, inner: Sequence[InnerException]) -> None:
    for number, item in enumerate(inner):
        place = f"{where}: inner {item.address or number}"
        found.values |= {
            f"{place}: type": item.type,
            f"{place}: message": item.message,
            f"{place}: HRESULT": str(item.hresult or ""),
        }
        _add_frames(found, f"{place}: recorded", item.logical_stack)
        _add_inner(found, place, item.inner)


def _add_walk(found: Facts, where: str, walk: WalkReport) -> None:
    _add_frames(found, where, walk.frames)
    if not walk.is_complete:
        found.remark(where, [walk.detail or str(walk.end)])


def _add_frames(found: Facts, where: str, frames: Sequence[FrameReport]) -> None:
    seen: dict[str, int] = {}
    for frame in frames:
        key = f"{where}: {frame.ip} {frame.sp}"
        seen[key] = seen.get(key, 0) + 1
        place = key if seen[key] == 1 else f"{key} #{seen[key]}"
        if frame.trust == RECORDED or frame.symbols == SymbolKind.CLR.value:
            found.values[f"{place}: frame"] = "yes"
            found.values[f"{place}: method"] = frame.function
            found.values[f"{place}: offset"] = hex(frame.offset) if frame.offset else ""
        found.values[f"{place}: end of earlier stack"] = "yes" if "end of stack trace" in frame.note else ""
        found.remark(place, [frame.note])
        if frame.trust == "scan":
            found.remark(where, ["guessed frames"])


def differences(usual: Mapping[str, str], now: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Return lines that say what facts were and are."""
    return [f"{name}: {usual.get(name)!r} is {now.get(name)!r}" for name in names]
