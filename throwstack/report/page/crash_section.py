# SPDX-License-Identifier: Apache-2.0
"""One stuck thread on a page: what the template shows of a crash that is not a field of its report as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport, ExceptionReport, InnerException
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.page.page_values import address, digits_of
from throwstack.report.page.stack_picture import THREW, WAITS, StackPicture, picture_of
from throwstack.report.page.stack_table import StackTable, stack_table
from throwstack.report.register_text import format_flags
from throwstack.report.values import Hexadecimal

WOW64 = "wow64"
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_FLAGS = "efl"
_ON_A_LINE = {8: 6, 16: 3}
"""How many registers WinDbg prints on a line, by the number of digits."""
_MOST_INNER = 200

_Tags = Sequence[tuple[FrameReport | None, str]]


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


@dataclass(frozen=True, slots=True)
class CrashSection:
    """A stuck thread on a page. `key` begins the ids of its parts.

    `where` is the frame at which the exception was thrown, `culprit` the frame that the signature names if that is
    another one; both are None if they are not among the frames. `waits` are the parts of the stack on which the thread
    waits, the kernel's first.
    """

    key: str
    crash: CrashReport
    digits: int
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


def crash_section(key: str, crash: CrashReport, architecture: str, *, is_open: bool) -> CrashSection:
    """Return what a page shows of `crash`; `key` is unique on the page. `architecture` is the machine's."""
    digits = digits_of(crash.side, architecture)
    frames = crash.throwing.frames if crash.throwing else crash.blocked.frames if crash.blocked else ()
    where = next((frame for frame in frames if frame.name == crash.thrown_at), None)
    first = next(iter(frames), None)
    culprit = _culprit(crash, frames, where)
    tags = ((where, "thrown here" if crash.exceptions else "here"), (culprit, "signature"))
    return CrashSection(
        key,
        crash,
        digits,
        where,
        culprit,
        tuple(_exceptions(key, crash, digits, tags)),
        tuple(_waits(key, crash, architecture, digits, () if crash.throwing else tags)),
        register_lines(first.registers, first.name, first.instruction) if first and first.registers else (),
        tuple(debugger_lines(crash)),
        picture_of(crash),
        is_open,
    )


def register_lines(values: Mapping[str, Hexadecimal], name: str = "", instruction: str = "") -> tuple[str, ...]:
    """Return registers and the instruction as WinDbg's `.cxr` prints them."""
    digits = 16 if "rip" in values else 8
    general = [f"{each}={value:0{digits}x}" for each, value in values.items() if each not in {*_SELECTORS, _FLAGS}]
    if digits == 16:
        general = [f"{' ' if each.startswith(('r8=', 'r9=')) else ''}{each}" for each in general]
    step = _ON_A_LINE[digits]
    lines = [" ".join(general[start : start + step]) for start in range(0, len(general), step)]
    if _FLAGS in values:
        lines[-1] = f"{lines[-1]} {format_flags(values[_FLAGS])}"
        selectors = "  ".join(f"{each}={values[each]:04x}" for each in _SELECTORS if each in values)
        lines.append(f"{selectors}             efl={values[_FLAGS]:08x}")
    return (*lines, *([f"{name}:", instruction] if instruction else []))


def debugger_lines(crash: CrashReport) -> Iterator[str]:
    """Yield the commands with which one goes on in WinDbg, each on a line."""
    digits = 16 if crash.side is Side.NATIVE or crash.arch == WOW64 else 8
    if crash.eprocess is not None:
        yield f".process /r /p {address(crash.eprocess, digits)}"
    if crash.ethread is not None:
        wow64 = "/w " if crash.arch == WOW64 and crash.side is Side.X86 else ""
        yield f".thread {wow64}{address(crash.ethread, digits)}"
    exception = crash.exception
    if exception is not None and exception.record_address is not None:
        yield f".exr {exception.record_address}"
    if exception is not None and exception.context_address is not None:
        yield f".cxr {exception.context_address}"
    yield "kb" if crash.side is Side.X86 else "k"


def _culprit(crash: CrashReport, frames: tuple[FrameReport, ...], where: FrameReport | None) -> FrameReport | None:
    """Return the frame of the first function of the signature, or None if `where` is that frame."""
    if crash.signature is None:
        return None
    first = crash.signature.text.partition(" | ")[0].lower()
    found = next((frame for frame in frames if f"{frame.module}!{frame.function}".lower() == first), None)
    return None if found is where else found


def _exceptions(key: str, crash: CrashReport, digits: int, tags: _Tags) -> Iterator[ExceptionPart]:
    for index, exception in enumerate(crash.exceptions):
        of = f"{key}-{THREW}" if not index else f"{key}-e{index + 1}"
        walk = crash.stack_of(exception)
        threw = _walk_table(of, "The stack that threw", walk, digits, tags)
        recorded = stack_table(
            f"{key}-recorded{index + 1}",
            "The stack that the exception object recorded",
            exception.logical_stack,
            digits=digits,
        )
        inner = tuple(_inner(f"{key}-inner{index + 1}", exception.inner, digits))
        yield ExceptionPart(exception, index + 1, threw, recorded, inner)


def _inner(key: str, inner: tuple[InnerException, ...], digits: int) -> Iterator[InnerPart]:
    """Yield inner exceptions, each before its own ones."""
    pending = [(exception, 1) for exception in reversed(inner)]
    count = 0
    while pending and count < _MOST_INNER:
        exception, depth = pending.pop()
        count += 1
        stack = stack_table(f"{key}-{count}", "The stack that it recorded", exception.logical_stack, digits=digits)
        yield InnerPart(exception, depth, stack)
        pending += [(each, depth + 1) for each in reversed(exception.inner)]


def _waits(key: str, crash: CrashReport, architecture: str, digits: int, tags: _Tags) -> Iterator[StackTable]:
    kernel = crash.kernel_stack
    if kernel is not None:
        wide = digits_of(Side.KERNEL, architecture)
        table = stack_table(f"{key}-kernel", "In the kernel", kernel.frames, digits=wide, ending=kernel.ending)
        if table is not None:
            yield table
    user = _walk_table(f"{key}-{WAITS}", "In user code", crash.blocked, digits, tags)
    if user is not None:
        yield user


def _walk_table(key: str, caption: str, walk: WalkReport | None, digits: int, tags: _Tags) -> StackTable | None:
    if walk is None:
        return None
    # The note of the last frame says it, where there is one.
    is_said = walk.is_complete or (walk.frames and walk.frames[-1].note)
    ending = "" if is_said else f"stack ends here: {walk.end.in_words(walk.detail)}"
    return stack_table(key, caption, walk.frames, digits=digits, ending=ending, tags=tags)
