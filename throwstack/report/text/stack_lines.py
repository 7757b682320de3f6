# SPDX-License-Identifier: Apache-2.0
"""A stack as `kb` of WinDbg prints it, with sources, signatures and values, and how each frame was found.

Of 32-bit code: ChildEBP, return address, three words after it. Of 64-bit code: Child-SP and return address, because
arguments are in registers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from throwstack.core.frames import Trust
from throwstack.core.text import escape
from throwstack.report.frame_report import INLINE, LEFT_OUT, WHOLE, FrameReport, Variable
from throwstack.report.text.recursion import folded
from throwstack.report.text.spelling import address
from throwstack.report.text.text_lines import WIDTH, Line, Tone

_HEADS = {
    False: " # ChildEBP RetAddr  Args to Child",
    True: " # Child-SP          RetAddr           Call Site",
}
_WORDS = 3
_UNKNOWN_WORD = "????????"
_NOTE = 9
_MARGIN = "  "
_MAX_VARIABLES = 24
"""How many local variables of a function are shown. A report as JSON has all, and those of unknown value."""


def stack_lines(frames: Sequence[FrameReport], *, is_64bit: bool, values: bool = True) -> Iterator[Line]:
    """Yield a heading and the lines of `frames`; with `values`, signatures and variables too."""
    yield Line(f"{_MARGIN}{_HEADS[is_64bit]}", Tone.LABEL)
    for shown, counted in folded(frames):
        for frame in shown:
            yield from _frame_lines(frame, is_64bit=is_64bit, values=values)
        if counted:
            which = f"{counted[0].number:x} to {counted[-1].number:x}"
            yield Line(f"{_MARGIN}.. {len(counted):,} more frames of the same functions, {which}", Tone.FAINT)


def provenance(frames: Sequence[FrameReport]) -> Line:
    """Return a line that says how each of `frames` was found: `0 context; 1, 8-10 prologue; 2-7 cfi`."""
    found: dict[str, list[int]] = {}
    for frame in frames:
        if frame.trust not in {INLINE, LEFT_OUT}:
            found.setdefault(frame.trust, []).append(frame.number)
    parts = (f"{_ranges(numbers)} {trust}" for trust, numbers in found.items())
    guess = ". A ? marks a guess: of the frame, or of its name" if any(map(_is_guess, frames)) else ""
    return Line(f"{_MARGIN}Found by: {'; '.join(parts)}{guess}", Tone.FAINT, 12)


def _is_guess(frame: FrameReport) -> bool:
    return frame.trust == Trust.SCAN.value or frame.symbols.endswith("?")


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in hexadecimal, as frames have them, neighbours joined: `1, 8-a`."""
    runs: list[list[int]] = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        runs.append([number for _, number in run])
    return ", ".join(f"{run[0]:x}" if len(run) == 1 else f"{run[0]:x}-{run[-1]:x}" for run in runs)


def _frame_lines(frame: FrameReport, *, is_64bit: bool, values: bool) -> Iterator[Line]:
    if frame.trust == LEFT_OUT:
        yield Line(f"{_MARGIN}.. {frame.name}", Tone.FAINT, _NOTE)
        return
    guess = "?" if _is_guess(frame) else ""
    text = f"{_MARGIN}{_figures(frame, is_64bit=is_64bit)} {guess}{frame.name}"
    source = escape(f"[{frame.source}]", WHOLE) if frame.source else ""
    tone = Tone.DOUBT if guess else Tone.PLAIN
    if source and len(text) + 1 + len(source) <= WIDTH:
        yield Line(f"{text} {source}", tone, _NOTE)
        source = ""
    else:
        yield Line(text, tone, _NOTE)
    if source:
        yield _note(source)
    if values:
        yield from _variables(frame)
    if frame.note:
        yield _note(frame.note, Tone.DOUBT if guess else Tone.FAINT)


def _figures(frame: FrameReport, *, is_64bit: bool) -> str:
    if frame.is_inline:
        gap = "--------`--------" if is_64bit else f"-------- {'':{9 * _WORDS - 1}}"
        return f"{frame.number:02x} {'(Inline Function)' if is_64bit else '(Inline)'} {gap}"
    parts = [f"{frame.number:02x}", address(frame.sp, is_64bit=is_64bit)]
    parts.append(address(frame.return_address, is_64bit=is_64bit))
    if not is_64bit:
        words = [_UNKNOWN_WORD if word is None else f"{word:08x}" for word in frame.args]
        parts += words or [f"{'':{9 * _WORDS - 1}}"]
    return " ".join(parts)


def _variables(frame: FrameReport) -> Iterator[Line]:
    if frame.signature and (frame.parameters or frame.signature != frame.function):
        text, left = with_values(frame.signature, frame.parameters)
        yield _note(text)
    else:
        left = list(frame.parameters)
    shown = [*left, *(variable for variable in frame.locals if variable.text)]
    if shown:
        more = f", and {len(shown) - _MAX_VARIABLES} more" if len(shown) > _MAX_VARIABLES else ""
        yield _note(", ".join(map(_variable, shown[:_MAX_VARIABLES])) + more)


def with_values(signature: str, parameters: Sequence[Variable]) -> tuple[str, list[Variable]]:
    """Return a signature with the parameters' values in it, and the parameters that are not in it.

    `void f(HRESULT hr, void * p)` becomes `void f(HRESULT hr = 0x80004003 E_POINTER, void * p = 0)`.
    """
    left: list[Variable] = []
    at = signature.find("(")
    for parameter in parameters:
        ends = (signature.find(f" {parameter.name}{end}", at) for end in ",)")
        found = min((place for place in ends if place >= 0), default=-1)
        if at < 0 or found < 0:
            left.append(parameter)
            continue
        at = found + 1 + len(parameter.name)
        value = f" = {_value(parameter)}"
        signature = signature[:at] + value + signature[at:]
        at += len(value)
    return signature, left


def _variable(variable: Variable) -> str:
    return f"{variable.name} = {_value(variable)}"


def _value(variable: Variable) -> str:
    return variable.text or f"<{variable.reason or 'not known'}>"


def _note(text: str, tone: Tone = Tone.FAINT) -> Line:
    return Line(f"{'':{_NOTE}}{text}", tone, _NOTE + 2)
