# SPDX-License-Identifier: Apache-2.0
"""Frames of a stack as values: one generator makes them, for crashes, for `windows.cxrstack` and `windows.stackwalk`.

A function that was inlined has a frame report of its own inside the frame it is part of: the same ip and stack pointer,
no return address, the trust `inline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import count

from throwstack.core.contexts import Context
from throwstack.core.frames import End, Frame, Walk
from throwstack.core.guard import Guard, Say
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.names.frame_names import names_of
from throwstack.names.frame_records import annotation
from throwstack.names.name_style import NameStyle
from throwstack.names.symbols import Name
from throwstack.report.image_substitutes import substitute_note
from throwstack.report.register_text import context_values, format_instruction, register_values
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.unwind.target import Target

WHOLE = 4096
"""Characters of a name or a note in a report. Tables cut them shorter."""
_ARGUMENTS = 3
INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter or local variable of a function. `reason` says why there is no value."""

    name: str
    type: str = ""
    value: Hexadecimal | None = None
    text: str = ""
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FrameReport:
    """One function on a stack. Every string is escaped.

    `sp` is WinDbg's Child-SP (on x86 ChildEBP). `args` are the three words after the return address of an x86 frame,
    as `kb` prints them: None for one that is not in the dump; empty on x64, where arguments are in registers. `name` is
    the call site as WinDbg prints it, `source` its file and line, `symbols` what the name comes from (`pdb`, `isf`,
    `export`; with `?` where it is doubtful). `registers` (with `instruction`) and `fpo` are there where they were asked
    for; `parameters` and `locals` where the symbols tell of them.
    """

    number: int
    ip: Hexadecimal
    sp: Hexadecimal
    name: str
    trust: str
    return_address: Hexadecimal | None = None
    args: tuple[Hexadecimal | None, ...] = ()
    module: str = ""
    function: str = ""
    offset: int = 0
    raw_name: str = ""
    signature: str = ""
    source: str = ""
    symbols: str = ""
    note: str = ""
    fpo: str = ""
    registers: Mapping[str, Hexadecimal] = field(default_factory=dict)
    instruction: str = ""
    parameters: tuple[Variable, ...] = ()
    locals: tuple[Variable, ...] = ()

    @property
    def is_inline(self) -> bool:
        """Say whether the function was inlined into the frame that follows."""
        return self.trust == INLINE

    def call_site(self, style: NameStyle = NameStyle.PLAIN) -> str:
        """Return `module!function+0x12`, the function spelled in the given style."""
        spelled = {NameStyle.RAW: self.raw_name, NameStyle.SIGNATURE: self.signature}.get(style)
        if not spelled:
            return self.name
        return escape(str(Name(self.ip, self.module, spelled, self.offset)), WHOLE)


@dataclass(frozen=True, slots=True)
class WalkReport:
    """A stack, innermost frame first. `end` says why there are no more frames, `detail` what belongs to the reason."""

    frames: tuple[FrameReport, ...]
    end: End
    detail: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether the stack reaches the start of the thread."""
        return self.end is End.THREAD_START


@dataclass(frozen=True, slots=True)
class FrameDetail:
    """What is reported of frames beyond what every frame report has. It costs look-ups and decoding."""

    registers: bool = False
    fpo: bool = False


NO_DETAIL = FrameDetail()


def ending(walk: Walk | WalkReport) -> str:
    """Return why a walk ended, in words."""
    return f"{walk.end.value} {walk.detail}".rstrip()


def walk_report(
    target: Target,
    walk: Walk,
    substitutes: AbstractSet[int],
    *,
    context: Context | None = None,
    detail: FrameDetail = NO_DETAIL,
    is_throw: bool = False,
) -> WalkReport:
    """Return a walk as values. `context` is the CONTEXT it began with, if all registers of the first frame are known.

    `substitutes` are the pages that come from image files instead of the dump. `is_throw`: the registers of the first
    frame are reported whatever `detail` says.
    """
    said = "" if walk.is_complete else f"stack ends here: {ending(walk)}"
    first = replace(detail, registers=True) if is_throw else detail
    frames = frame_reports(target, walk.frames, substitutes, ending=said, context=context, detail=detail, first=first)
    return WalkReport(tuple(frames), walk.end, escape(walk.detail, WHOLE))


def bare_walk_report(walk: Walk, problem: str) -> WalkReport:
    """Return the first frame of a walk as far as it is known without reading anything, and what the `problem` is."""
    frames = tuple(_made(frame, Name(frame.ip), 0, _Extra(), problem) for frame in walk.frames[:1])
    return WalkReport(frames, End.FAULT, escape(problem, WHOLE))


def frame_reports(
    target: Target,
    frames: Sequence[Frame],
    substitutes: AbstractSet[int],
    *,
    numbers: Iterator[int] | None = None,
    ending: str = "",
    context: Context | None = None,
    detail: FrameDetail = NO_DETAIL,
    first: FrameDetail | None = None,
) -> Iterator[FrameReport]:
    """Yield the functions at `frames`, innermost first. What cannot be had of one is absent, and its note says why.

    `ending` is noted at the last frame; `numbers` gives the frames' numbers; `first` is the detail of the first frame
    where that differs.
    """
    numbers = count() if numbers is None else numbers
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        wanted = first if first is not None and index == 0 else detail
        problems: list[str] = []
        for name in safe_names(target, frame, problems.append):
            notes: list[str] = []
            extra = _Extra()
            with Guard(problems.append):
                if not name.is_inline:
                    notes += filter(None, (frame.note, substitute_note(frame, target.images, substitutes)))
                    extra.args = arguments(target, frame)
                if wanted.fpo:
                    extra.fpo = frame_pointer_omission(target, frame, name)
                if wanted.registers:
                    extra.registers, extra.instruction = _registers(target, frame, None if index else context)
            if ending and index == last and not name.is_inline:
                notes.append(ending)
            yield _made(frame, name, next(numbers), extra, "; ".join([*notes, *problems]))


@dataclass(slots=True)
class _Extra:
    """What costs reading: absent where that fails."""

    args: tuple[Hexadecimal | None, ...] = ()
    fpo: str = ""
    registers: dict[str, Hexadecimal] = field(default_factory=dict)
    instruction: str = ""


def safe_names(target: Target, frame: Frame, say: Say) -> tuple[Name, ...]:
    """Return the names of a frame as `names_of` does; its bare address where that fails, and `say` learns why."""
    with Guard(say):
        return names_of(target.symbols, frame)
    return (Name(frame.ip),)


def _made(frame: Frame, name: Name, number: int, extra: _Extra, note: str) -> FrameReport:
    return FrameReport(
        number=number,
        ip=Hexadecimal(frame.ip),
        sp=Hexadecimal(frame.child_sp),
        name=escape(str(name), WHOLE),
        trust=INLINE if name.is_inline else frame.trust.value,
        return_address=None if name.is_inline else hexadecimal(frame.return_address),
        args=extra.args,
        module=escape(name.module, WHOLE),
        function=escape(name.symbol, WHOLE),
        offset=name.offset,
        raw_name=escape(name.raw, WHOLE),
        signature=escape(name.signature, WHOLE),
        source=escape(name.source, WHOLE),
        symbols=name.provenance,
        note=escape(note, WHOLE),
        fpo=extra.fpo,
        registers=extra.registers,
        instruction=extra.instruction,
    )


def _registers(target: Target, frame: Frame, context: Context | None) -> tuple[dict[str, Hexadecimal], str]:
    values = register_values(target.arch, frame.registers) if context is None else context_values(context)
    selector = None if context is None else context.cs
    instruction = format_instruction(target.memory, target.arch, frame.ip, selector)
    return {name: Hexadecimal(value) for name, value in values.items()}, instruction or ""


def frame_pointer_omission(target: Target, frame: Frame, name: Name) -> str:
    """Return what the symbols say of an x86 frame, as `kv` prints it; empty for a function inlined there."""
    image = target.images.find(frame.ip)
    if target.arch is not Arch.X86 or image is None or name.is_inline:
        return ""
    rva = frame.ip - image.base - (0 if frame.is_interrupted else 1)
    data = target.symbols.table(image).frame_description(rva)
    return "" if data is None else annotation(data)


def arguments(target: Target, frame: Frame) -> tuple[Hexadecimal | None, ...]:
    """Return the three words after an x86 frame's return address, as `kb` prints them; empty where there are none.

    On x64 arguments travel in registers. What `kb` shows there is their home space, which compilers use for anything:
    nothing that could be called an argument.
    """
    if target.arch is not Arch.X86 or frame.return_slot is None:
        return ()
    words = tuple(_word(target.memory, frame.return_slot + 4 * index) for index in range(1, _ARGUMENTS + 1))
    return words if any(word is not None for word in words) else ()


def _word(memory: Memory, address: int) -> Hexadecimal | None:
    try:
        return Hexadecimal(memory.u32(address))
    except MemoryUnreadable:
        return None
