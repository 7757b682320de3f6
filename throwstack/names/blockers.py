# SPDX-License-Identifier: Apache-2.0
"""Blockers are functions that a thread is stuck in after an unhandled exception, or while its process cannot end.

The functions are listed in data/blockers.tsv, one in each line. This module reads the table and finds the blockers
among the functions of a walked stack. To add a blocker, add a line to the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files


class BlockerKind(Enum):
    """What a blocking function does. Kinds that explain a stuck thread better come first."""

    UNHANDLED_FILTER = "unhandled-filter"
    """The function runs only when no handler took an exception, so a stack with it proves an unhandled exception."""
    CLR_WATSON = "clr-watson"
    """The function is the CLR's own handling of an unhandled exception."""
    GS_FAILURE = "gs-failure"
    """The function runs if a stack cookie was overwritten. It saves the CONTEXT in global variables of the module."""
    FAIL_FAST = "fail-fast"
    WER = "wer"
    """The function reports to Windows Error Reporting, or waits for it."""
    JIT_DEBUGGER = "jit-debugger"
    """The function waits for the debugger in the registry's AeDebug key, or is stopped in it."""
    PURE_CALL = "purecall"
    INVALID_PARAMETER = "invalid-parameter"
    TERMINATE = "terminate"
    """C++ terminate: an exception had no handler, or left a function that must not throw."""
    ABORT = "abort"
    HARD_ERROR = "hard-error"
    """The function waits for a message that csrss shows for the process."""
    ERROR_BOX = "error-box"
    """The function shows a message box of the C runtime or of an assertion."""
    MESSAGE_BOX = "message-box"
    """The function shows a message box, which counts if it is one of a failure (`throwstack.stuck.error_box`)."""
    SHUTDOWN = "shutdown"
    """The process is ending in the ordinary way, and waits for something that does not happen."""
    TERMINATION = "termination"
    """The process is being killed (TerminateProcess), and the kernel waits for something that does not happen."""


_ORDER = {kind: index for index, kind in enumerate(BlockerKind)}


@dataclass(frozen=True, slots=True)
class Blocker:
    """A blocking function.

    `modules` are patterns for the lower-case labels of the modules that can have the function. `symbol` is its name.
    `proves_exception`: the function runs only when an exception went unhandled. `is_triage`: the stack of every thread
    is searched for addresses in the function. Blockers without `is_triage` are only recognized in the frames of a walk.
    `needs_dispatch`: without the dispatch of an exception on the stack, the function reports something else than a
    failure of this thread, such as the hang of another one. `is_linked`: the function is of a C runtime, which may be
    linked into a program. Where a PDB of the program names it, it counts as one with `is_triage`.
    """

    modules: tuple[str, ...]
    symbol: str
    kind: BlockerKind
    proves_exception: bool
    is_triage: bool
    needs_dispatch: bool = False
    is_linked: bool = False

    def is_in(self, module_label: str) -> bool:
        """Say whether a module with this label (`KERNEL32`) can have the function."""
        label = module_label.lower()
        return any(fnmatchcase(label, pattern) for pattern in self.modules)


@cache
def blockers() -> tuple[Blocker, ...]:
    """Return all blocking functions in the table, in the order of its lines."""
    lines = (files("throwstack.names") / "data" / "blockers.tsv").read_text("utf-8").splitlines()
    return tuple(_parse(line) for line in lines if line and not line.startswith("#"))


def _parse(line: str) -> Blocker:
    kind, symbol, modules, marks, _why = line.split("\t")
    return Blocker(
        tuple(modules.split()),
        symbol,
        BlockerKind(kind),
        *("proof" in marks, "triage" in marks, "dispatch" in marks, "linked" in marks),
    )


@cache
def triage_blockers() -> tuple[Blocker, ...]:
    """Return the blocking functions for which the stack of every thread is searched."""
    return tuple(blocker for blocker in blockers() if blocker.is_triage)


@cache
def linked_blockers() -> tuple[Blocker, ...]:
    """Return the functions of a C runtime that is linked into a program for which stacks are searched."""
    return tuple(blocker for blocker in blockers() if blocker.is_linked)


@lru_cache(maxsize=1024)
def triage_blockers_in(module_label: str) -> tuple[Blocker, ...]:
    """Return the functions among `triage_blockers` that a module with this label can have."""
    return tuple(blocker for blocker in triage_blockers() if blocker.is_in(module_label))


@cache
def _labels() -> frozenset[str]:
    return frozenset(label for blocker in triage_blockers() for label in blocker.modules if label.isalnum())


@lru_cache(maxsize=4096)
def labels_like(module_label: str) -> tuple[str, ...]:
    """Return the modules of triage's functions whose labels differ from `module_label` in one character.

    The result is in lower case, and empty if `module_label` is itself such a label.
    """
    label = module_label.lower()
    if label in _labels():
        return ()
    like = (known for known in _labels() if len(known) == len(label))
    return tuple(sorted(known for known in like if sum(map(str.__ne__, known, label)) == 1))


@cache
def _by_symbol() -> dict[str, tuple[Blocker, ...]]:
    found: dict[str, tuple[Blocker, ...]] = {}
    for blocker in blockers():
        found[blocker.symbol] = (*found.get(blocker.symbol, ()), blocker)
    return found


def blocker_named(module_label: str, symbol: str) -> Blocker | None:
    """Return the blocker with the name `symbol` in the module `module_label`, or None.

    Stdcall decoration is removed first: `_UnhandledExceptionFilter@4` is `UnhandledExceptionFilter`.
    """
    for name in _plain_names(symbol):
        for blocker in _by_symbol().get(name, ()):
            if blocker.is_in(module_label):
                return blocker
    return None


def _plain_names(symbol: str) -> tuple[str, ...]:
    stem, at, size = symbol.rpartition("@")
    if at and size.isdigit() and stem.startswith(("_", "@")):
        return symbol, stem[1:]
    return (symbol,)


def blocked_in(names: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the blockers among `names`, the best explanation of why the thread is stuck first.

    `names` are the (module label, symbol) pairs of a walked stack, innermost first. The result has one pair for each
    kind of blocker, which is the innermost of this kind. For example, it has `mscorwks!CorExitProcess` and not
    `mscoree!CorExitProcess`, which only calls it. After the first pair come the others, outermost first:
    `KERNEL32!UnhandledExceptionFilter, MSVCR71!abort, mscorwks!CorExitProcess`.
    """
    innermost: dict[BlockerKind, int] = {}
    for depth, (module, symbol) in enumerate(names):
        blocker = blocker_named(module, symbol)
        if blocker is not None:
            innermost.setdefault(blocker.kind, depth)
    if not innermost:
        return ()
    best = min(innermost, key=_ORDER.__getitem__)
    others = sorted((depth for kind, depth in innermost.items() if kind is not best), reverse=True)
    return tuple(names[depth] for depth in (innermost[best], *others))
