# SPDX-License-Identifier: Apache-2.0
"""The columns that describe a frame, and the table of `windows.cxrstack`, with a row per frame of a throwing stack.

With `--locals` there is a row for each parameter and local variable, below the row of its frame. A column would make
each line of the table as wide as the longest list of variables. The cell `Call Site` has what `kP` and `dv` print of a
variable, `HRESULT hr = 0x80004003 E_POINTER`, and `Notes` says where the value was, or why it is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from volatility3.framework.renderers import format_hints

from throwstack.core.text import escape
from throwstack.files.needed_files import NeededFile
from throwstack.names.name_style import NameStyle
from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import FrameReport, Variable
from throwstack.report.register_text import format_registers
from throwstack.volatility.tables.columns import NOTES_LIMIT, Column, Prose, joined

_UNREADABLE_WORD = "????????"
_MAX_ADDRESS_OF_X86 = 0xFFFFFFFF
_DOUBTFUL = "?"
"""The end of the word in the column `Symbols` if a name is only the nearest one known."""


@dataclass(frozen=True, slots=True)
class FrameRow:
    """A row for a frame and the stack that the frame is on, or for a `variable` of the frame.

    `frame` is None in a row that describes a thread or a stack. `tid` is None for a stack that belongs to no thread.
    `title` says what the stack is; it is set in the row of the first frame only, or in a row without a frame, which
    has it in the place of a call site. `heading` says the same, what was thrown first. `digits` is how many hexadecimal
    digits an address of the frame has. `ethread` and `eprocess` are the kernel objects of the thread and the process.
    """

    process: ProcessSummary
    tid: int | None
    frame: FrameReport | None
    title: str = ""
    variable: Variable | None = field(default=None, kw_only=True)
    digits: int = field(default=8, kw_only=True)
    heading: str = field(default="", kw_only=True)
    ethread: int | None = field(default=None, kw_only=True)
    eprocess: int | None = field(default=None, kw_only=True)


AnyRow = TypeVar("AnyRow", bound=FrameRow)


def who(process: ProcessSummary) -> str:
    """Return a process as the heading of a stack names it; the frames below have no column for it."""
    return f"{escape(process.name)} (PID {process.pid})"


def below_headings(rows: Iterable[FrameRow]) -> Iterator[tuple[int, FrameRow]]:
    """Yield (depth in the tree, row) for frames, with a row above each stack that says what it is."""
    for row in rows:
        if row.title:
            title = escape(f"{who(row.process)}: {row.heading}", NOTES_LIMIT)
            yield 0, replace(row, frame=None, title=title)
        yield 1, replace(row, title="")


def variable_rows(row: AnyRow) -> Iterator[AnyRow]:
    """Yield a row for each variable of the frame in `row`, parameters first."""
    if row.frame is not None:
        for variable in (*row.frame.parameters, *row.frame.locals):
            yield replace(row, title="", variable=variable)


FRAMES_SHOWN = (
    *("TID", "Frame", "Child-SP", "RetAddr", "Args", "Call Site", "Source", "Trust", "FPO", "Registers"),
    *("Instruction", "Notes"),
)
"""The columns of `windows.cxrstack` that a person sees without `--wide`, as far as the other options show them."""


def frame_columns(style: NameStyle, *, with_fpo: bool, is_brief: bool = False) -> list[Column[FrameRow]]:
    """Return the columns of a frame from `PID` to `Symbols`, and `FPO` if `with_fpo` is true.

    `style` says how functions are named. If `is_brief` is true, `Symbols` is not shown, so `Call Site` says which names
    are only the nearest ones known.
    """
    found: list[Column[FrameRow]] = [
        Column("PID", int, lambda row: row.process.pid),
        Column("Process", str, lambda row: escape(row.process.name)),
        Column("TID", int, lambda row: row.tid),
        Column("Frame", int, lambda row: None if row.frame is None else row.frame.number),
        Column("Child-SP", format_hints.Hex, _of_frame(lambda frame: frame.sp), _digits),
        Column("RetAddr", format_hints.Hex, _of_frame(lambda frame: frame.return_address), _digits),
        Column("Args", str, _of_frame(args_text)),
        Column("IP", format_hints.Hex, _of_frame(lambda frame: frame.ip), _digits),
        Column("Call Site", str, _call_site(style, marks_nearest=is_brief)),
        Column("Source", str, _of_frame(_source), is_prose=True),
        Column("Trust", str, _of_frame(lambda frame: frame.trust)),
        Column("Symbols", str, _of_frame(lambda frame: frame.symbols or None)),
    ]
    if with_fpo:
        found.append(Column("FPO", str, _of_frame(lambda frame: frame.fpo or None)))
    return found


def throwing_columns(
    style: NameStyle, *, with_fpo: bool, with_registers: bool, is_brief: bool = False
) -> list[Column[FrameRow]]:
    """Return the columns of `windows.cxrstack`.

    `style` says how functions are named. `with_fpo` and `with_registers` add optional columns. `is_brief` is as for
    `frame_columns`.
    """
    registers: list[Column[FrameRow]] = [
        Column("Registers", str, _of_frame(lambda frame: format_registers(frame.registers) or None), is_prose=True),
        Column("Instruction", str, _of_frame(lambda frame: frame.instruction or None)),
    ]
    last: list[Column[FrameRow]] = [
        Column("Notes", str, _notes, is_prose=True),
        Column("ETHREAD", format_hints.Hex, lambda row: row.ethread, _kernel_digits),
        Column("EPROCESS", format_hints.Hex, lambda row: row.eprocess, _kernel_digits),
    ]
    return [*frame_columns(style, with_fpo=with_fpo, is_brief=is_brief), *(registers if with_registers else []), *last]


NEEDED_COLUMNS: list[Column[NeededFile]] = [
    Column("Manifest", str, lambda file: file.manifest_line),
    Column("Module", str, lambda file: escape(file.module)),
    Column("Why", str, lambda file: file.why),
]
"""The columns of the table that `windows.cxrstack --symbols-needed` prints."""


def args_text(frame: FrameReport) -> str | None:
    """Return the three words after the frame's return address, as `kb` prints them, or None if there are none."""
    return " ".join(_UNREADABLE_WORD if word is None else f"{word:08x}" for word in frame.args) or None


def _digits(row: FrameRow) -> int:
    return row.digits


def _kernel_digits(row: FrameRow) -> int:
    return 16 if (row.eprocess or 0) > _MAX_ADDRESS_OF_X86 else 8


def _source(frame: FrameReport) -> str | None:
    return escape(f"[{frame.source}]") if frame.source else None


def _of_frame(value: Callable[[FrameReport], object]) -> Callable[[FrameRow], object]:
    return lambda row: None if row.frame is None or row.variable is not None else value(row.frame)


def _call_site(style: NameStyle, *, marks_nearest: bool) -> Callable[[FrameRow], object]:
    def value(row: FrameRow) -> object:
        if row.variable is not None:
            return variable_text(row.variable)
        if row.frame is None:
            return Prose(row.title) if row.title else None
        site = escape(row.frame.call_site(style))
        return f"{site} (nearest)" if marks_nearest and row.frame.symbols.endswith(_DOUBTFUL) else site

    return value


def variable_text(variable: Variable) -> str:
    """Return a variable as `kP` and `dv` print it, `HRESULT hr = 0x80004003 E_POINTER`; `?` is an unknown value."""
    return escape(f"{variable.type} {variable.name} = {'?' if variable.reason else variable.text}")


def variable_note(row: FrameRow) -> str:
    """Return where the value of a row's variable was, or why it is not known: `parameter, [ebp+0x8]`.

    Functions with the same code, which the linker folded, may have other variables there: `parameter if this is width`.
    """
    if row.frame is None or row.variable is None:
        return ""
    kind = "parameter" if row.variable in row.frame.parameters else "local"
    which = f" if this is {row.frame.function}" if row.frame.folded else ""
    return f"{kind}{which}, {row.variable.reason or row.variable.source}"


def _notes(row: FrameRow) -> str | None:
    if row.variable is not None:
        return joined([variable_note(row)])
    if row.frame is None:
        return None
    return joined(text for text in (row.title, row.frame.note) if text)
