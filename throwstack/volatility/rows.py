# SPDX-License-Identifier: Apache-2.0
"""Rows of the plugins: findings and frames turned into the values of their columns."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from itertools import count
from typing import Any

from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import Frame, Walk
from throwstack.core.guard import Guard, Say
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.text import escape
from throwstack.exceptions.describe import describe
from throwstack.exceptions.model import ExceptionText
from throwstack.names.blockers import verdict
from throwstack.names.frame_names import name_of, names_of
from throwstack.names.frame_records import annotation
from throwstack.names.symbols import Name
from throwstack.report.image_substitutes import substitute_note
from throwstack.report.register_text import format_context, format_instruction, format_registers
from throwstack.stuck.error_box import box_text
from throwstack.stuck.signature import signature as signature_of
from throwstack.stuck.signature import thrown_at
from throwstack.stuck.triage import Stuck
from throwstack.unwind.target import Target
from throwstack.volatility.cxr import ThrowingStack
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.outside_images import region_of
from throwstack.volatility.survey import Finding

Row = tuple[Any, ...]
Column = tuple[str, type]

_MAX_NOTES = 1024
_INLINE = "inline"
_ABSENT = renderers.NotAvailableValue()

UNHANDLED_COLUMNS: list[Column] = [
    ("PID", int),
    ("Process", str),
    ("TID", int),
    ("Arch", str),
    ("Blocked In", str),
    ("Code", format_hints.Hex),
    ("Exception", str),
    ("Address", format_hints.Hex),
    ("Thrown At", str),
    ("Record", format_hints.Hex),
    ("Context", format_hints.Hex),
    ("Found By", str),
    ("Blocked Since", datetime.datetime),
    ("Verdict", str),
    ("Signature", str),
    ("Details", str),
    ("Notes", str),
]


def unhandled_row(machine: Machine, finding: Finding) -> Row:
    """Return a stuck thread's row, in the order of `UNHANDLED_COLUMNS`.

    A part that cannot be made is absent, and the notes say why: the thread is stuck, whatever else is broken.
    """
    stuck = finding.stuck
    blocked_in = ", ".join(f"{module}!{symbol}" for module, symbol in stuck.blocked_in)
    notes = [*finding.process.problems, *stuck.notes]
    if finding.reporter:
        notes.append(finding.reporter)
    what: Row = (_ABSENT,) * 7
    signature: object = _ABSENT
    details: object = _ABSENT

    def part(name: str) -> Guard:
        return guarded(lambda reason: notes.append(f"{name}: {reason}"))

    if stuck.exceptions:
        exception, record = stuck.exceptions[0], stuck.exceptions[0].record
        title: object = _ABSENT
        thrown_type = ""
        with part("exception"):
            text = _described(finding, record)
            title, thrown_type = text.title, text.thrown_type
            details = escape("; ".join(text.details), _MAX_NOTES) or details
        where: object = _ABSENT
        with part("throwing stack"):
            walk = stuck.throwing_walk(exception)
            names = [name_of(stuck.target.symbols, frame) for frame in walk.frames]
            notes += _about_the_throw(stuck, walk)
            where = escape(str(thrown_at(names) or names[0]))
            signature = str(signature_of(names, thrown_type or f"{record.code:#010x}"))
        what = (
            format_hints.Hex(record.code),
            title,
            format_hints.Hex(record.address),
            where,
            _address(record.location),
            _address(exception.context.address),
            exception.found_by,
        )
    since: datetime.datetime | None = None
    with part("clock"):
        since = blocked_since(machine, finding)
    text_of_box = ""
    with part("error box"):
        text_of_box = box_text(stuck.target, stuck.walk)
    return (
        finding.process.pid,
        escape(finding.process.name),
        finding.thread.tid,
        finding.arch,
        escape(blocked_in),
        *what,
        since or _ABSENT,
        verdict(stuck.kinds, has_exception=bool(stuck.exceptions), box_text=text_of_box),
        signature,
        details,
        escape("; ".join(notes), _MAX_NOTES),
    )


def _described(finding: Finding, record: ExceptionRecord) -> ExceptionText:
    target, stack = finding.stuck.target, finding.stuck.stack
    views = finding.process.pages.views

    def owner(address: int) -> str:
        return region_of(address, target.symbols, views, stack.bounds)

    return describe(record, target.memory, target.images, target.arch, owner)


def blocked_since(machine: Machine, finding: Finding) -> datetime.datetime | None:
    """Return when a stuck thread began to wait, or None if that or the clock could not be read."""
    ticks = finding.thread.wait_ticks
    return machine.clock.time_of_tick(ticks) if machine.clock is not None and ticks is not None else None


def _about_the_throw(stuck: Stuck, walk: Walk) -> Iterator[str]:
    if not walk.is_complete:
        yield f"throwing stack ends early: {ending(walk)}"
    for outer in stuck.exceptions[1:]:
        is_original = outer is stuck.exceptions[-1]
        label = "the original exception" if is_original else "an exception"
        yield (
            f"raised while {label} {outer.record.code:#010x} at {outer.record.address:#x} was being handled "
            f"({outer.where})"
        )


def ending(walk: Walk) -> str:
    """Return why a walk ended, in words."""
    return f"{walk.end.value} {walk.detail}".rstrip()


FRAME_COLUMNS: list[Column] = [
    ("PID", int),
    ("Process", str),
    ("TID", int),
    ("Frame", int),
    ("Child-SP", format_hints.Hex),
    ("RetAddr", format_hints.Hex),
    ("Args", str),
    ("IP", format_hints.Hex),
    ("Call Site", str),
    ("Source", str),
    ("Trust", str),
    ("Symbols", str),
]
FPO_COLUMNS: list[Column] = [("FPO", str)]
REGISTER_COLUMNS: list[Column] = [("Registers", str), ("Instruction", str)]
NOTES_COLUMN: list[Column] = [("Notes", str)]


class NameStyle(Enum):
    """How functions are named."""

    PLAIN = "plain"
    RAW = "raw"
    """As the symbols spell them: decorated."""
    SIGNATURE = "signature"
    """With the types of their parameters, where the symbols give them."""


def call_site(name: Name, style: NameStyle) -> str:
    """Return the call site of a frame in the wanted style, escaped."""
    if style is NameStyle.RAW and name.raw:
        name = replace(name, symbol=name.raw)
    elif style is NameStyle.SIGNATURE and name.signature:
        name = replace(name, symbol=name.signature)
    return escape(str(name))


def frame_rows(
    stack: ThrowingStack, *, with_registers: bool, style: NameStyle, with_fpo: bool = False
) -> Iterator[Row]:
    """Yield a row per frame: `FRAME_COLUMNS`, `FPO_COLUMNS` and `REGISTER_COLUMNS` if wanted, then the notes.

    A function that was inlined has a row of its own inside the frame it is part of, with the trust `inline`: the
    frame's Child-SP and IP, no return address. The registers of the first frame are all of the CONTEXT.
    """
    target, frames = stack.target, stack.walk.frames
    numbers = count()
    for index, frame in enumerate(frames):
        problems: list[str] = []
        context = stack.context if index == 0 else None
        for name in safe_names(target, frame, problems.append):
            number = next(numbers)
            notes = [stack.title] if number == 0 else []
            columns = bare_columns(frame, with_fpo=with_fpo) + (_ABSENT,) * (2 if with_registers else 0)
            with guarded(problems.append):
                substitute = substitute_note(frame, target.images, stack.process.pages.substitutes)
                notes += [note for note in (frame.note, substitute) if note and not name.is_inline]
                made = frame_columns(target, frame, name, style)
                made += (fpo_column(target, frame, name),) if with_fpo else ()
                columns = made + (_register_columns(target, frame, context) if with_registers else ())
            if index == len(frames) - 1 and not name.is_inline and not stack.walk.is_complete:
                notes.append(f"stack ends here: {ending(stack.walk)}")
            row: Row = (stack.process.pid, escape(stack.process.name), or_absent(stack.tid), number)
            yield (*row, *columns, escape("; ".join([*notes, *problems]), _MAX_NOTES))


def safe_names(target: Target, frame: Frame, say: Say) -> tuple[Name, ...]:
    """Return the names of a frame as `names_of` does; its bare address where that fails, and `say` learns why."""
    with guarded(say):
        return names_of(target.symbols, frame)
    return (Name(frame.ip),)


def bare_columns(frame: Frame, *, with_fpo: bool) -> Row:
    """Return what `frame_columns` (and `fpo_column`) give, as far as it is known without reading anything."""
    returns = None if frame.return_address is None else format_hints.Hex(frame.return_address)
    call_site_columns = (str(Name(frame.ip)), _ABSENT, frame.trust.value, _ABSENT)
    places = (format_hints.Hex(frame.child_sp), or_absent(returns), _ABSENT, format_hints.Hex(frame.ip))
    return (*places, *call_site_columns, *((_ABSENT,) if with_fpo else ()))


def frame_columns(target: Target, frame: Frame, name: Name, style: NameStyle) -> Row:
    """Return the columns of a frame from `Child-SP` to `Symbols`, as `FRAME_COLUMNS` has them."""
    returns = None if name.is_inline else frame.return_address
    return (
        format_hints.Hex(frame.child_sp),
        or_absent(None if returns is None else format_hints.Hex(returns)),
        or_absent(None if name.is_inline else arguments(target, frame)),
        format_hints.Hex(frame.ip),
        call_site(name, style),
        escape(f"[{name.source}]") if name.source else renderers.NotAvailableValue(),
        _INLINE if name.is_inline else frame.trust.value,
        name.provenance or renderers.NotAvailableValue(),
    )


def fpo_column(target: Target, frame: Frame, name: Name) -> object:
    """Return what the symbols say of an x86 frame, as `kv` prints it; nothing for a function inlined there."""
    image = target.images.find(frame.ip)
    if target.arch.facts.has_function_table or image is None or name.is_inline:
        return renderers.NotAvailableValue()
    rva = frame.ip - image.base - (0 if frame.is_interrupted else 1)
    data = target.symbols.table(image).frame_description(rva)
    return or_absent(None if data is None else annotation(data))


def _address(value: int) -> object:
    return or_absent(format_hints.Hex(value) if value else None)


def or_absent(value: object) -> object:
    """Return what Volatility's renderers show for None, or `value`."""
    return renderers.NotAvailableValue() if value is None else value


def _register_columns(target: Target, frame: Frame, context: Context | None) -> Row:
    absent = renderers.NotAvailableValue()
    if context is not None:
        text = format_context(context)
        instruction = format_instruction(target.memory, target.arch, frame.ip, context.cs)
    else:
        text = format_registers(target.arch, frame.registers)
        instruction = format_instruction(target.memory, target.arch, frame.ip)
    return text, instruction or absent


def arguments(target: Target, frame: Frame) -> str | None:
    """Return the three words behind an x86 frame's return address, as `kb` prints them; None where there are none.

    On x64 arguments travel in registers, and what `kb` shows there is whatever lies in their home space: nothing
    that could be called an argument.
    """
    if not target.arch.facts.arguments_on_stack or frame.return_slot is None:
        return None
    words = []
    for index in range(1, 4):
        word = _word(target.memory, frame.return_slot + 4 * index)
        words.append("????????" if word is None else f"{word:08x}")
    return " ".join(words) if set(words) != {"????????"} else None


def _word(memory: Memory, address: int) -> int | None:
    try:
        return memory.u32(address)
    except MemoryUnreadable:
        return None
