# SPDX-License-Identifier: Apache-2.0
"""The functions through which Windows dispatches an exception, and what each does there.

The way of an exception, from the outside in: the kernel starts KiUserExceptionDispatcher on the thread, or the program
calls RtlRaiseException. Either calls RtlDispatchException, which asks the vectored handlers and then, frame by frame,
the handlers of the functions on the stack. A language's handler (`__C_specific_handler`) asks the filter of a `__try`
block. Who takes the exception unwinds the stack. If nobody takes it, NtRaiseException asks for the second chance.

Names from x64's private symbols and from exports differ: ntdll exports KiUserExceptionDispatcher, and its PDB since
Windows 8 has KiUserExceptionDispatch.
"""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase
from functools import cache, lru_cache


class DispatchRole(Enum):
    """What a function does in the dispatch of an exception."""

    DISPATCHER = "the kernel starts it on a thread that faulted"
    RAISER = "raises a software exception"
    RUNTIME_RAISER = "raises a runtime's exceptions, through RtlRaiseException"
    SEARCHER = "asks the handlers"
    CALLS_VECTORED = "calls the vectored handlers"
    RUNS_HANDLER = "calls the handler of a frame"
    LANGUAGE_HANDLER = "the handler of a compiler, which calls filters"
    SECOND_CHANCE = "asks the debugger and the error port, and waits"
    UNWINDER = "unwinds the stack for the handler that took the exception"
    CATCHER = "runs a catch block, on top of the frames of the dispatch"
    TAKES_LOCK = "waits for a lock"


_NTDLL, _ANY = ("ntdll",), ("*",)
_FUNCTIONS: dict[DispatchRole, tuple[tuple[str, ...], frozenset[str]]] = {
    DispatchRole.DISPATCHER: (_NTDLL, frozenset({"KiUserExceptionDispatch", "KiUserExceptionDispatcher"})),
    DispatchRole.RAISER: (_NTDLL, frozenset({"RtlRaiseException", "RtlRaiseStatus"})),
    DispatchRole.RUNTIME_RAISER: (
        ("mscorwks", "mscorsvr", "clr", "coreclr"),
        frozenset({"RaiseTheExceptionInternalOnly", "RaiseTheException", "IL_Throw", "IL_Rethrow"}),
    ),
    DispatchRole.SEARCHER: (_NTDLL, frozenset({"RtlDispatchException"})),
    DispatchRole.CALLS_VECTORED: (
        _NTDLL,
        frozenset({"RtlpCallVectoredHandlers", "RtlCallVectoredExceptionHandlers", "RtlCallVectoredContinueHandlers"}),
    ),
    DispatchRole.RUNS_HANDLER: (
        _NTDLL,
        frozenset(
            {
                *("ExecuteHandler", "ExecuteHandler2", "RtlpExecuteHandlerForException"),
                *("RtlpExecuteHandler", "RtlpExecuteHandler2"),
            }
        ),
    ),
    DispatchRole.LANGUAGE_HANDLER: (
        _ANY,
        frozenset(
            {
                *("__C_specific_handler", "__C_specific_handler_noexcept", "_C_specific_handler"),
                *("__GSHandlerCheck_SEH", "__GSHandlerCheck_SEH_noexcept", "__GSHandlerCheck", "__GSHandlerCheck_EH"),
                *("_except_handler2", "_except_handler3", "_except_handler4", "_except_handler4_common"),
                *("except_handler3", "except_handler4", "_EH4_CallFilterFunc", "EH4_CallFilterFunc"),
                *("__except_handler3", "__except_handler4", "__CxxFrameHandler", "__CxxFrameHandler2"),
                *("__CxxFrameHandler3", "__CxxFrameHandler4", "__InternalCxxFrameHandler", "_SEH_handler"),
            }
        ),
    ),
    DispatchRole.SECOND_CHANCE: (_NTDLL, frozenset({"NtRaiseException", "ZwRaiseException"})),
    DispatchRole.UNWINDER: (
        _NTDLL,
        frozenset(
            {
                *("RtlUnwind", "RtlUnwindEx", "RtlUnwind2", "RtlpExecuteHandlerForUnwind"),
                *("RtlpExecuteHandlerForUnwindHandler", "ExecuteHandlerForUnwind"),
            }
        ),
    ),
    DispatchRole.CATCHER: (
        _ANY,
        frozenset(
            {
                *("RcConsolidateFrames", "RcFrameConsolidation", "_CxxCallCatchBlock", "CallCatchBlock"),
                *("_CallCatchBlock", "_CallCatchBlock2", "CallCatchBlock2", "_CallSettingFrame"),
                *("__FrameHandler3::CxxCallCatchBlock", "__FrameHandler4::CxxCallCatchBlock"),
            }
        ),
    ),
    DispatchRole.TAKES_LOCK: (
        _NTDLL,
        frozenset(
            {
                *("RtlEnterCriticalSection", "RtlpEnterCriticalSectionContended", "RtlpWaitOnCriticalSection"),
                *("RtlpWaitForCriticalSection", "RtlAcquireSRWLockShared", "RtlAcquireSRWLockExclusive"),
                *("RtlpAcquireSRWLockSharedContended", "RtlpAcquireSRWLockExclusiveContended", "RtlpWaitOnAddress"),
                *("RtlLookupFunctionTable", "RtlLookupFunctionEntry", "RtlpxLookupFunctionTable"),
            }
        ),
    ),
}
_SEARCHED = (
    *(DispatchRole.DISPATCHER, DispatchRole.RAISER, DispatchRole.RUNTIME_RAISER, DispatchRole.SEARCHER),
    *(DispatchRole.RUNS_HANDLER, DispatchRole.SECOND_CHANCE),
)
IN_DISPATCH = frozenset(_SEARCHED) - {DispatchRole.RUNTIME_RAISER}
"""Roles of the functions that are on the stack only while an exception is being dispatched."""


DISPATCHERS_MODULE = "ntdll"
"""The module of the dispatcher."""


def functions_of(*roles: DispatchRole) -> frozenset[str]:
    """Return the names of the functions that have one of `roles`."""
    return frozenset().union(*(_FUNCTIONS[role][1] for role in roles))


def role_of(symbol: str) -> DispatchRole | None:
    """Return what the function `symbol` does in a dispatch, or None. Stdcall decoration (`_X@4`) is removed first."""
    stem, at, size = symbol.rpartition("@")
    plain = stem[1:] if at and size.isdigit() and stem.startswith("_") else symbol
    return _roles().get(plain)


@cache
def _roles() -> dict[str, DispatchRole]:
    return {symbol: role for role, (_, symbols) in _FUNCTIONS.items() for symbol in symbols}


@lru_cache(maxsize=1024)
def searched_in(module_label: str) -> tuple[str, ...]:
    """Return the functions of a module with this label for which the stack of every thread is searched.

    An address in one of these on a stack means that an exception is being dispatched, or was dispatched earlier.
    """
    label = module_label.lower()
    groups = (_FUNCTIONS[role] for role in _SEARCHED)
    return tuple(
        symbol
        for modules, symbols in groups
        if any(fnmatchcase(label, pattern) for pattern in modules)
        for symbol in sorted(symbols)
    )
