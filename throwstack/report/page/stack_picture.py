# SPDX-License-Identifier: Apache-2.0
"""A thread's stack as a picture: the frames of its two walks to scale, and where record and CONTEXT are.

The lowest address is at the top, so that the innermost frame is first, as in a stack trace. The left lane has the walk
on which the thread waits, the right one the walk that threw. Both are on one stack: the frames of the dispatch, with
the CONTEXT, have lower addresses than those that threw. A frame that both walks have is labelled on the right only.

Nothing in the picture is a size of its own: frames of less than two pixels are drawn together, so that a recursion of
10,000 frames is no larger than another stack.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from throwstack.core.registers import Arch
from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import WalkReport
from throwstack.report.key_frames import shared_frames
from throwstack.report.page.address_scale import AddressScale, ScaleBreak
from throwstack.report.page.page_values import number, place, size
from throwstack.report.page.picture_labels import LINE, chosen, placed
from throwstack.report.page.stack_extents import FrameExtent, extents_of
from throwstack.report.text.spelling import count, is_64bit_code

WAITS = "waits"
THREW = "threw"
WIDTH = 1160
_LANE = 74
_GAP = 8
_LEADER = 34
_TOP = 30
_LEAST_HEIGHT = 380
_AIR = 1.2
_LEAST_SEEN = 2
_LEAST_LABELLED = 1024
"""Frames of this size and more have it in their label."""
_MOST_LETTERS = 58
_MOST_MARKS = 8
_FARTHEST = 1 << 30
"""Bounds of a stack that is larger than this are not believed."""
_RECORD_SIZES = {False: 0x50, True: 0x98}
"""The size of an EXCEPTION_RECORD of 32 and of 64 bits (winnt.h)."""


@dataclass(frozen=True, slots=True)
class PictureBlock:
    """A rectangle: frames, or a record or CONTEXT. `kind` is a class of the style.

    `title` is what a pointer shows. `link` is the table and row of a frame; it is empty for several frames, and for
    what is no frame.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str
    lane: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class PictureLabel:
    """A text beside a lane, and the line that leads to what it names (points of an SVG polyline)."""

    x: float
    y: float
    text: str
    size: str
    kind: str
    is_left: bool
    leader: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class PictureLane:
    """A walk in the picture: its name, and the horizontal place of its column."""

    name: str
    x: float
    middle: float


@dataclass(frozen=True, slots=True)
class StackPicture:
    """The whole picture, in the coordinates of an SVG with `width` and `height`. `notes` are sentences below it."""

    width: int
    height: float
    top: float
    lane_width: int
    lanes: tuple[PictureLane, ...]
    blocks: tuple[PictureBlock, ...]
    labels: tuple[PictureLabel, ...]
    breaks: tuple[ScaleBreak, ...]
    bounds: tuple[PictureLabel, ...]
    notes: tuple[str, ...]

    @property
    def bottom(self) -> float:
        """Return where the highest address of the stack is."""
        return self.height - LINE

    def zigzag(self, shortened: ScaleBreak) -> str:
        """Return the points of the line that shows where the scale is broken."""
        left = self.lanes[0].x - 6
        right = self.lanes[-1].x + self.lane_width + 6
        steps = int((right - left) // 8) + 1
        return " ".join(
            f"{left + 8 * step:.1f},{self.top + shortened.y + (3 if step % 2 else -3):.1f}" for step in range(steps)
        )


@dataclass(frozen=True, slots=True)
class _Mark:
    low: int
    high: int
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Walked:
    """A lane's frames. Those from the index `own` on are in the table of the stack that threw, as its first ones."""

    lane: PictureLane
    extents: list[FrameExtent]
    own: int

    def link(self, extent: FrameExtent) -> str:
        """Return which table a frame is in, and its row there: `threw-4`."""
        return f"{THREW}-{extent.index - self.own}" if extent.index >= self.own else f"{self.lane.name}-{extent.index}"


def picture_of(crash: CrashReport) -> StackPicture | None:
    """Return the picture of the stack of a stuck thread, or None if no frame of it is known."""
    walked, skipped = _lanes(crash)
    if not walked:
        return None
    low = min(lane.extents[0].low for lane in walked)
    high = max(lane.extents[-1].high for lane in walked)
    is_64bit = is_64bit_code(crash)
    bounds, notes = _bounds(crash, low, high)
    first = low
    low, high = bounds or (low, high)
    marks, elsewhere = _marks(crash, low, high, is_64bit=is_64bit)
    named = {lane.lane.name: _named(lane, walked) for lane in walked}
    lines = max(len(named.get(THREW, ())) + len(marks), len(named.get(WAITS, ())))
    height = max(_LEAST_HEIGHT, lines * LINE * _AIR)
    edges = [low, high, *(edge for mark in marks for edge in (mark.low, mark.high))]
    edges += [edge for lane in walked for extent in lane.extents for edge in (extent.low, extent.high)]
    scale = AddressScale(edges, height, unused_below=min([first, *(mark.low for mark in marks)]))
    right = walked[-1].lane
    blocks = [block for lane in walked for block in _blocks(lane, scale)]
    blocks += [_block_of_mark(mark, right, scale) for mark in marks]
    labels = [label for lane in walked for label in _labels(lane, named[lane.lane.name], marks, scale, height)]
    notes += [f"{count(skipped, 'frame')} not drawn: on another stack, or in no order."] * bool(skipped)
    return StackPicture(
        WIDTH,
        height + _TOP + LINE,
        _TOP,
        _LANE,
        tuple(lane.lane for lane in walked),
        tuple(blocks),
        tuple(labels),
        scale.breaks,
        tuple(_bound_labels(low, high, walked, height, is_64bit=is_64bit, is_bound=bounds is not None)),
        (*notes, *elsewhere),
    )


def _lanes(crash: CrashReport) -> tuple[list[_Walked], int]:
    """Return the walks that have frames, the one that threw last, and how many frames cannot be drawn."""
    given: list[tuple[str, WalkReport | None]] = [(WAITS, crash.blocked), (THREW, crash.throwing)]
    found = []
    total = 0
    x = WIDTH / 2 - _LANE - _GAP / 2
    for name, walk in given:
        extents, skipped = extents_of(walk.frames if walk else (), is_x86=crash.side is Side.X86)
        total += skipped
        if extents:
            own = len(walk.frames) - shared_frames(crash) if walk and name == WAITS else sys.maxsize
            found.append(_Walked(PictureLane(name, x, x + _LANE / 2), extents, own))
        x += _LANE + _GAP
    return found, total


def _bounds(crash: CrashReport, low: int, high: int) -> tuple[tuple[int, int] | None, list[str]]:
    """Return the bounds of the stack, lowest first, if they can be right, and what there is to say of them."""
    extent = crash.stack_bounds
    if extent is None:
        return None, []
    if extent.limit <= low and high <= extent.base and extent.base - extent.limit <= _FARTHEST:
        return (int(extent.limit), int(extent.base)), []
    return None, [f"The stack's bounds in the TEB, {extent.limit} to {extent.base}, are not those of these frames."]


def _marks(crash: CrashReport, low: int, high: int, *, is_64bit: bool) -> tuple[list[_Mark], list[str]]:
    """Return what is marked besides frames, lowest first, and what is said of what is not on this stack."""
    sizes = (_RECORD_SIZES[is_64bit], (Arch.X64 if is_64bit else Arch.X86).facts.context_size)
    marks: list[_Mark] = []
    elsewhere: list[str] = []
    for index, exception in enumerate(crash.exceptions[:_MOST_MARKS]):
        of = f" of exception {index + 1}" if len(crash.exceptions) > 1 else ""
        places = ((exception.record_address, "record"), (exception.context_address, "CONTEXT"))
        for (at, what), bytes_ in zip(places, sizes, strict=True):
            if at is None:
                continue
            text = f"{what} {place(at, is_64bit)}{of}"
            if low <= at < high:
                marks.append(_Mark(int(at), min(at + bytes_, high), text, what.lower()))
            else:
                elsewhere.append(f"The {text} is not on this part of the stack.")
    return sorted(marks, key=lambda mark: mark.low), elsewhere


def _named(lane: _Walked, walked: Sequence[_Walked]) -> list[int]:
    """Return the positions of the frames of a lane that have labels."""
    common = set()
    if lane is not walked[-1]:
        common = {(extent.frame.sp, extent.frame.ip) for extent in walked[-1].extents}
    own = [at for at, extent in enumerate(lane.extents) if (extent.frame.sp, extent.frame.ip) not in common]
    sizes = [lane.extents[at].size for at in own]
    guessed = [index for index, at in enumerate(own) if lane.extents[at].is_guessed]
    left_out = [index for index, at in enumerate(own) if lane.extents[at].is_left_out]
    return [own[index] for index in chosen(sizes, guessed, left_out)]


def _blocks(lane: _Walked, scale: AddressScale) -> Iterator[PictureBlock]:
    """Yield the frames of a lane; those that are too low to be seen are drawn together with the next ones."""
    pending: list[FrameExtent] = []
    for extent in lane.extents:
        if pending and _kind(pending[0]) != _kind(extent):
            yield _block(lane, pending, scale)
            pending = []
        pending.append(extent)
        if scale.y(extent.high) - scale.y(pending[0].low) >= _LEAST_SEEN:
            yield _block(lane, pending, scale)
            pending = []
    if pending:
        yield _block(lane, pending, scale)


def _block(walked: _Walked, extents: Sequence[FrameExtent], scale: AddressScale) -> PictureBlock:
    first, last = extents[0], extents[-1]
    top = scale.y(first.low)
    title = f"{number(first.frame.number)} {first.frame.name}, {size(first.size)}"
    if len(extents) > 1:
        title = f"{len(extents)} frames, {number(first.frame.number)} to {number(last.frame.number)}"
    link = walked.link(first) if len(extents) == 1 else ""
    lane = walked.lane
    return PictureBlock(
        lane.x, _TOP + top, _LANE, max(scale.y(last.high) - top, 0.5), _kind(first), title, lane.name, link
    )


def _kind(extent: FrameExtent) -> str:
    return "guess" if extent.is_guessed else "left-out" if extent.is_left_out else "frame"


def _block_of_mark(mark: _Mark, lane: PictureLane, scale: AddressScale) -> PictureBlock:
    top = scale.y(mark.low)
    height = max(scale.y(mark.high) - top, 3.0)
    title = f"{mark.text}, {size(mark.high - mark.low)}"
    return PictureBlock(lane.x + 10, _TOP + top, _LANE - 20, height, mark.kind, title, lane.name)


def _labels(
    walked: _Walked, named: Sequence[int], marks: Sequence[_Mark], scale: AddressScale, height: float
) -> Iterator[PictureLabel]:
    """Yield the labels of a lane; those of what threw are on the right, with the marks, the others on the left."""
    is_left = walked.lane.name == WAITS
    items: list[tuple[float, str, str, str, str]] = []
    for at in named:
        extent = walked.extents[at]
        middle = (scale.y(extent.low) + scale.y(extent.high)) / 2
        bytes_ = size(extent.size) if extent.size >= _LEAST_LABELLED else ""
        text = _shortened(f"{number(extent.frame.number)} {extent.frame.name}")
        items.append((middle, text, bytes_, _kind(extent), walked.link(extent)))
    if not is_left:
        items += [((scale.y(mark.low) + scale.y(mark.high)) / 2, mark.text, "", mark.kind, "") for mark in marks]
    items.sort(key=lambda item: item[0])
    edge = walked.lane.x if is_left else walked.lane.x + _LANE
    far = edge - _LEADER if is_left else edge + _LEADER
    bend = edge - 12 if is_left else edge + 12
    for (middle, text, bytes_, kind, link), y in zip(items, placed([item[0] for item in items], height), strict=True):
        leader = f"{edge:.1f},{_TOP + middle:.1f} {bend:.1f},{_TOP + y:.1f} {far:.1f},{_TOP + y:.1f}"
        x = far - 4 if is_left else far + 4
        yield PictureLabel(x, _TOP + y, text, bytes_, kind, is_left, leader, link)


def _shortened(text: str) -> str:
    """Return a call site that fits beside a lane; its end has the function's name, so the middle is cut."""
    if len(text) <= _MOST_LETTERS:
        return text
    half = _MOST_LETTERS // 2
    return f"{text[:half]}…{text[-half + 1 :]}"


def _bound_labels(
    low: int, high: int, walked: Sequence[_Walked], height: float, *, is_64bit: bool, is_bound: bool
) -> Iterator[PictureLabel]:
    names = ("StackLimit", "StackBase") if is_bound else ("", "")
    x = walked[0].lane.x - 4
    for name, at, y in zip(names, (low, high), (_TOP - 9.0, _TOP + height + 11.0), strict=True):
        yield PictureLabel(x, y, f"{name} {place(at, is_64bit)}".strip(), "", "bound", True, "")
