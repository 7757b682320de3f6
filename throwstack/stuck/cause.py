# SPDX-License-Identifier: Apache-2.0
"""Of several exceptions in flight on a thread, finds the cause: the one whose handling led to the end.

A program that nobody handles an exception of is often buried by a second one. Examples:

- A C++ exception has no handler. The filter of the C runtime calls terminate, which calls abort. Since Visual Studio
  2015 abort fails fast (int 29h, code 7); before, it made up an exception 0x40000015. The C++ exception is the cause.
- An access violation has no handler. The program's crash filter runs, and faults itself. The first one is the cause.
- A catch block handles a C++ exception, and reads a null pointer. The two are independent: the second is the cause.

The stack that threw the inner exception shows which it is. Between that throw and the throw of the next exception
further out are the frames of the outer one's dispatch. The inner exception is only the end of the outer one in these
cases:

- A function is there that runs only if an exception went unhandled, such as UnhandledExceptionFilter.
- C++ terminate is there, called by the dispatch and not by the program: the exception met a noexcept function.
- The inner exception is of a kind that is only raised to end a program, such as abort's fast-fail, and the dispatch
  has called a handler that has not returned. The handler may be the program's own: a vectored handler, or the filter
  of an `__except` block.
- The inner exception is a C++ exception that a translator of Windows exceptions threw (_set_se_translator).
- The inner exception is a fail-fast of ntdll's own, and only ntdll is between: the dispatcher refused to go on.
  Example: an overflow overwrites the chain of exception registrations and then runs into the end of the stack. The
  dispatcher finds the chain broken, and fails fast (code 21). The access violation is the cause.
- The inner exception has a record that the runtime of .NET made to end the process, with the code of the outer one.
- The inner exception is a breakpoint of a function that only reports a failure, called by a handler. Example:
  Application Verifier's vectored handler reports an access violation, and stops for a debugger.

What is further in than an end is an end as well: the program was ending already.

A fault in a vectored handler or in the filter of an `__except` block is not an end: the handler might have taken the
outer exception if it had not failed.

This must rest on frames that were not guessed and names that are certain. Otherwise the order stays as it is, innermost
first, and a note says that it may be wrong.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from throwstack.core.exception_record import STACK_BUFFER_OVERRUN, ExceptionRecord
from throwstack.core.frames import Walk
from throwstack.core.guard import Guard
from throwstack.dispatch.raisers import is_made_by_clr
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.exceptions.cpp import CPP
from throwstack.names.blockers import Blocker, BlockerKind, blocker_named
from throwstack.names.dispatch_functions import DISPATCHERS_MODULE, DispatchRole, functions_of
from throwstack.names.frame_names import name_of
from throwstack.names.stable_names import plain_name
from throwstack.names.symbols import Name
from throwstack.stuck.frame_roles import Role, roles_of
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target

Item = TypeVar("Item")

_ENDING_FAST_FAILS = frozenset({5, 7})
"""FAST_FAIL_INVALID_ARG: the C runtime's _invoke_watson. FAST_FAIL_FATAL_APP_EXIT: abort (winnt.h)."""
_FAST_FAILS_OF_COOKIES = frozenset({0, 2})
"""FAST_FAIL_LEGACY_GS_VIOLATION, FAST_FAIL_STACK_COOKIE_CHECK_FAILURE: the frame that was overwritten is the cause."""
_STOPS = frozenset({0x80000003, 0xC000001D, 0xC0000420})
"""STATUS_BREAKPOINT, _ILLEGAL_INSTRUCTION, _ASSERTION_FAILURE (ntstatus.h): instructions that stop a program."""
_ENDS = frozenset({0x40000015, 0xC0000417, 0xC0000025, 0xC0000026, 0xC0000602, 0x80131506, 0x80131623})
"""What is raised to end a program, by runtimes, or by the dispatcher if a handler answers what it must not.

STATUS_FATAL_APP_EXIT, STATUS_INVALID_CRUNTIME_PARAMETER, STATUS_NONCONTINUABLE_EXCEPTION, STATUS_INVALID_DISPOSITION,
STATUS_FAIL_FAST_EXCEPTION (ntstatus.h), COR_E_EXECUTIONENGINE, COR_E_FAILFAST (corerror.h).
"""
_LAST_FILTERS = frozenset({"_XcptFilter", "_seh_filter_exe", "_seh_filter_dll", "__CppXcptFilter"})
"""Filters of the C runtime around main and the routines of threads: no other handler took the exception."""
_TAKERS = re.compile(
    r"RtlUnwind(Ex|2)?|Rc(Consolidate|FrameConsolidat)\w+|Rtlp?ExecuteHandlerForUnwind\w*"
    r"|_*(Cxx)?CallCatchBlock2?|_*CallSettingFrame\w*|_*FrameUnwindToState|_*UnwindNestedFrames"
    r"|_*(EH4_)?(local|global)_?unwind\d*|CallJitEHFinally\w*|COMPlusUnwindCallback|Call(Catch|Finally)\w*",
    re.IGNORECASE,
)
"""Functions that run after a handler took an exception: they unwind the stack, or run the block that catches."""
_TAKING_PART = re.compile(r"\$(catch|dtor|fin)\$\d+$|^\?(catch|dtor|fin)\$\d+@")
"""The end of the name of a part of a function that runs only after a handler took an exception."""
_CPP_HANDLERS = re.compile(r"_*(InternalCxxFrameHandler\w*|CxxFrameHandler\d?|CallSETranslator)")
_DISPATCHERS = functions_of(DispatchRole.DISPATCHER, DispatchRole.RAISER)
_MACHINERY = frozenset({Role.CARRIES, Role.REPORTS, Role.HANDLES, Role.BEGINS, Role.STARTS})


def led_by_cause(target: Target, stuck: StuckThread) -> StuckThread:
    """Return `stuck` with its exceptions and throwing walks reordered, so that the cause is the first.

    `stuck` has its exceptions innermost first, and so have its throwing walks. In the result, the cause is followed by
    the exceptions that ended it, in the order in which they were raised (`StuckThread.end_count` is their number), and
    by those that were being handled when the cause was raised. If this fails, `stuck` is returned with a note.
    """
    notes: list[str] = []
    with Guard(lambda reason: notes.append(f"which exception is the cause: {reason}")):
        cause, may_be = _cause(target, stuck)
        if may_be is not None:
            notes.append(
                f"this exception may not be the cause, but only how {may_be.record.code:#010x} at "
                f"{may_be.record.address:#x} ended: the frames between the two are not certain"
            )
        notes = [*stuck.notes, *notes]
        return replace(
            stuck,
            exceptions=_reordered(stuck.exceptions, cause),
            throwing_walks=_reordered(stuck.throwing_walks, cause),
            notes=tuple(notes),
            end_count=cause,
        )
    return replace(stuck, notes=(*stuck.notes, *notes))


def _cause(target: Target, stuck: StuckThread) -> tuple[int, SavedException | None]:
    """Return the index of the cause, and the exception further out that may be the cause instead, or None.

    Example of three: a C++ exception is unhandled, the crash filter divides by zero, and a vectored handler faults over
    that. The fault is no end of the division, which the program might have handled. Both ended the C++ exception, as
    the division was below UnhandledExceptionFilter.
    """
    cause, is_in_handlers = 0, True
    may_be: SavedException | None = None
    for index, (inner, outer) in enumerate(pairwise(stuck.exceptions)):
        between = _Between(target, stuck.throwing_walks[index], outer)
        is_end = between.shows_end(inner.record) or _is_told_by_clr(target, inner, outer)
        if is_end and (cause == index or between.is_past_handlers or is_in_handlers):
            cause, may_be = index + 1, None
        elif between.may_show_end and cause == index:
            may_be = outer
        is_in_handlers &= is_end or between.is_in_handler()
    return cause, may_be


def _is_told_by_clr(target: Target, inner: SavedException, outer: SavedException) -> bool:
    """Say whether the runtime of .NET ended its process for the fault `outer`, with a record of its own."""
    is_bare_copy = inner.record.code == outer.record.code and bool(outer.record.parameters)
    return is_bare_copy and is_made_by_clr(target, inner.record, inner.context.registers.ip)


def _reordered(items: tuple[Item, ...], cause: int) -> tuple[Item, ...]:
    return (*reversed(items[: cause + 1]), *items[cause + 1 :])


class _Between:
    """The frames between the throw of an exception and that of the next one further out."""

    def __init__(self, target: Target, walk: Walk, outer: SavedException) -> None:
        """`walk` is the stack that threw the inner exception; `outer` is the next exception further out."""
        bound = outer.context.registers.sp
        frames = [frame for frame in walk.frames if frame.sp < bound]
        self._is_whole = len(frames) < len(walk.frames)
        self._named = [name_of(target.symbols, frame) for frame in frames]
        guess = first_guess(target, frames)
        self._first_guess = len(frames) if guess is None else guess
        self._outer = outer
        self._is_filters_argument = Route.FILTER_ARGUMENT in outer.routes
        self._may_be_far = not outer.context.arch.facts.has_function_table
        self._is_taken = any(_is_taker(name) for name in self._named)
        self.is_past_handlers = False
        """Whether the outer exception had met no handler, so that nothing further in was handled to go on."""
        self.may_show_end = False

    def shows_end(self, record: ExceptionRecord) -> bool:
        """Say whether the inner exception, which has this record, is only the end of the outer one.

        `may_show_end` is True afterwards if that was found, but not for certain.
        """
        self.is_past_handlers = self._met_no_handler()
        if self.is_past_handlers or self._is_translation(record) or self._is_dispatchers_own(record):
            return True
        if not self._named or not (_is_end(record) or _is_stop(record, self._named[0])):
            return False
        self.may_show_end |= not self._is_taken
        return self._is_called_by_machinery(0) or self.is_in_handler()

    def _met_no_handler(self) -> bool:
        """Say whether a function is there that runs only if the outer exception met no handler."""
        for depth, name in enumerate(self._named):
            blocker = _blocker(name)
            is_last = plain_name(name.symbol) in _LAST_FILTERS
            if is_last or (blocker is not None and blocker.proves_exception):
                if self._is_certain(depth, name, is_proof=not is_last):
                    return True
                self.may_show_end = True
            elif blocker is not None and blocker.kind is BlockerKind.TERMINATE and self._is_called_by_machinery(depth):
                return True
        return False

    def _is_dispatchers_own(self, record: ExceptionRecord) -> bool:
        """Say whether ntdll failed fast while it dispatched the outer exception, and had called no other code."""
        is_fast_fail = record.code == STACK_BUFFER_OVERRUN and not _FAST_FAILS_OF_COOKIES & {*record.parameters[:1]}
        is_alone = all(name.module.lower() == DISPATCHERS_MODULE for name in self._named)
        return is_fast_fail and is_alone and self._is_asking()

    def _is_translation(self, record: ExceptionRecord) -> bool:
        """Say whether a translator threw the inner exception to make a C++ exception of the outer one.

        Before a handler took the exception, the C++ runtime's frame handler calls no other code that throws.
        """
        handlers = (_CPP_HANDLERS.fullmatch(_bare(name)) for name in self._named if not name.is_doubtful)
        is_pair = record.code == CPP != self._outer.record.code
        return is_pair and any(handlers) and self.is_in_handler()

    def is_in_handler(self) -> bool:
        """Say whether the dispatch of the outer exception called a handler, and no handler has taken that exception.

        x64: who takes an exception calls RtlUnwindEx, which is exported, so that other frames need no names. x86: a
        catch block runs on top of the frames of the dispatch, without RtlUnwind. Either the outer exception is known by
        the registration that the dispatcher keeps while it asks a handler, or all frames need names.
        """
        is_live = not self._may_be_far or Route.REGISTRATION in self._outer.routes
        has_names = all(name.is_likely for name in self._named)
        return (is_live or has_names) and self._is_asking()

    def _is_asking(self) -> bool:
        """Say whether the dispatch of the outer exception is there, all frames are proven, and none is a taker's."""
        if not self._is_whole or self._first_guess < len(self._named):
            return False
        if self._is_taken or any(_TAKERS.fullmatch(_bare(name)) for name in self._named):
            return False
        return any(_bare(name) in _DISPATCHERS and not name.is_doubtful for name in self._named)

    def _is_certain(self, depth: int, name: Name, *, is_proof: bool) -> bool:
        """Say whether the frame at `depth` is in the function that `name` names.

        `is_proof` says that the function runs only if an exception went unhandled. On x86 its name is accepted although
        it is doubtful, because UnhandledExceptionFilter is long, and the address in it far from its symbol. Its frame
        is accepted although it rests on a guess if its argument leads to the outer exception.
        """
        if is_proof and self._is_filters_argument:
            return True
        return depth < self._first_guess and (not name.is_doubtful or (is_proof and self._may_be_far))

    def _is_called_by_machinery(self, depth: int) -> bool:
        """Say whether all frames from `depth` outwards are machinery of runtimes and the dispatcher, for certain."""
        is_certain = self._is_whole and self._first_guess == len(self._named)
        for name in self._named[depth:]:
            is_machinery = _is_machinery(name)
            if not is_machinery and name.is_likely:
                return False
            is_certain &= is_machinery
        self.may_show_end |= not is_certain
        return is_certain


def _blocker(name: Name) -> Blocker | None:
    return blocker_named(name.module, name.symbol) or blocker_named(name.module, plain_name(name.symbol))


def _bare(name: Name) -> str:
    return plain_name(name.symbol).replace("<T>", "")


def _is_taker(name: Name) -> bool:
    is_function = not name.is_doubtful and _TAKERS.fullmatch(_bare(name)) is not None
    return is_function or _TAKING_PART.search(name.symbol) is not None


def _is_machinery(name: Name) -> bool:
    module = name.module.lower()
    is_of_system = Role.HELPS in roles_of(module, "")
    return is_of_system or bool(not name.is_doubtful and roles_of(module, plain_name(name.symbol)) & _MACHINERY)


def _is_end(record: ExceptionRecord) -> bool:
    is_fast_fail = record.code == STACK_BUFFER_OVERRUN and bool(_ENDING_FAST_FAILS & {*record.parameters[:1]})
    return is_fast_fail or record.code in _ENDS


def _is_stop(record: ExceptionRecord, thrower: Name) -> bool:
    """Say whether a function that only reports a failure has stopped the program on purpose."""
    roles = roles_of(thrower.module.lower(), "" if thrower.is_doubtful else plain_name(thrower.symbol))
    return record.code in _STOPS and Role.REPORTS in roles
