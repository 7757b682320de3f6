# SPDX-License-Identifier: Apache-2.0
"""The signature of a crash: a short text that is the same whenever the same code fails in the same way.

The rules are like those of Mozilla's crash reports. `throwstack.stuck.frame_roles` says what each function of the stack
does in a failure. A signature begins at the outermost function that is called for a failure only. Functions that report
or carry the failure, or begin a thread, are left out. Of the rest, the innermost is in the signature; if a fault in it
is mostly its caller's, so is the next one out.

The stack of a thread that waits without an exception has a signature, too: there the functions that wait are left out,
and those that end the process.

A signature has nothing that differs between two machines or two builds: no addresses, lines, argument lists, template
arguments, numbers of lambdas. Module names are in lower case, because the loader keeps the spelling of the first one
that asked for the DLL.

A frame without a symbol is named by its module and its offset in it, `app+0x1a2f`: without the offset, two faults in
one module would look the same. So is a frame whose symbol is merely the nearest one before it. Such a signature holds
for one build of the module, and a crash has one signature with a PDB and another without.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from throwstack.core.exception_record import STACK_BUFFER_OVERRUN, ExceptionRecord
from throwstack.core.text import escape
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.names.stable_names import plain_name
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.frame_roles import Role, roles_of

MAX_PARTS = 8
"""The largest number of functions in a signature."""
MAX_LENGTH = 255
HASHED_FRAMES = 5
_MAX_EXPORT_OFFSET = 0x1000
_SEPARATOR = " | "
_LEFT_OUT = frozenset({Role.CARRIES, Role.REPORTS, Role.STARTS})
_IS_MACHINERY = _LEFT_OUT | {Role.HANDLES}
_NOT_THE_CALLER = _IS_MACHINERY | {Role.BEGINS, Role.WAITS}
_DISPATCHERS = frozenset(
    {
        *("KiUserExceptionDispatch", "KiUserExceptionDispatcher"),
        *("RtlRaiseException", "RtlRaiseStatus", "RtlDispatchException", "RaiseException"),
    }
)
_RAISES = frozenset({"RaiseException", "RtlRaiseException", "RtlRaiseStatus"})
_THROWS = frozenset({"_CxxThrowException", "CxxThrowException", "__cxa_throw"})
"""What the compiler calls for a C++ `throw`."""
_FAILURES = (BlockerKind.PURE_CALL, BlockerKind.INVALID_PARAMETER, BlockerKind.TERMINATE, BlockerKind.ABORT)
"""The failures that a C runtime reports, in the order in which they explain a thread (`BlockerKind`)."""
_CRT_FAST_FAILS = frozenset({5, 7})
"""FAST_FAIL_INVALID_ARG and FAST_FAIL_FATAL_APP_EXIT (winnt.h)."""
_CRT_REPORTS = frozenset({0x40000015, 0xC0000417})
"""STATUS_FATAL_APP_EXIT and STATUS_INVALID_CRUNTIME_PARAMETER (ntstatus.h)."""
_SYSTEM_CALL = re.compile(r"^Zw(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of the stack as the rules see it.

    As text it is `module!name`; `module+0x1a2f` if no name is trusted; `unknown` if the address is in no module.
    """

    module: str
    name: str
    offset: int = 0
    roles: frozenset[Role] = frozenset()

    def __str__(self) -> str:
        if not self.module:
            return "unknown"
        return f"{self.module}!{self.name}" if self.name else f"{self.module}+{self.offset:#x}"

    @property
    def is_left_out(self) -> bool:
        return bool(self.roles & _LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a crash.

    `text` has the functions that name the crash, innermost first. `digest` is a hash over these and a few frames
    further out.
    """

    text: str
    digest: str

    def __str__(self) -> str:
        """Return `ftpsrvdata_pg!PrintProviderError (3f2a9c01)`."""
        return f"{self.text} ({self.digest})"


def signature(names: Sequence[Name], kind: str = "") -> Signature:
    """Make the signature of a stack that threw.

    Args:
        names: the frames of the stack that threw, innermost first.
        kind: what was thrown (`ACCESS_VIOLATION`, `_com_error`). It goes into the hash, so that two kinds of failure in
            one function differ. Give nothing that varies, such as an address or a message.
    """
    functions = list(map(_function, names))
    return _signed(_throwing(functions) or _program_starts(functions), kind)


def waiting_signature(names: Sequence[Name], kind: str = "") -> Signature:
    """Make the signature of a stack on which a thread waits, and on which no exception was found.

    Args:
        names: the frames of the stack, innermost first.
        kind: why the thread is stuck (`purecall`). It goes into the hash.
    """
    functions = list(map(_function, names))
    return _signed(_waiting(functions) or _program_starts(functions) or _throwing(functions), kind)


def kind_of_failure(record: ExceptionRecord, names: Sequence[Name]) -> str:
    """Return the failure that `record` was raised for, such as `purecall`, or "" if it was raised for itself.

    A pure call, an invalid parameter, terminate and abort end in an exception or not, by the version of the C runtime
    and by what the program has set (`_set_purecall_handler`). Both must have one signature, so the kind of the failure
    is that of the functions which report it. `names` are the frames of the stack that threw, innermost first.
    """
    is_fast_fail = record.code == STACK_BUFFER_OVERRUN and bool(_CRT_FAST_FAILS & {*record.parameters[:1]})
    if not is_fast_fail and record.code not in _CRT_REPORTS:
        return ""
    kinds = set()
    for name in names:
        symbol = plain_name(name.symbol)
        if symbol in _DISPATCHERS - {"RaiseException", "RtlRaiseException"}:
            break
        blocker = None if name.is_doubtful else blocker_named(name.module, symbol)
        kinds |= set() if blocker is None else {blocker.kind}
    return next((kind.value for kind in _FAILURES if kind in kinds), "")


def is_machinery(name: str) -> bool:
    """Say whether the function `name` only carries an exception to the dispatcher, as RaiseException does.

    `name` is a bare symbol or a whole label such as `KERNELBASE!RaiseException+0x53`.
    """
    module, mark, symbol = name.rpartition("!")
    bare = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    return Role.CARRIES in roles_of(module.lower() if mark else "", plain_name(bare))


def is_raised_by_call(names: Sequence[Name]) -> bool:
    """Say whether the stack `names`, innermost first, begins in a function that raises an exception when it is called.

    Such an exception may have the code of a fault. Example: Visual Basic raises 0xC000008F, which is that of an inexact
    result of floating-point numbers, for each of its run-time errors.
    """
    return bool(names) and not names[0].is_doubtful and plain_name(names[0].symbol) in _RAISES


def thrown_at(names: Sequence[Name], *, is_raised: bool = False) -> Name | None:
    """Return the innermost of `names` that is not exception machinery: the function in which the program threw.

    `is_raised` says that the exception is no fault of the processor. Functions that only report a failure and raised it
    for their caller, such as `abort`, are then left out, too. A function with a C++ `throw` is not. Example: the result
    for `RaiseException < _CxxThrowException < _com_raise_error < main` is `_com_raise_error`. The result is None if all
    are machinery.
    """
    first = next((index for index, name in enumerate(names) if not is_machinery(name.symbol)), None)
    if first is None:
        return None
    has_throw = first > 0 and plain_name(names[first - 1].symbol) in _THROWS
    return names[first if has_throw or not is_raised else _caller_of_reporters(names, first)]


def _caller_of_reporters(names: Sequence[Name], first: int) -> int:
    """Return the index of the first frame, from `first` outwards, that does not only report a failure.

    It is `first` if the dispatch of an earlier exception called the reporters.
    """
    for index in range(first, len(names)):
        function = _function(names[index])
        if function.roles & {Role.HANDLES, Role.STARTS} or function.name in _DISPATCHERS:
            break
        if not function.roles & {Role.CARRIES, Role.REPORTS}:
            return index
    return first


def waits_at(names: Sequence[Name]) -> Name | None:
    """Return the innermost of `names` that neither waits nor reports a failure, nor is called for failures only.

    `names` are the frames of a thread that waits without an exception. The result is None if there is no such frame.
    """
    functions = list(map(_function, names))
    further = range(_outermost(functions, _begins_waiting), len(names))
    callers = [index for index in further if not functions[index].roles & _NOT_THE_CALLER]
    callers += [index for index in further if _is_program_start(functions[index])]
    return names[callers[0]] if callers else None


def _signed(relevant: list[_Function], kind: str) -> Signature:
    ends = (index + 1 for index, item in enumerate(relevant) if item.module and Role.HELPS not in item.roles)
    parts = relevant[: min(next(ends, MAX_PARTS), MAX_PARTS)]
    hashed = "\n".join((kind, *map(str, relevant[:HASHED_FRAMES])))
    digest = hashlib.sha256(hashed.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return Signature(escape(_SEPARATOR.join(map(str, parts)), MAX_LENGTH) or "no relevant frames", digest)


def _throwing(functions: list[_Function]) -> list[_Function]:
    """Return the functions of which the signature of a throwing stack is made.

    If a handler or a destructor runs because of an earlier exception, only frames inside that exception's dispatch can
    be a report of the failure.
    """
    first = next((index for index, item in enumerate(functions) if Role.CARRIES not in item.roles), len(functions))
    further = range(first, len(functions))
    inside = next((index for index in further if functions[index].name in _DISPATCHERS), len(functions))
    start = _outermost(functions[:inside], lambda item: Role.BEGINS in item.roles)
    return _folded(_without_dispatch(item for item in functions[start:] if not item.is_left_out))


def _without_dispatch(functions: Iterable[_Function]) -> Iterator[_Function]:
    """Yield the functions without those that call handlers, as long as none of the program was yielded."""
    is_of_program = False
    for function in functions:
        if is_of_program or Role.HANDLES not in function.roles:
            is_of_program = is_of_program or Role.HELPS not in function.roles
            yield function


def _waiting(functions: list[_Function]) -> list[_Function]:
    """Return the functions of which the signature of a waiting stack is made.

    Example: `fopen` refuses an argument, and the program's handler of invalid parameters waits. What is further out
    than the report of such a failure of the C runtime is its callers, also functions that wait elsewhere.
    """
    start = _outermost(functions, _begins_waiting)
    begins = blocker_named(functions[start].module, functions[start].name) if functions else None
    has_callers = begins is not None and begins.kind in _FAILURES
    return _folded(
        item
        for item in functions[start:]
        if not item.roles & _IS_MACHINERY and (Role.WAITS not in item.roles or Role.BEGINS in item.roles or has_callers)
    )


def _program_starts(functions: list[_Function]) -> list[_Function]:
    """Return the functions with which the program begins: all that the stack shows if `main` is inlined into them."""
    return [item for item in functions if _is_program_start(item)]


def _is_program_start(function: _Function) -> bool:
    """Say whether a program begins with `function`, and not Windows or a C runtime."""
    return bool(function.module) and Role.STARTS in function.roles and Role.HELPS not in roles_of(function.module, "")


def _begins_waiting(function: _Function) -> bool:
    known = blocker_named(function.module, function.name)
    return Role.BEGINS in function.roles or (known is not None and known.proves_exception)


def _outermost(functions: list[_Function], is_wanted: Callable[[_Function], bool]) -> int:
    """Return the index of the outermost of `functions` that is wanted, or 0."""
    return next((index for index in reversed(range(len(functions))) if is_wanted(functions[index])), 0)


def _function(name: Name) -> _Function:
    """Return the function that `name` names.

    If the address may be in another function after the named one, the name is used only to recognize machinery.
    Example: on x86 a return address 0x55b after UnhandledExceptionFilter, which is a long function.
    """
    module, symbol = name.module.lower(), _SYSTEM_CALL.sub("Nt", plain_name(name.symbol))
    is_far = name.kind is SymbolKind.EXPORT and name.offset >= _MAX_EXPORT_OFFSET and not name.is_certain
    roles = roles_of(module, "" if is_far else symbol)
    if symbol and (is_far or (name.is_doubtful and not roles & _IS_MACHINERY)):
        return _Function(module, "", name.offset if name.rva is None else name.rva, roles_of(module, ""))
    return _Function(module, symbol, 0 if symbol else name.offset, roles)


def _folded(functions: Iterable[_Function]) -> list[_Function]:
    """Return the functions, with adjacent repetitions (recursion) folded into one.

    Adjacent functions of one system DLL that have no name are folded, too: with exports only, ntdll's report of a
    corrupt heap is seven of them, and there would be no room for the caller.
    """
    return [next(group) for _, group in groupby(functions, _fold_key)]


def _fold_key(function: _Function) -> _Function | str:
    is_nameless = bool(function.module) and not function.name and Role.HELPS in function.roles
    return function.module if is_nameless else function
