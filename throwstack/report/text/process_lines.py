# SPDX-License-Identifier: Apache-2.0
"""The process of a crash: who it is, the modules of its stacks as `lm v` lists them, and its other threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from throwstack.report.frame_report import FrameReport
from throwstack.report.module_report import ModuleReport
from throwstack.report.process_report import ProcessReport
from throwstack.report.text.spelling import address, both_bases, count, is_wide, time
from throwstack.report.text.stack_lines import provenance, stack_lines
from throwstack.report.text.text_lines import Line, TextStyle, Tone, below, labelled
from throwstack.report.thread_groups import ThreadGroup

_KERNEL = "nt"
_SYSTEM = frozenset({_KERNEL, "ntdll", "kernel32", "kernelbase", "win32k", "win32u", "wow64", "wow64cpu", "wow64win"})
"""Modules through which every thread waits."""
_SCHEDULING = ("Ki", "Ke")
"""How functions of the kernel begin that take a processor from a thread."""
_MOUNTED = re.compile(r'"?(?:\\\?\?\\)?(?:[A-Za-z]:|\\Device\\HarddiskVolume\d+)', re.ASCII)
"""What a path begins with, that says on which volume the rest is."""
_MAX_GROUPS = 8
"""How many groups of threads are named when their stacks are not shown."""
_MAX_TIDS = 8
_SHOWN_CALLS = 4
_COLUMN = 32
"""The widest column for names of modules."""


def process_lines(process: ProcessReport) -> Iterator[Line]:
    """Yield who the process is, under the label `Process`."""
    yield labelled("Process", process.command_line or process.image_path or process.name)
    if process.command_line and process.image_path and not _is_of_image(process.command_line, process.image_path):
        yield below(f"image {process.image_path}")
    facts = list(_facts(process))
    if facts:
        yield below(", ".join(facts))
    figures = list(_figures(process))
    if figures:
        yield below(", ".join(figures), Tone.FAINT)
    for note in process.notes:
        yield below(note, Tone.DOUBT)


def _is_of_image(command_line: str, image_path: str) -> bool:
    r"""Say whether a command line begins with the path of the image, wherever that is mounted.

    It may begin with anything: the command line of `C:\Temp\svchost.exe` can be `C:\Windows\system32\svchost.exe -k x`.
    """
    return _MOUNTED.sub("", command_line, 1).lower().startswith(_MOUNTED.sub("", image_path, 1).lower())


def _facts(process: ProcessReport) -> Iterator[str]:
    if process.services:
        yield f"service {', '.join(process.services)}"
    if process.started is not None:
        yield f"started {time(process.started)}"
    if process.session is not None:
        yield f"session {process.session}"
    user = process.user or process.user_sid
    if user:
        yield f"user {user}"
    if process.parent_pid:
        yield f"parent {process.parent_name or 'ended'} ({both_bases(process.parent_pid)})"


def _figures(process: ProcessReport) -> Iterator[str]:
    is_64bit = process.eprocess is not None and is_wide(process.eprocess)
    for name, value in (("EPROCESS", process.eprocess), ("PEB", process.peb), ("Token", process.token)):
        if value is not None:
            yield f"{name} {address(value, is_64bit=is_64bit)}"
    if process.directory_base is not None:
        yield f"DirBase {process.directory_base:08x}"
    if process.handles:
        yield count(process.handles, "handle")


def module_lines(modules: Sequence[ModuleReport]) -> Iterator[Line]:
    """Yield the modules of the stacks: base, name, version and path; PDB, what names the functions, time, checksum."""
    if not modules:
        return
    yield Line()
    yield Line("  Modules on these stacks", Tone.HEADING)
    names = max(len(module.name) for module in modules)
    versions = max(len(module.version) for module in modules)
    is_64bit = any(is_wide(module.base) for module in modules)
    for module in modules:
        start = address(module.base, is_64bit=is_64bit)
        version = f"  {module.version:<{min(versions, _COLUMN)}}" if versions else ""
        text = f"  {start} {module.name:<{min(names, _COLUMN)}}{version}  {module.path}"
        yield Line(text, Tone.PLAIN, len(start) + 5, len(start) + 2)
        yield Line(f"{'':{len(start) + 3}}{_identity(module)}", Tone.FAINT, len(start) + 5)


def _identity(module: ModuleReport) -> str:
    pdb = module.pdb
    age = "" if pdb is None or pdb.age is None else f" {pdb.age:x}"
    named = "no PDB" if pdb is None else f"{pdb.name} {pdb.guid}{age}"
    parts = [f"{named} ({module.symbols.value})"]
    if module.timestamp is not None:
        built = "" if module.built is None else f" ({module.built:%Y-%m-%d})"
        parts.append(f"timestamp {module.timestamp:08x}{built}")
    if module.checksum:
        parts.append(f"checksum {module.checksum:08x}")
    return ", ".join(parts)


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
    # In decimal, as an option --tid reads them: 2908 can be either, and would name another thread.
    named = f"{', '.join(map(str, tids))}{more}"
    state = " ".join(filter(None, (group.state, group.wait_reason)))
    calls = "" if style.all_threads else calls_of(group)
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


def calls_of(group: ThreadGroup) -> str:
    """Return the innermost functions that tell what the thread is about: of the program, if there are any."""
    program = [frame for frame in group.frames if frame.module.lower() not in _SYSTEM]
    user = [frame for frame in group.frames if frame.module.lower() != _KERNEL]
    kernel = [frame for frame in group.frames if not frame.function.startswith(_SCHEDULING)]
    frames = program or user or kernel or list(group.frames)
    shown = " < ".join(frame.name for frame in frames[:_SHOWN_CALLS])
    return f"in {shown}" if shown else group.ending


def _parts(group: ThreadGroup, process: ProcessReport) -> Iterator[tuple[bool, tuple[FrameReport, ...]]]:
    """Yield the frames of 64-bit and of 32-bit code apart: a WoW64 process has both."""
    is_64bit = process.eprocess is not None and is_wide(process.eprocess)
    if not process.is_wow64:
        yield is_64bit, group.frames
        return
    for wide, frames in groupby(group.frames, key=lambda frame: is_wide(frame.ip) or is_wide(frame.sp)):
        yield wide, tuple(frames)
