# SPDX-License-Identifier: Apache-2.0
"""What throwstack reads of the exception of a crashed managed process, in the form in which it is compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import throwstack
from tests.managed_live.console_text import OVERFLOW
from tests.managed_live.managed_compare import SeenException, SeenFrame
from throwstack.report.crash_report import ExceptionReport, InnerException
from throwstack.report.frame_report import FrameReport
from throwstack.report.managed_report import END_OF_EARLIER_STACK

_STACK_OVERFLOW = 0xC00000FD


def seen_in(folder: Path, tid: int) -> tuple[SeenException | None, list[str]]:
    """Return the exception that thread `tid` of the dump in `folder` is stuck on, and what is wrong with its stack."""
    with throwstack.open(folder / "MEMORY.DMP", symbols=[folder / "isf"], offline=True) as dump:
        crash = next((crash for crash in dump.report().crashes if crash.tid == tid), None)
    if crash is None or crash.exception is None:
        return None, ["no exception was read"]
    stack = crash.throwing
    is_whole = stack is not None and stack.is_complete
    return seen_exception(crash.exception), [] if is_whole else ["the throwing stack does not reach the thread's start"]


def seen_exception(found: ExceptionReport | InnerException) -> SeenException:
    """Return an exception with its inner ones; records that a record links to are none."""
    # A stack overflow has no object; the runtime prints the class all the same.
    name = OVERFLOW if found.code == _STACK_OVERFLOW and not found.type else found.type
    message = found.message.replace(r"\r\n", "\n").replace(r"\n", "\n") or None
    inner = tuple(seen_exception(item) for item in found.inner if item.code is None)
    return SeenException(name, message, _frames(found.logical_stack), inner, found.hresult)


def _frames(frames: Sequence[FrameReport]) -> tuple[SeenFrame, ...]:
    return tuple(SeenFrame(frame.function, END_OF_EARLIER_STACK in frame.note) for frame in frames)
