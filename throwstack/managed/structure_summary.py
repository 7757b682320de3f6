# SPDX-License-Identifier: Apache-2.0
"""What was learnt of the structures of a process's runtime: offsets and counts, and nothing of the process's data.

No process of .NET Framework was at hand when its structures were described (`throwstack.managed.runtime_layout`). This
summary, from a dump of one, shows what holds there and what does not. It has no names of the program, no messages, no
addresses and no file paths, so that it can be passed on.

Three things in it prove that what was read is right. Code that a JIT compiler or precompiler made leads to a method,
and so does the frame that an exception has recorded: both have to be the same. The word below a recorded stack pointer
is the return address into that frame. And the classes of an exception's chain of bases have names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from throwstack.images.image import Image
from throwstack.managed.managed_exception import ManagedException, ManagedFrame
from throwstack.managed.process_code import ManagedCode, text_of
from throwstack.managed.runtime import Runtime
from throwstack.managed.runtime_module import file_version
from throwstack.managed.structure_map import WordMap

_MAX_THREADS, _MAX_MAPPED = 256, 2
"""The most threads of a process that are asked for an exception, and the most whose structures are shown as maps."""
_MAX_REASONS = 32
_NUMBER = re.compile(r"(0x[0-9a-f]+|\d[\d,]*)[.,;:)]?")
_PLAIN = re.compile(r"\(?[a-z][a-z'-]*[.,;:)]?")
_ARGUMENTS = re.compile(r"(?<!\\)\[.*")
"""The type arguments of a generic type's name. A bracket that is part of a name has a backslash before it."""
_OURS = frozenset(
    {
        *("MethodTable", "EEClass", "MethodDesc", "HRESULT", "System.Exception", "ReadyToRun", "NGEN", "CLI", "RVA"),
        *("Windows", "Volatility", "ISF"),
    }
)
"""Words of our own reasons that have capital letters."""


@dataclass(frozen=True, slots=True)
class RuntimeFile:
    """The file of a runtime: its name, version, timestamp and size of image (as symbol servers ask), and its PDB."""

    name: str
    version: str = ""
    timestamp: int | None = None
    image_size: int | None = None
    pdb: str = ""


@dataclass(frozen=True, slots=True)
class StructureSummary:
    """The summary of one process. `counts` and `reasons` have how often something is there, or was missing, and why."""

    runtime: str
    pointer_size: int
    file: RuntimeFile
    facts: tuple[str, ...]
    counts: dict[str, int]
    reasons: dict[str, int]
    maps: tuple[WordMap, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the summary as lines of text."""
        file = self.file
        yield f"runtime: {self.runtime}, {8 * self.pointer_size} bits"
        identity = "" if file.timestamp is None else f", {file.timestamp:08X}{file.image_size:x}"
        yield f"file: {file.name} {file.version}".rstrip() + identity + (f", {file.pdb}" if file.pdb else "")
        yield from self.facts
        yield from (f"{what}: {count}" for what, count in self.counts.items())
        yield from (f"{count} times: {reason}" for reason, count in self.reasons.items())
        for each in self.maps:
            yield f"{each.structure}, {self.pointer_size} bytes a letter:"
            yield from each.rows()


def structure_summary(code: ManagedCode, tids: Sequence[int]) -> StructureSummary | None:
    """Return the summary of a process with the threads `tids`; it asks for the exception of each, of at most 256.

    None if the process has no runtime.
    """
    runtime = code.runtime
    if runtime is None:
        return None
    thrown = {tid: runtime.last_thrown(tid) for tid in tids[:_MAX_THREADS]}
    last = {tid: each.exception for tid, each in thrown.items() if each.exception is not None}
    found = [item for each in last.values() for item in _with_inner(each)]
    frames = [frame for item in found for frame in item.stack]
    reasons = Counter(without_data(each.reason) for each in thrown.values() if each.reason)
    for item in found:
        reasons.update(without_data(reason, names_of(item)) for reason in item.reasons)
    reasons.update(without_data(frame.method.reason) for frame in frames if frame.method.reason)
    return StructureSummary(
        runtime.version,
        runtime.pointer_size,
        _file(runtime.image),
        tuple(runtime.learnt()),
        {
            "threads": len(tids),
            "threads with an exception": len(last),
            "exceptions": len(found),
            "exceptions with a class": sum(bool(item.type_name) for item in found),
            "exceptions with a message": sum(item.message is not None for item in found),
            "recorded frames": len(frames),
            "recorded frames with a name": sum(bool(frame.method.name) for frame in frames),
            "recorded frames with parameters": sum(bool(frame.method.parameters) for frame in frames),
            **_agreement(code, runtime, frames),
        },
        dict(reasons.most_common(_MAX_REASONS)),
        tuple(each for tid in list({**last, **thrown})[:_MAX_MAPPED] for each in runtime.structure_maps(tid)),
    )


def _with_inner(exception: ManagedException) -> list[ManagedException]:
    return [exception, *(item for inner in exception.inner for item in _with_inner(inner))]


def _agreement(code: ManagedCode, runtime: Runtime, frames: Sequence[ManagedFrame]) -> dict[str, int]:
    """Return of how many recorded frames the code leads to the recorded method, and the stack to the return address."""
    counts = dict.fromkeys(("in JIT code", "the same method", "in images", "the same name", "return address"), 0)
    for frame in frames:
        if not frame.ip:
            continue
        image = code.image_at(frame.ip)
        at = frame.ip - (not frame.is_before_return)
        if image is None:
            counts["in JIT code"] += 1
            counts["the same method"] += code.method_desc_at(at) == frame.method_desc
        else:
            counts["in images"] += 1
            located = code.locate(image, at - image.base)
            counts["the same name"] += located is not None and located.symbol == text_of(frame.method)
        counts["return address"] += runtime.word_at(frame.sp - runtime.pointer_size) in {frame.ip, frame.ip + 1}
    return {
        "recorded frames in JIT code": counts["in JIT code"],
        "of which the code leads to the recorded method": counts["the same method"],
        "recorded frames in images": counts["in images"],
        "of which the image leads to the recorded method's name": counts["the same name"],
        "recorded frames whose return address is below their stack pointer": counts["return address"],
    }


def _file(image: Image) -> RuntimeFile:
    headers, pdb = image.headers, image.pdb
    return RuntimeFile(
        image.module.name,
        file_version(image),
        None if headers is None else headers.timestamp,
        None if headers is None else headers.image_size,
        "" if pdb is None else f"{pdb.name} {pdb.guid} age {pdb.age}",
    )


def names_of(item: ManagedException) -> Iterator[str]:
    """Yield the names that a reason of an exception may have: of its types, with and without their type arguments."""
    for name in (item.type_name, *item.bases):
        yield from (name, _ARGUMENTS.sub("", name))


def why_overlooked(code: ManagedCode) -> str:
    """Return why a runtime of a process may have been missed, without data of the process; "" if nothing hides one."""
    return without_data(code.why_overlooked, code.image_names) if code.why_overlooked else ""


def without_data(reason: str, names: Iterable[str] = ()) -> str:
    """Return a reason without what it names of the process: `#` for each number, `…` for each name.

    `names` are those that may be in it and look like words of ours: `secret plan.exe`.
    """
    for name in sorted({*names} - {"", *_OURS}, key=len, reverse=True):
        reason = reason.replace(name, "…")
    return " ".join(_plain(word) for word in reason.split())


def _plain(word: str) -> str:
    if _NUMBER.fullmatch(word):
        return "#"
    return word if _PLAIN.fullmatch(word) or word.rstrip(",.:;") in _OURS else "…"
