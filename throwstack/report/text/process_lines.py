# SPDX-License-Identifier: Apache-2.0
"""The process of a crash: who it is, the modules of its stacks as `lm v` lists them, and its other threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from throwstack.report.frame_report import FrameReport
from throwstack.report.module_report import ModuleReport
from throwstack.report.process_report import ProcessReport
from throwstack.report.text.lines import Line, TextStyle, Tone, below, labelled
from throwstack.report.text.spelling import address, both_bases, count, is_wide, time
from throwstack.report.text.stack_lines import provenance, stack_lines
from throwstack.report.thread_groups import ThreadGroup

_MAX_GROUPS = 8
"""How many groups of threads are named when their stacks are not shown."""
_MAX_TIDS = 8
_SHOWN_CALLS = 4


def process_lines(process: ProcessReport) -> Iterator[Line]:
    """Yield who the process is, under the label `Process`."""
    yield labelled("Process", process.command_line or process.image_path or process.name)
    if process.image_path and process.image_path not in process.command_line:
        yield below(f"image {process.image_path}")
    if process.services:
        yield below(f"service {', '.join(process.services)}")
    parts = []
    if process.started is not None:
        parts.append(f"started {time(process.started)}")
    if process.session is not None:
        parts.append(f"session {process.session}")
    user = process.user or process.user_sid
    if user:
        parts.append(f"user {user}")
    if process.parent_pid:
        name = process.parent_name or "a process that has ended"
        parts.append(f"parent {name} ({both_bases(process.parent_pid)})")
    if parts:
        yield below(", ".join(parts))
    figures = [f"{name} {_kernel(value)}" for name, value in _figures(process)]
    if process.handles:
        figures.append(count(process.handles, "handle"))
    if figures:
        yield below(", ".join(figures), Tone.FAINT)
    for note in process.notes:
        yield below(note, Tone.DOUBT)


def _figures(process: ProcessReport) -> Iterator[tuple[str, int]]:
    for name, value in (("EPROCESS", process.eprocess), ("PEB", process.peb), ("DirBase", process.directory_base)):
        if value is not None:
            yield name, value


def _kernel(value: int) -> str:
    return address(value, is_64bit=is_wide(value))


def module_lines(modules: Sequence[ModuleReport]) -> Iterator[Line]:
    """Yield the modules of the stacks, with version, time, path and PDB."""
    if not modules:
        return
    yield Line()
    yield Line("  Modules on these stacks", Tone.HEADING)
    name_width = max(len(module.name) for module in modules[:64])
    for module in modules:
        is_64bit = any(is_wide(one.base) for one in modules)
        start = address(module.base, is_64bit=is_64bit)
        stamp = "" if module.timestamp is None else f"timestamp {module.timestamp:08x}"
        built = "" if module.built is None else f"({time(module.built)})"
        checksum = "" if module.checksum is None else f"checksum {module.checksum:08x}"
        version = f"version {module.version}" if module.version else ""
        facts = "  ".join(filter(None, (version, f"{stamp} {built}".strip(), checksum)))
        yield Line(f"  {start} {module.name:<{name_width}}  {module.path}", Tone.PLAIN, 11, 2 + len(start))
        yield Line(f"{'':11}{facts}", Tone.FAINT, 13)
        pdb = module.pdb
        identity = (
            "no PDB named" if pdb is None else " ".join((pdb.name, pdb.guid, "" if pdb.age is None else f"{pdb.age:x}"))
        )
        yield Line(f"{'':11}{identity.strip()}, names from {module.symbols.value}", Tone.FAINT, 13)


def other_thread_lines(process: ProcessReport, style: TextStyle) -> Iterator[Line]:
    """Yield the threads of the process that are not stuck: each stack once, whole if `style` says so."""
    groups = process.other_threads
    if not groups:
        return
    threads = count(sum(len(group.tids) for group in groups), "other thread")
    stacks = count(len(groups), "stack")
    yield Line()
    yield Line(f"  {threads} of this process, {stacks}", Tone.HEADING)
    shown = groups if style.all_threads else groups[:_MAX_GROUPS]
    for group in shown:
        yield from _group(group, process, style)
    if len(shown) < len(groups):
        yield Line(f"  and {count(len(groups) - len(shown), 'further stack')} (--all-threads)", Tone.FAINT)
    elif not style.all_threads:
        yield Line("  --all-threads shows these stacks.", Tone.FAINT)


def _group(group: ThreadGroup, process: ProcessReport, style: TextStyle) -> Iterator[Line]:
    tids = group.tids if style.all_threads else group.tids[:_MAX_TIDS]
    more = f" and {len(group.tids) - len(tids)} more" if len(tids) < len(group.tids) else ""
    named = f"{', '.join(f'{tid:x}' for tid in tids)}{more}"
    state = " ".join(filter(None, (group.state, group.wait_reason)))
    calls = "" if style.all_threads else _calls(group)
    yield Line(f"  {named}: {state}{', ' if state and calls else ''}{calls}", Tone.PLAIN, 6, 2 + len(named))
    for note in group.notes:
        yield Line(f"      {note}", Tone.DOUBT, 8)
    if not style.all_threads:
        return
    for is_64bit, frames in _parts(group, process):
        yield from stack_lines(frames, is_64bit=is_64bit, values=False)
        yield provenance(frames)
    if group.ending:
        yield Line(f"  ends early: {group.ending}", Tone.DOUBT)


def _calls(group: ThreadGroup) -> str:
    """Return the innermost functions that are no system's waits, if there are such: what the thread is about."""
    user = [frame for frame in group.frames if frame.module.lower() not in _SYSTEM]
    frames = user or list(group.frames)
    shown = " < ".join(frame.name for frame in frames[:_SHOWN_CALLS])
    return f"in {shown}" if shown else group.ending


_SYSTEM = frozenset({"nt", "ntdll", "kernel32", "kernelbase", "win32k", "win32kbase", "win32kfull", "win32u", "wow64"})
"""Modules through which every thread waits."""


def _parts(group: ThreadGroup, process: ProcessReport) -> Iterator[tuple[bool, tuple[FrameReport, ...]]]:
    """Yield the frames of 64-bit and of 32-bit code apart: a WoW64 process has both."""
    is_64bit = process.eprocess is not None and is_wide(process.eprocess)
    if not process.is_wow64:
        yield is_64bit, group.frames
        return
    for wide, frames in groupby(group.frames, key=lambda frame: is_wide(frame.ip) or is_wide(frame.sp)):
        yield wide, tuple(frames)
