# SPDX-License-Identifier: Apache-2.0
"""Says what the functions in which a thread is stuck mean: a code from a closed set, and a few words for a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from throwstack.core.text import escape, in_quotes
from throwstack.names.blockers import BlockerKind
from throwstack.stuck.dispatch_state import DispatchState, NotBack


class VerdictCode(Enum):
    """The state of a stuck thread. The value is the beginning of its text.

    The text of EXCEPTION_FILTER names the function whose filter it is, if that is known.
    """

    CRASHED_IN_SHUTDOWN = "crashed inside shutdown"
    CRASHED_WAITING_FOR_DEBUGGER = "crashed and waiting for a debugger"
    CRASHED_IN_TERMINATE_PROCESS = "crashed and stuck in TerminateProcess"
    CRASHED_WAITING_FOR_WER = "crashed and waiting for WER"
    CRASHED_IN_TERMINATE = "crashed and stuck in terminate"
    CRASHED_IN_ABORT = "crashed and stuck in abort"
    CRASHED_IN_FILTER = "crashed and waiting in the unhandled exception filter"
    CRASHED = "crashed"
    FAILED_FAST = "failed fast"
    STACK_COOKIE = "stack cookie overwritten"
    PURE_CALL = "pure virtual function called"
    INVALID_PARAMETER = "invalid parameter passed to the C runtime"
    TERMINATE = "C++ terminate called"
    ABORT = "abort called"
    WAITING_FOR_DEBUGGER = "waiting for a debugger"
    WAITING_FOR_WER = "waiting for WER"
    IN_TERMINATE_PROCESS = "stuck in TerminateProcess"
    HANGS_IN_SHUTDOWN = "hangs in shutdown without an exception"
    ERROR_BOX = "error box shown"
    STOPPED = "stopped by an exception in the kernel: waits for a debugger or the error port"
    SECOND_CHANCE = "second chance: waits for a debugger or the error port"
    VECTORED_HANDLER = "an exception is being dispatched, and a vectored handler does not return"
    EXCEPTION_FILTER = "an exception is being dispatched, and an exception filter does not return"
    TERMINATION_HANDLER = "an exception is being dispatched, and a termination handler does not return"
    DISPATCHER_LOCK = "an exception is being dispatched, and the dispatcher's lock is not released"
    IN_DISPATCH = "an exception is being dispatched, and its handling does not return"
    HANDLED = "handled; still on the stack"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class CrashVerdict:
    """The state of a stuck thread. `is_in_shutdown` and `shows_box` say what `text` adds to the text of the code."""

    code: VerdictCode
    text: str
    is_in_shutdown: bool = False
    shows_box: bool = False


_CRASHES = {
    BlockerKind.JIT_DEBUGGER: VerdictCode.CRASHED_WAITING_FOR_DEBUGGER,
    BlockerKind.TERMINATION: VerdictCode.CRASHED_IN_TERMINATE_PROCESS,
    BlockerKind.WER: VerdictCode.CRASHED_WAITING_FOR_WER,
    BlockerKind.CLR_WATSON: VerdictCode.CRASHED_WAITING_FOR_WER,
    BlockerKind.FAIL_FAST: VerdictCode.FAILED_FAST,
    BlockerKind.TERMINATE: VerdictCode.CRASHED_IN_TERMINATE,
    BlockerKind.ABORT: VerdictCode.CRASHED_IN_ABORT,
    BlockerKind.UNHANDLED_FILTER: VerdictCode.CRASHED_IN_FILTER,
}
"""What being stuck in each kind of function means if there is an exception; the most informative kind is first."""

_CAUSES = {
    BlockerKind.GS_FAILURE: VerdictCode.STACK_COOKIE,
    BlockerKind.FAIL_FAST: VerdictCode.FAILED_FAST,
    BlockerKind.PURE_CALL: VerdictCode.PURE_CALL,
    BlockerKind.INVALID_PARAMETER: VerdictCode.INVALID_PARAMETER,
    BlockerKind.TERMINATE: VerdictCode.TERMINATE,
    BlockerKind.ABORT: VerdictCode.ABORT,
    BlockerKind.JIT_DEBUGGER: VerdictCode.WAITING_FOR_DEBUGGER,
    BlockerKind.WER: VerdictCode.WAITING_FOR_WER,
    BlockerKind.TERMINATION: VerdictCode.IN_TERMINATE_PROCESS,
}
"""What being stuck in each kind of function means if no exception is known; the most informative kind is first."""

_BOXES = frozenset({BlockerKind.ERROR_BOX, BlockerKind.MESSAGE_BOX, BlockerKind.HARD_ERROR})


_NOT_BACK = {
    NotBack.KERNEL: VerdictCode.STOPPED,
    NotBack.SECOND_CHANCE: VerdictCode.SECOND_CHANCE,
    NotBack.VECTORED_HANDLER: VerdictCode.VECTORED_HANDLER,
    NotBack.EXCEPTION_FILTER: VerdictCode.EXCEPTION_FILTER,
    NotBack.TERMINATION_HANDLER: VerdictCode.TERMINATION_HANDLER,
    NotBack.LOCK: VerdictCode.DISPATCHER_LOCK,
    NotBack.UNKNOWN: VerdictCode.IN_DISPATCH,
    NotBack.NOBODY: VerdictCode.HANDLED,
}
"""What it means that an exception is being dispatched, by who has not come back."""


def verdict(
    kinds: Iterable[BlockerKind], *, has_exception: bool, box_text: str = "", dispatch: DispatchState | None = None
) -> CrashVerdict:
    """Return the state of a thread that is stuck in functions of these kinds.

    `has_exception` says whether a saved exception was found. `box_text` is the text of the error box, if it was
    readable. `dispatch` is the state of the exception's dispatch; it decides if `kinds` is empty.
    """
    found = set(kinds)
    if dispatch is not None and not found:
        return _in_dispatch(dispatch, box_text)
    crashed = has_exception or BlockerKind.UNHANDLED_FILTER in found or BlockerKind.CLR_WATSON in found
    in_shutdown = BlockerKind.SHUTDOWN in found
    # Below RaiseFailFastException, NtRaiseHardError shows no box but has the failure reported.
    is_reported = BlockerKind.HARD_ERROR in found and BlockerKind.FAIL_FAST in found
    shows_box = bool(box_text) or bool(found & (_BOXES - ({BlockerKind.HARD_ERROR} if is_reported else set())))
    parts = []
    code = VerdictCode.UNKNOWN
    if in_shutdown:
        code, words = (VerdictCode.CRASHED_IN_SHUTDOWN, "") if crashed else _shutdown(found)
        parts.append(words or code.value)
    if shows_box:
        if not parts:
            code = VerdictCode.CRASHED if crashed else _first(_CAUSES, found, VerdictCode.ERROR_BOX)
            parts = [] if code is VerdictCode.ERROR_BOX else [code.value]
        parts.append(_box(box_text))
    if not parts:
        code = _first(_CRASHES, found, VerdictCode.CRASHED) if crashed else _first(_CAUSES, found, VerdictCode.UNKNOWN)
        parts.append(code.value)
    return CrashVerdict(code, ", ".join(parts), in_shutdown, shows_box)


def _in_dispatch(dispatch: DispatchState, box_text: str) -> CrashVerdict:
    code = _NOT_BACK[dispatch.waits_for]
    text = code.value
    if code is VerdictCode.EXCEPTION_FILTER and dispatch.function:
        text = f"an exception is being dispatched, and the filter of {escape(dispatch.function)} does not return"
    shows_box = bool(box_text) and code is not VerdictCode.HANDLED
    return CrashVerdict(code, f"{text}, {_box(box_text)}" if shows_box else text, shows_box=shows_box)


def _box(text: str) -> str:
    return f"error box shown: {in_quotes(escape(text))}" if text else "error box shown"


def _first(meanings: dict[BlockerKind, VerdictCode], found: set[BlockerKind], otherwise: VerdictCode) -> VerdictCode:
    return next((code for kind, code in meanings.items() if kind in found), otherwise)


def _shutdown(found: set[BlockerKind]) -> tuple[VerdictCode, str]:
    """Return the code, and text if the code's own is not enough, for a hang in shutdown without an exception."""
    code = _first(_CAUSES, found - {BlockerKind.TERMINATION}, VerdictCode.HANGS_IN_SHUTDOWN)
    return code, "" if code is VerdictCode.HANGS_IN_SHUTDOWN else f"{code.value}, hangs in shutdown"
