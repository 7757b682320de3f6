# SPDX-License-Identifier: Apache-2.0
"""The message box that a thread shows: its title and text, and whether a runtime shows it because the program failed.

MessageBox, MessageBoxEx and MessageBoxTimeout take (owner, text, caption, type, …); MessageBoxIndirect takes a
MSGBOXPARAMS {size, owner, instance, text, caption, …}, with which the structure begins that SoftModalMessageBox takes
(winuser.h). On x86 the arguments are on the stack. On x64 they are passed in registers, which are overwritten by the
time the box waits. But USER32 keeps a MSGBOXPARAMS in a frame, and the caller often has pointers to the strings in its
own. So these frames are searched, and what is found so is labelled.

A program shows message boxes for many reasons. A box counts as one of a failure if a function that reports failures
called it, or if its title or text is one that a runtime uses (data/crash_boxes.tsv). The latter matters because a C
runtime that is linked into a program has no names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from throwstack.core.frames import Frame, Walk
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.text import ansi_at, wide_at
from throwstack.names.blockers import Blocker, BlockerKind, blocker_named
from throwstack.names.frame_names import name_of
from throwstack.unwind.target import Target

SEARCHED = "the text of the box was found by a search of the stack"
"""The note on a box whose text is not known from arguments."""
_REPORTERS = frozenset(
    {
        *(BlockerKind.ERROR_BOX, BlockerKind.ABORT, BlockerKind.TERMINATE, BlockerKind.PURE_CALL),
        *(BlockerKind.INVALID_PARAMETER, BlockerKind.GS_FAILURE, BlockerKind.FAIL_FAST),
        *(BlockerKind.UNHANDLED_FILTER, BlockerKind.CLR_WATSON),
    }
)
_MAX_CALLERS = 8
"""How many frames outside the box are looked at. The C runtime's `abort` is six frames outside MessageBox at most."""
_SEARCHED_CALLERS = 3
_MAX_SEARCHED = 0x8000
_LOWEST_POINTER = 0x10000
_TEXT_ARGUMENT = 2
_FATAL_EXITS = frozenset({"FatalAppExitA", "FatalAppExitW"})


@dataclass(frozen=True, slots=True)
class BoxText:
    """Text and title of a message box, escaped; each is "" if it was not found.

    `is_searched`: they were found by a search of the stack, and not as arguments.
    """

    text: str = ""
    title: str = ""
    is_searched: bool = False


def box_text(target: Target, walk: Walk | None) -> str:
    """Return the text of the message box that `walk` shows, escaped; empty if there is none or it was not found."""
    if walk is None:
        return ""
    index = _innermost(target, walk)
    return _fatal_text(target, walk) if index is None else _box_at(target, walk, index).text


def crash_box(target: Target, walk: Walk) -> BoxText | None:
    """Return the message box that `walk` shows because the program has failed; None if there is no such box."""
    index = _innermost(target, walk)
    if index is None:
        return None
    box = _box_at(target, walk, index)
    is_known = _is_known("title", box.title) or _is_known("text", box.text)
    return box if is_known or _is_called_by_reporter(target, walk, index) else None


def unknown_box(target: Target, walk: Walk) -> str:
    """Return a doubt if `walk` shows a message box, and neither its text nor what called it is known; else "".

    It is for x86, where a walk that finds no return address at all is no doubt by itself. Example: the return address
    into the C runtime's reporting function was overwritten, and so were all outside it.
    """
    index = _innermost(target, walk)
    if index is None or walk.is_complete or len(walk.frames) >= _outside(target, walk, index) + _MAX_CALLERS:
        return ""
    box = _box_at(target, walk, index)
    return "" if box.text or box.title else "a message box is shown, and the walk ends before what asked for it"


def without_own_boxes(
    target: Target, walk: Walk, blockers: Sequence[Blocker | None]
) -> tuple[list[Blocker | None], tuple[str, ...]]:
    """Return the blocking functions of the frames of `walk` without message boxes of the program, and notes.

    `blockers` has the blocking function of each frame, or None. A message box counts if another function that triage
    searches for is on the stack, or if the box is one of a failure.
    """
    kept = list(blockers)
    boxes = [index for index, blocker in enumerate(kept) if blocker and blocker.kind is BlockerKind.MESSAGE_BOX]
    if not boxes:
        return kept, ()
    box = crash_box(target, walk)
    is_stuck = any(blocker and blocker.is_triage and blocker.kind is not BlockerKind.MESSAGE_BOX for blocker in kept)
    if box is None and not is_stuck:
        for index in boxes:
            kept[index] = None
    return kept, (SEARCHED,) if box is not None and box.is_searched and box.text else ()


def _innermost(target: Target, walk: Walk) -> int | None:
    return next((index for index, frame in enumerate(walk.frames) if _is_box(target, frame)), None)


def _is_box(target: Target, frame: Frame) -> bool:
    return _kind(target, frame) is BlockerKind.MESSAGE_BOX


def _kind(target: Target, frame: Frame) -> BlockerKind | None:
    name = name_of(target.symbols, frame)
    blocker = None if name.is_doubtful else blocker_named(name.module, name.symbol)
    return None if blocker is None else blocker.kind


def _fatal_text(target: Target, walk: Walk) -> str:
    """Return the text that FatalAppExit(action, text) has csrss show, escaped; empty if there is none, and on x64."""
    for frame in walk.frames if target.arch.facts.arguments_on_stack else ():
        name = name_of(target.symbols, frame)
        if name.symbol in _FATAL_EXITS and frame.return_slot is not None and not name.is_doubtful:
            with suppress(MemoryUnreadable):
                read = ansi_at if name.symbol.endswith("A") else wide_at
                return read(target.memory, target.memory.u32(frame.return_slot + 4 * _TEXT_ARGUMENT))
    return ""


def _outside(target: Target, walk: Walk, index: int) -> int:
    """Return the index of the first frame outside the frames of the box, the innermost of which is at `index`."""
    last = index
    for further in range(index, min(index + _MAX_CALLERS, len(walk.frames))):
        if _is_box(target, walk.frames[further]):
            last = further
    return last + 1


def _is_called_by_reporter(target: Target, walk: Walk, index: int) -> bool:
    start = _outside(target, walk, index)
    return any(_kind(target, frame) in _REPORTERS for frame in walk.frames[start : start + _MAX_CALLERS])


def _box_at(target: Target, walk: Walk, index: int) -> BoxText:
    """Return the box whose innermost frame is at `index` of `walk`."""
    outside = _outside(target, walk, index)
    if target.arch.facts.arguments_on_stack:
        for frame in walk.frames[index:outside]:
            found = _by_arguments(target, frame) if _is_box(target, frame) else None
            if found is not None:
                return found
    low = walk.frames[0].sp
    caller, further = (walk.frames[min(outside + n, len(walk.frames) - 1)] for n in (0, _SEARCHED_CALLERS))
    of_box = _words(target, low, caller.sp)
    found = _parameters_in(target, of_box)
    if found is not None:
        return found
    return _known_strings(target, (*of_box, *_words(target, low + len(of_box) * target.arch.pointer_size, further.sp)))


def _by_arguments(target: Target, frame: Frame) -> BoxText | None:
    """Return the box that an x86 function of USER32 was called to show; None if its arguments do not lead to a text."""
    symbol = name_of(target.symbols, frame).symbol
    if frame.return_slot is None:
        return None
    memory, first = target.memory, frame.return_slot + 4
    read = ansi_at if re.search(r"A(@\d+)?$", symbol) else wide_at
    try:
        if "Indirect" in symbol or "Soft" in symbol:
            return _of_parameters(memory, memory.u32(first), 4, read)
        return _of_strings(memory, first + 4 * (_TEXT_ARGUMENT - 1), 4, read)
    except MemoryUnreadable:
        return None


def _of_parameters(memory: Memory, address: int, size: int, read: Callable[[Memory, int], str]) -> BoxText:
    """Return the box of the MSGBOXPARAMS at `address`; raises MemoryUnreadable. A pointer has `size` bytes."""
    return _of_strings(memory, address + 3 * size, size, read)


def _of_strings(memory: Memory, address: int, size: int, read: Callable[[Memory, int], str]) -> BoxText:
    """Return the box with the text and the title to which two adjacent pointers lead; raises MemoryUnreadable."""
    text, title = (memory.pointer(address + place, size) for place in (0, size))
    shown = read(memory, text)
    try:
        return BoxText(shown, read(memory, title) if title else "")
    except MemoryUnreadable:
        return BoxText(shown)


def _words(target: Target, low: int, high: int) -> tuple[int, ...]:
    """Return the words of the stack from `low` to `high`, as far as they can be read and the budget allows."""
    meter, size = target.meter, target.arch.pointer_size
    length = meter.take(meter.budgets.searched, max(min(high - low, _MAX_SEARCHED), 0))
    data = target.memory.read_available(low, length)
    count = len(data) // size
    return struct.unpack_from(f"<{count}{'Q' if size == 8 else 'I'}", data)


def _parameters_in(target: Target, words: Sequence[int]) -> BoxText | None:
    """Return the box of the outermost MSGBOXPARAMS among `words`, the words of the frames of a box, or None.

    It begins with its own size, ten pointers, in 32 bits. Text and title are wide, because USER32 works with those.
    What an earlier box left is in frames further in.
    """
    meter, memory = target.meter, target.memory
    for index in range(len(words) - 5, -1, -1):
        if words[index] & 0xFFFFFFFF != 10 * target.arch.pointer_size:
            continue
        if not meter.take(meter.budgets.checks):
            return None
        text, title = words[index + 3 : index + 5]
        found = _wide(memory, text), _wide(memory, title) if title else ""
        if found[0] and found[1] is not None:
            return BoxText(found[0], found[1], is_searched=True)
    return None


def _wide(memory: Memory, address: int) -> str | None:
    """Return the text at `address` if it can be a message: printable, with a letter; else None."""
    if address < _LOWEST_POINTER:
        return None
    try:
        text = wide_at(memory, address)
    except MemoryUnreadable:
        return None
    readable = re.fullmatch(r"(?:[ -~]|\\[rnt])+…?", text[:64]) is not None
    return text if readable and re.search(r"[A-Za-z]{2}", text) else None


def _known_strings(target: Target, words: Sequence[int]) -> BoxText:
    """Return the text and the title of a runtime's box to which `words` point; "" for what is not found."""
    text = title = ""
    for word in dict.fromkeys(words):
        for shown in _strings_at(target, word):
            if not text and _is_known("text", shown):
                text = shown
            elif not title and _is_known("title", shown):
                title = shown
        if text and title:
            break
    return BoxText(text, title, is_searched=bool(text or title))


def _strings_at(target: Target, address: int) -> Iterator[str]:
    """Yield the text at `address`, if one may be there and the budget allows to look."""
    if address < _LOWEST_POINTER:
        return
    start = target.memory.read_available(address, 4)
    if len(start) < 4 or not 0x20 < start[0] < 0x7F or not target.meter.take(target.meter.budgets.checks):
        return
    is_wide = not start[1] and not start[3]
    with suppress(MemoryUnreadable):
        yield (wide_at if is_wide else ansi_at)(target.memory, address)


def _is_known(part: str, text: str) -> bool:
    return bool(text) and any(pattern.match(text) for pattern in _patterns(part))


@cache
def _patterns(part: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of data/crash_boxes.tsv for `part`, which is `title` or `text`."""
    lines = (files("throwstack.stuck") / "data" / "crash_boxes.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return tuple(re.compile(pattern) for kind, pattern, _why in rows if kind == part)
