# SPDX-License-Identifier: Apache-2.0
"""Reports on the frames of a stack, as plain values, for crashes, `windows.cxrstack` and `windows.stackwalk`.

An inlined function has a frame report of its own, before the report of the frame that contains it. Its ip and stack
pointer are those of that frame, it has no return address, and its trust is `inline`.

The frames of a deep recursion that the walk has not kept share one frame report, whose trust is `left-out`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from throwstack.core.contexts import Context
from throwstack.core.frames import End, Frame, LeftOut, Walk
from throwstack.core.guard import Guard, Say
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.names.frame_names import names_of
from throwstack.names.frame_records import annotation
from throwstack.names.name_style import NameStyle
from throwstack.names.symbols import Name, SymbolKind
from throwstack.report.image_substitutes import substitute_note
from throwstack.report.register_text import context_values, format_instruction, register_values
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.unwind.proven import Guesses
from throwstack.unwind.target import Target

if TYPE_CHECKING:
    from throwstack.variables.frame_values import FrameScopes
    from throwstack.variables.variable_value import VariableValue

WHOLE = 4096
"""The limit on the characters of a name or a note in a report. Tables shorten them further."""
_ARGUMENTS = 3
_MAX_FOLDED = 64
_MAX_SHOWN = 2
"""How many other functions with the same code a note names."""
INLINE = "inline"
LEFT_OUT = "left-out"


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter or local variable of a function. Every string is escaped.

    `type` is written as in C++. `text` is the value as a person reads it (`0x80004003 E_POINTER`), and `value` is its
    bytes, if it is an integer, a pointer or an enumeration. `source` is where the value was (`[ebp+0x8]`, `rbx`). If
    the value is not known, `text` is "" and `reason` says why.
    """

    name: str
    type: str = ""
    value: Hexadecimal | None = None
    text: str = ""
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FrameReport:
    """One function on a stack. Every string is escaped.

    `sp` is WinDbg's Child-SP (on x86 ChildEBP). `args` are the three words after the return address of an x86 frame, as
    `kb` prints them; a word is None if it is not in the dump. `args` is empty on x64, where arguments are in registers.
    `name` is the call site as WinDbg prints it, and `source` is its file and line. `symbols` says where the name comes
    from (`pdb`, `isf`, `export`), with `?` if the name is doubtful. `folded` are other functions with the same code, of
    which the linker has made one: any of them may be meant. `registers`, `instruction` and `fpo` are present if
    they were asked for; `parameters` and `locals` are present if the symbols describe them. `left_out` is present in
    the report for the frames of a recursion that are not listed, and says how many these are. `name` then says of which
    functions.
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
    folded: tuple[str, ...] = ()
    source: str = ""
    symbols: str = ""
    note: str = ""
    fpo: str = ""
    registers: Mapping[str, Hexadecimal] = field(default_factory=dict)
    instruction: str = ""
    parameters: tuple[Variable, ...] = ()
    locals: tuple[Variable, ...] = ()
    left_out: int | None = None

    @property
    def is_inline(self) -> bool:
        """Say whether the function was inlined into the function of a following frame report."""
        return self.trust == INLINE

    def call_site(self, style: NameStyle = NameStyle.PLAIN) -> str:
        """Return the call site, `module!function+0x12`, with the function's name in the given style."""
        spelled = {NameStyle.RAW: self.raw_name, NameStyle.SIGNATURE: self.signature}.get(style)
        if not spelled:
            return self.name
        return escape(str(Name(self.ip, self.module, spelled, self.offset)), WHOLE)


@dataclass(frozen=True, slots=True)
class WalkReport:
    """A stack, innermost frame first. `end` says why there are no more frames, and `detail` adds particulars."""

    frames: tuple[FrameReport, ...]
    end: End
    detail: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether the stack reaches the start of the thread."""
        return self.end is End.THREAD_START


@dataclass(frozen=True, slots=True)
class FrameDetail:
    """Which costly facts of frames are reported besides those that every frame report has."""

    registers: bool = False
    fpo: bool = False
    variables: bool = False
    """The parameters and local variables, with their values."""


NO_DETAIL = FrameDetail()


def walk_report(
    target: Target,
    walk: Walk,
    substitutes: AbstractSet[int],
    *,
    context: Context | None = None,
    detail: FrameDetail = NO_DETAIL,
    is_throw: bool = False,
) -> WalkReport:
    """Return the report on the frames of `walk`, a walk through code of `target`.

    `context` is the CONTEXT with which the walk began, if all registers of the first frame are known from one.
    `substitutes` are the addresses of pages that come from image files and not from the dump. If `is_throw` is true,
    the registers of the first frame are reported whatever `detail` says.
    """
    said = "" if walk.is_complete else f"stack ends here: {walk.end.in_words(walk.detail)}"
    first = replace(detail, registers=True) if is_throw else detail
    frames = frame_reports(target, walk.frames, substitutes, ending=said, context=context, detail=detail, first=first)
    return WalkReport(tuple(frames), walk.end, escape(walk.detail, WHOLE))


def bare_walk_report(walk: Walk, problem: str) -> WalkReport:
    """Return a report with the first frame of a walk only, as far as it is known without reading, and the `problem`."""
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
    """Yield the functions at `frames`, innermost first; what cannot be found out is absent, and a note says why.

    `substitutes` are the addresses of pages that come from image files. `ending` is put into the note of the last
    frame. `numbers` supplies the frames' numbers. `context` is the CONTEXT of the first frame, if there is one. `first`
    is the detail of the first frame if it differs from `detail`.
    """
    numbers = count() if numbers is None else numbers
    last = len(frames) - 1
    guesses = Guesses(target)
    for index, frame in enumerate(frames):
        wanted = first if first is not None and index == 0 else detail
        problems: list[str] = []
        inner = _inner(frames, index)
        is_doubtful = guesses.is_in_doubt(frame, inner)
        names = safe_names(target, frame, problems.append)
        scopes: FrameScopes = ()
        with Guard(problems.append):
            if wanted.variables and any(name.kind is SymbolKind.PDB for name in names):
                from throwstack.variables.frame_values import frame_variables  # noqa: PLC0415 for those with PDBs

                scopes = frame_variables(target, frame, inner, len(names), is_doubtful=is_doubtful)
        for position, name in enumerate(names):
            notes: list[str] = []
            extra = _Extra(variables=scopes[position].variables if scopes else ())
            with Guard(problems.append):
                notes += folded_note(name.others)
                notes += _left_out_note(scopes[position].left_out if scopes else 0)
                if not name.is_inline:
                    notes += filter(None, (name.reason, frame.note, substitute_note(frame, target.images, substitutes)))
                    extra.args = arguments(target, frame)
                if wanted.fpo:
                    extra.fpo = frame_pointer_omission(target, frame, name)
                if wanted.registers:
                    extra.registers, extra.instruction = _registers(target, frame, None if index else context)
            if ending and index == last and not name.is_inline:
                notes.append(ending)
            yield _made(frame, name, next(numbers), extra, "; ".join([*notes, *problems]))
        if frame.left_out is not None:
            yield _left_out(target, frame.left_out, numbers)


def _inner(frames: Sequence[Frame], index: int) -> Frame | None:
    """Return the frame that the frame at `index` has called, or None if it is not among `frames`."""
    return frames[index - 1] if index and frames[index - 1].left_out is None else None


def _left_out(target: Target, frames: LeftOut, numbers: Iterator[int]) -> FrameReport:
    """Return the report for frames that were left out; they take their numbers."""
    names: dict[str, None] = {}
    with Guard(lambda _: None):
        for place in frames.places:
            name = target.symbols.name(place, is_return_address=True)
            names[str(replace(name, offset=0)) if name.symbol else str(name)] = None
    functions = ", ".join(names) or f"{frames.places[0]:#x}"
    number = next(numbers)
    for _ in range(frames.count - 1):
        next(numbers)
    return FrameReport(
        number=number,
        ip=Hexadecimal(frames.places[0]),
        sp=Hexadecimal(frames.child_sp),
        name=escape(f"{frames.count:,} more frames of {functions}", WHOLE),
        trust=LEFT_OUT,
        left_out=frames.count,
    )


@dataclass(slots=True)
class _Extra:
    """Facts that have to be read from the dump; they are absent if reading fails."""

    args: tuple[Hexadecimal | None, ...] = ()
    fpo: str = ""
    registers: dict[str, Hexadecimal] = field(default_factory=dict)
    instruction: str = ""
    variables: tuple[VariableValue, ...] = ()

    def reported(self, *, parameters: bool) -> tuple[Variable, ...]:
        """Return the reports on the parameters, or on the other variables."""
        return tuple(_variable(found) for found in self.variables if found.is_parameter is parameters)


def _variable(found: VariableValue) -> Variable:
    value = hexadecimal(found.value)
    return Variable(found.name, found.type, value, found.text, found.source, found.reason)


def safe_names(target: Target, frame: Frame, say: Say) -> tuple[Name, ...]:
    """Return the names of a frame as `names_of` does, or its bare address if that fails; `say` is called with why."""
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
        folded=tuple(escape(other, WHOLE) for other in name.others[:_MAX_FOLDED]),
        source=escape(name.source, WHOLE),
        symbols=name.provenance,
        note=escape(note, WHOLE),
        fpo=extra.fpo,
        registers=extra.registers,
        instruction=extra.instruction,
        parameters=extra.reported(parameters=True),
        locals=extra.reported(parameters=False),
    )


def folded_note(others: Sequence[str]) -> list[str]:
    """Return the note on a function that has the same code as `others`, nothing if it has a code of its own."""
    if not others:
        return []
    more = f" and {len(others) - _MAX_SHOWN} more" if len(others) > _MAX_SHOWN else ""
    return [f"same code as {', '.join(others[:_MAX_SHOWN])}{more}"]


def _left_out_note(count: int) -> list[str]:
    """Return the note on `count` variables of a function that are not shown, nothing if all are."""
    return [f"{count} more variables are left out"] if count > 1 else ["1 more variable is left out"] * count


def _registers(target: Target, frame: Frame, context: Context | None) -> tuple[dict[str, Hexadecimal], str]:
    values = register_values(target.arch, frame.registers) if context is None else context_values(context)
    selector = None if context is None else context.cs
    instruction = format_instruction(target.memory, target.arch, frame.ip, selector)
    return {name: Hexadecimal(value) for name, value in values.items()}, instruction or ""


def frame_pointer_omission(target: Target, frame: Frame, name: Name) -> str:
    """Return the FPO data in the symbols for an x86 frame, as `kv` prints it; empty for an inlined function."""
    image = target.images.find(frame.ip)
    if target.arch is not Arch.X86 or image is None or name.is_inline:
        return ""
    rva = frame.ip - image.base - (0 if frame.is_interrupted else 1)
    data = target.symbols.table(image).frame_description(rva)
    return "" if data is None else annotation(data)


def arguments(target: Target, frame: Frame) -> tuple[Hexadecimal | None, ...]:
    """Return the three words after an x86 frame's return address, as `kb` prints them; empty if there are none.

    The result is always empty on x64, where arguments are passed in registers. What `kb` shows there is their home
    space, which compilers use for other things, too.
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
