# SPDX-License-Identifier: Apache-2.0
"""Says who has not come back, of a thread on whose stack an exception is being dispatched.

The frames between the dispatcher and the innermost frame tell: a vectored handler, the filter of an `__except` block,
the dispatcher's own lock, or NtRaiseException, which asks the debugger and the error port when nobody took it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import dropwhile

from throwstack.core.frames import Frame
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.taken import runs_handler
from throwstack.names.dispatch_functions import DispatchRole, role_of
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.managed_filter import managed_filter
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target

# Filters and termination handlers are functions of their own on x64: `Loop$filt$0` (Microsoft), `?filt$0@0@Loop@@`
# (clang). On x86 they are parts of their function and have its name.
_FILTER = re.compile(r"^(?P<owner>.+)\$filt\$\d+$|^\?filt\$\d+@\d+@(?P<mangled>\w+)@@")
_TERMINATION = re.compile(r"\$fin\$\d+$|^\?fin\$\d+@")


class NotBack(Enum):
    """Who has not come back to the dispatch of an exception."""

    KERNEL = "the debugger or the error port, which the kernel asks"
    SECOND_CHANCE = "the debugger or the error port"
    VECTORED_HANDLER = "a vectored handler"
    EXCEPTION_FILTER = "an exception filter"
    TERMINATION_HANDLER = "a termination handler"
    LOCK = "the dispatcher's lock"
    UNKNOWN = "the exception's handling"
    NOBODY = "nobody: a handler took the exception"


@dataclass(frozen=True, slots=True)
class DispatchState:
    """The state of the dispatch of an exception.

    `waits_for` says who has not come back. `blocked_in` are module and symbol of the function that explains the wait
    best. `function` is the function whose filter does not return, `module!symbol`; "" if it is not known, or if it is
    not a filter.
    """

    waits_for: NotBack
    blocked_in: tuple[str, str]
    function: str = ""


@dataclass(frozen=True, slots=True)
class _Step:
    name: Name
    role: DispatchRole | None
    """What the frame's function does in a dispatch; None also if its name is doubtful."""

    @property
    def is_ntdll(self) -> bool:
        return self.name.module.lower() == "ntdll"

    @property
    def pair(self) -> tuple[str, str]:
        return self.name.module, self.name.symbol if self.name.is_likely else ""


def dispatch_state(target: Target, frames: Sequence[Frame], exception: SavedException) -> DispatchState:
    """Return the state of the dispatch of `exception`. `frames` are those from the wait outwards to the dispatcher."""
    steps = _steps(target, frames, exception)
    state = _second_chance(steps) or _vectored(steps) or _managed(target, steps) or _handler(steps, exception)
    state = state or _without_handler(target, steps, frames)
    if state is not None:
        return state
    outside = next((step for step in steps if not step.is_ntdll), None)
    return DispatchState(NotBack.UNKNOWN, _blocked_in(steps) if outside is None else _shown(outside))


def handled_state(target: Target, frames: Sequence[Frame], exception: SavedException) -> DispatchState:
    """Return the state of a thread whose `exception` a handler has taken. `frames` are as for `dispatch_state`."""
    return DispatchState(NotBack.NOBODY, _blocked_in(_steps(target, frames, exception)))


def _steps(target: Target, frames: Sequence[Frame], exception: SavedException) -> list[_Step]:
    """Return `frames` from the dispatcher inwards, with their names and roles."""
    steps = []
    for frame in reversed(frames):
        name = name_of(target.symbols, frame)
        role = role_of(name.symbol) if name.is_likely else None
        if role is None and name.module.lower() == "ntdll" and runs_handler(target, frame, exception):
            role = DispatchRole.RUNS_HANDLER
        steps.append(_Step(name, role))
    return steps


def _second_chance(steps: Sequence[_Step]) -> DispatchState | None:
    for step in steps:
        if step.role is DispatchRole.SECOND_CHANCE:
            return DispatchState(NotBack.SECOND_CHANCE, step.pair)
    return None


def _vectored(steps: Sequence[_Step]) -> DispatchState | None:
    for index, step in enumerate(steps):
        if step.role is DispatchRole.CALLS_VECTORED:
            handler = next((inner for inner in steps[index + 1 :] if not inner.is_ntdll), None)
            if handler is None:
                return DispatchState(NotBack.LOCK, step.pair)
            return DispatchState(NotBack.VECTORED_HANDLER, _shown(handler))
    return None


def _managed(target: Target, steps: Sequence[_Step]) -> DispatchState | None:
    """Return the state of a dispatch in which the runtime of .NET asks a filter, or None if it does not."""
    asked = managed_filter(target, [step.name for step in dropwhile(lambda step: step.is_ntdll, steps)])
    if asked is None:
        return None
    return DispatchState(NotBack.EXCEPTION_FILTER, (asked.module, asked.symbol), f"{asked.module}!{asked.symbol}")


def _handler(steps: Sequence[_Step], exception: SavedException) -> DispatchState | None:
    """Return the state of a dispatch that asks the handler of a frame, or None if it does not."""
    calls = (DispatchRole.RUNS_HANDLER, DispatchRole.LANGUAGE_HANDLER)
    start = next((index for index, step in enumerate(steps) if step.role in calls), None)
    if start is None:
        return _unseen_handler(steps, exception)
    inner = [step for step in steps[start:] if step.role not in calls]
    if not inner:
        return None
    asked = inner[0]
    if _TERMINATION.search(asked.name.symbol):
        return DispatchState(NotBack.TERMINATION_HANDLER, _shown(asked))
    named = _FILTER.search(asked.name.symbol)
    languages = [step.name.symbol for step in steps if step.role is DispatchRole.LANGUAGE_HANDLER]
    is_filter = any("Cxx" not in symbol for symbol in languages) and not asked.is_ntdll
    if named is None and not is_filter:
        return DispatchState(NotBack.UNKNOWN, _shown(asked))
    return DispatchState(NotBack.EXCEPTION_FILTER, _shown(asked), _owner(asked.name, named))


def _unseen_handler(steps: Sequence[_Step], exception: SavedException) -> DispatchState | None:
    """Return the state of an x86 dispatch with a handler that runs by its registration, but is on no frame; or None.

    The walk has gone from the filter, which is a part of its function and has that function's ebp, to the function's
    caller.
    """
    if Route.REGISTRATION not in exception.routes or not steps:
        return None
    asked = steps[0]
    if asked.is_ntdll or not _owner(asked.name, None):
        return DispatchState(NotBack.UNKNOWN, _shown(asked))
    return DispatchState(NotBack.EXCEPTION_FILTER, _shown(asked), _owner(asked.name, None))


def _owner(name: Name, named: re.Match[str] | None) -> str:
    """Return the function that a filter is of. `named` is the match of the filter's own name, if it has one."""
    if named is not None:
        return f"{name.module}!{named['owner'] or named['mangled']}"
    is_known = name.is_likely and name.kind is not SymbolKind.EXPORT
    return f"{name.module}!{name.symbol}" if is_known else ""


def _without_handler(target: Target, steps: Sequence[_Step], frames: Sequence[Frame]) -> DispatchState | None:
    """Return the state of a dispatch that asks no handler of a frame, as far as it can be told.

    What is further in than the dispatcher is ntdll's own code, which waits for a lock, or code that ntdll has called.
    On x86, where ExecuteHandler is known by its arguments, this can only be a vectored handler.
    """
    outside = next((step for step in steps if not step.is_ntdll), None)
    if outside is None:
        lock = next((step for step in reversed(steps) if step.role is DispatchRole.TAKES_LOCK), None)
        return None if lock is None else DispatchState(NotBack.LOCK, lock.pair)
    if target.arch.facts.has_exception_list and first_guess(target, frames) is None:
        return DispatchState(NotBack.VECTORED_HANDLER, _shown(outside))
    return None


def _blocked_in(steps: Sequence[_Step]) -> tuple[str, str]:
    """Return the dispatcher's outermost function, or the outermost function at all if none of it is named."""
    named = next((step for step in steps if step.role is not None), None)
    return named.pair if named is not None else _shown(steps[0]) if steps else ("", "")


def _shown(step: _Step) -> tuple[str, str]:
    name = step.name
    if name.is_likely:
        return name.module, name.symbol
    return (name.module, f"+{name.offset:#x}") if name.module else ("", f"{name.address:#x}")
