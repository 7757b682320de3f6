# SPDX-License-Identifier: Apache-2.0
"""Rows of the plugins: findings and frames turned into the values of their columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.contexts import Context
from throwstack.exceptions.describe import describe
from throwstack.frames import Frame, Walk
from throwstack.memory import Memory, MemoryUnreadable
from throwstack.naming import name_of
from throwstack.register_view import format_context, format_instruction, format_registers
from throwstack.registers import Arch
from throwstack.signature import thrown_at
from throwstack.target import Target
from throwstack.text import escape
from throwstack.triage import Stuck
from throwstack.volatility.cxr import ThrowingStack
from throwstack.volatility.machine import Machine
from throwstack.volatility.survey import Finding

Row = tuple[Any, ...]


def unhandled_row(machine: Machine, finding: Finding) -> Row:
    """Return a stuck thread's row, in the order of the columns of `windows.unhandled`."""
    stuck = finding.stuck
    exception = stuck.exceptions[0] if stuck.exceptions else None
    since = machine.clock.time_of_tick(finding.thread.wait_ticks) if machine.clock else None
    notes = [*finding.process.problems, *stuck.notes]
    blocked_in = ", ".join(f"{module}!{symbol}" for module, symbol in stuck.blocked_in)
    head = (finding.process.pid, escape(finding.process.name), finding.thread.tid, finding.arch, escape(blocked_in))
    absent = renderers.NotAvailableValue()
    if exception is None:
        what: Row = (absent,) * 7
    else:
        record = exception.record
        walk = stuck.throwing_walk(exception)
        names = [name_of(stuck.target.symbols, frame) for frame in walk.frames]
        notes += _about_the_throw(stuck, walk)
        what = (
            format_hints.Hex(record.code),
            escape(describe(record, stuck.target.memory, stuck.target.images, stuck.target.arch).title),
            format_hints.Hex(record.address),
            escape(str(thrown_at(names) or names[0])),
            format_hints.Hex(record.location),
            format_hints.Hex(exception.context.address),
            exception.found_by,
        )
    return (*head, *what, since or absent, escape("; ".join(notes)))


def _about_the_throw(stuck: Stuck, walk: Walk) -> Iterator[str]:
    if not walk.is_complete:
        yield f"throwing stack ends early: {ending(walk)}"
    for outer in stuck.exceptions[1:]:
        is_original = outer is stuck.exceptions[-1]
        label = "the original exception" if is_original else "an exception"
        yield (
            f"raised while {label} {outer.record.code:#010x} at {outer.record.address:#x} was being handled "
            f"(context {outer.context.address:#x})"
        )


def ending(walk: Walk) -> str:
    """Return why a walk ended, in words."""
    return f"{walk.end.value} {walk.detail}".rstrip()


def frame_rows(stack: ThrowingStack, *, with_registers: bool) -> Iterator[Row]:
    """Yield a row per frame, in the order of the columns of `windows.cxrstack`.

    With registers, two more columns come before the notes: the frame's registers (all of the CONTEXT for the first
    frame) and the instruction there.
    """
    absent = renderers.NotAvailableValue()
    target, frames = stack.target, stack.walk.frames
    for index, frame in enumerate(frames):
        named = name_of(target.symbols, frame)
        notes = [stack.title] if index == 0 else []
        if frame.note:
            notes.append(frame.note)
        if index == len(frames) - 1 and not stack.walk.is_complete:
            notes.append(f"stack ends here: {ending(stack.walk)}")
        row: Row = (
            stack.process.pid,
            escape(stack.process.name),
            absent if stack.tid is None else stack.tid,
            index,
            format_hints.Hex(frame.child_sp),
            absent if frame.return_address is None else format_hints.Hex(frame.return_address),
            arguments(target, frame) or absent,
            format_hints.Hex(frame.ip),
            escape(str(named)),
            escape(named.source) or absent,
            frame.trust.value,
        )
        if with_registers:
            row += _register_columns(target, frame, stack.context if index == 0 else None)
        yield (*row, escape("; ".join(notes)))


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
    if target.arch is not Arch.X86 or frame.return_slot is None:
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
