# SPDX-License-Identifier: Apache-2.0
"""One stuck thread on a page: what the template shows of a crash that is not a field of its report as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.report.crash_report import CrashReport, ExceptionReport, InnerException
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.key_frames import program_frame, shared_frames, thrown_frame
from throwstack.report.page.stack_picture import THREW, WAITS, StackPicture, picture_of
from throwstack.report.page.stack_table import StackTable, Tags, stack_table
from throwstack.report.text.debugger_lines import debugger_commands
from throwstack.report.text.exception_lines import REPEATED
from throwstack.report.text.register_lines import register_lines
from throwstack.report.text.spelling import is_64bit_code, is_wide

_MOST_INNER = 200


@dataclass(frozen=True, slots=True)
class InnerPart:
    """An inner exception, with the stack that its object recorded. `depth` is 1 for an inner one of the exception."""

    exception: InnerException
    depth: int
    stack: StackTable | None


@dataclass(frozen=True, slots=True)
class ExceptionPart:
    """An exception of the crash on a page. `threw` is the stack that threw it, `recorded` what its object recorded."""

    exception: ExceptionReport
    number: int
    threw: StackTable | None
    recorded: StackTable | None
    inner: tuple[InnerPart, ...]

    @property
    def details(self) -> list[str]:
        """Return the sentences that explain the exception and are not on the page in another way."""
        return [detail for detail in self.exception.details if not detail.startswith(REPEATED)]


@dataclass(frozen=True, slots=True)
class CrashSection:
    """A stuck thread on a page. `key` begins the ids of its parts.

    `where` is the frame at which the exception was thrown, `culprit` the frame that the signature names if that is
    another one; both are None if they are not among the frames. `waits` are the parts of the stack on which the thread
    waits, the kernel's first.
    """

    key: str
    crash: CrashReport
    is_64bit: bool
    where: FrameReport | None
    culprit: FrameReport | None
    exceptions: tuple[ExceptionPart, ...]
    waits: tuple[StackTable, ...]
    registers: tuple[str, ...]
    debugger: tuple[str, ...]
    picture: StackPicture | None
    is_open: bool

    @property
    def cause(self) -> ExceptionPart | None:
        """Return the exception after which the crash is named."""
        return self.exceptions[0] if self.exceptions else None


def crash_section(key: str, crash: CrashReport, *, is_open: bool) -> CrashSection:
    """Return what a page shows of `crash`; `key` is unique on the page."""
    is_64bit = is_64bit_code(crash)
    frames = crash.throwing.frames if crash.throwing else crash.blocked.frames if crash.blocked else ()
    where, culprit, first = thrown_frame(crash), program_frame(crash), next(iter(frames), None)
    tags = ((where, "thrown here" if crash.exceptions else "here"), (culprit, "signature"))
    return CrashSection(
        key,
        crash,
        is_64bit,
        where,
        culprit,
        tuple(_exceptions(key, crash, tags)),
        tuple(_waits(key, crash, () if crash.throwing else tags)),
        tuple(line.text.removeprefix("  ") for line in register_lines(first)) if first and first.registers else (),
        tuple(debugger_commands(crash)),
        picture_of(crash),
        is_open,
    )


def _exceptions(key: str, crash: CrashReport, tags: Tags) -> Iterator[ExceptionPart]:
    is_64bit = is_64bit_code(crash)
    for index, exception in enumerate(crash.exceptions):
        of = f"{key}-{THREW}" if not index else f"{key}-e{index + 1}"
        walk = crash.stack_of(exception)
        threw = _walk_table(of, "The stack that threw", walk, tags, is_64bit=is_64bit)
        recorded = stack_table(
            f"{key}-recorded{index + 1}",
            "The stack that the exception object recorded",
            exception.logical_stack,
            is_64bit=is_64bit,
        )
        inner = tuple(_inner(f"{key}-inner{index + 1}", exception.inner, is_64bit=is_64bit))
        yield ExceptionPart(exception, index + 1, threw, recorded, inner)


def _inner(key: str, inner: tuple[InnerException, ...], *, is_64bit: bool) -> Iterator[InnerPart]:
    """Yield inner exceptions, each before its own ones."""
    pending = [(exception, 1) for exception in reversed(inner)]
    count = 0
    while pending and count < _MOST_INNER:
        exception, depth = pending.pop()
        count += 1
        stack = stack_table(f"{key}-{count}", "The stack that it recorded", exception.logical_stack, is_64bit=is_64bit)
        yield InnerPart(exception, depth, stack)
        pending += [(each, depth + 1) for each in reversed(exception.inner)]


def _waits(key: str, crash: CrashReport, tags: Tags) -> Iterator[StackTable]:
    kernel = crash.kernel_stack
    if kernel is not None and kernel.frames:
        wide = is_wide(kernel.frames[0].ip)
        table = stack_table(f"{key}-kernel", "In the kernel", kernel.frames, is_64bit=wide, ending=kernel.ending)
        if table is not None:
            yield table
    shared = shared_frames(crash)
    user = _walk_table(
        f"{key}-{WAITS}", "In user code", crash.blocked, tags, is_64bit=is_64bit_code(crash), elsewhere=shared
    )
    if user is not None:
        yield user


def _walk_table(
    key: str, caption: str, walk: WalkReport | None, tags: Tags, *, is_64bit: bool, elsewhere: int = 0
) -> StackTable | None:
    if walk is None:
        return None
    # The note of the last frame says it, where there is one.
    is_said = walk.is_complete or (walk.frames and walk.frames[-1].note)
    ending = "" if is_said else f"stack ends here: {walk.end.in_words(walk.detail)}"
    return stack_table(key, caption, walk.frames, is_64bit=is_64bit, ending=ending, tags=tags, elsewhere=elsewhere)
