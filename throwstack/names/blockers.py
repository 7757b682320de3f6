# SPDX-License-Identifier: Apache-2.0
"""Functions that a thread is stuck in after its exception went unhandled, or while its process cannot end.

The functions are data, one line each, in data/blockers.tsv; this module reads the table and puts a walked stack's
blockers into words. To teach throwstack a blocker, add a line there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files


class BlockerKind(Enum):
    """What a blocking function does. The order is that in which they explain a stuck thread, best first."""

    UNHANDLED_FILTER = "unhandled-filter"
    """Runs when no handler took an exception: its presence alone proves one."""
    CLR_WATSON = "clr-watson"
    """The CLR's own handling of an unhandled exception."""
    GS_FAILURE = "gs-failure"
    """A stack cookie was found overwritten; the context is saved in globals of the module."""
    FAIL_FAST = "fail-fast"
    WER = "wer"
    """Waits for Windows Error Reporting, or reports to it."""
    JIT_DEBUGGER = "jit-debugger"
    """Waits for the debugger named under AeDebug, or is stopped in it."""
    PURE_CALL = "purecall"
    INVALID_PARAMETER = "invalid-parameter"
    TERMINATE = "terminate"
    """C++ terminate: an exception left where none may, or found no handler."""
    ABORT = "abort"
    HARD_ERROR = "hard-error"
    """A message that csrss shows on behalf of the process."""
    ERROR_BOX = "error-box"
    """A message box of the C runtime or of an assertion."""
    SHUTDOWN = "shutdown"
    """The process is ending, and waits for something that does not come."""
    TERMINATION = "termination"
    """The process is being ended without more ado, and the kernel waits for something that does not come."""


_ORDER = {kind: index for index, kind in enumerate(BlockerKind)}


@dataclass(frozen=True, slots=True)
class Blocker:
    """A blocking function: the modules that have it (patterns for a lower-case label), its name, and why it blocks.

    `proves_exception`: the function runs only when an exception went unhandled. `is_triage`: worth a search on every
    thread's stack; the others are only named where a walked stack has them.
    """

    modules: tuple[str, ...]
    symbol: str
    kind: BlockerKind
    proves_exception: bool
    is_triage: bool
    why: str

    def is_in(self, module_label: str) -> bool:
        """Say whether a module with this label (`KERNEL32`) can hold the function."""
        label = module_label.lower()
        return any(fnmatchcase(label, pattern) for pattern in self.modules)


@cache
def blockers() -> tuple[Blocker, ...]:
    """Return the table."""
    lines = (files("throwstack.names") / "data" / "blockers.tsv").read_text("utf-8").splitlines()
    return tuple(_parse(line) for line in lines if line and not line.startswith("#"))


def _parse(line: str) -> Blocker:
    kind, symbol, modules, marks, why = line.split("\t")
    return Blocker(tuple(modules.split()), symbol, BlockerKind(kind), "proof" in marks, "triage" in marks, why)


@cache
def triage_blockers() -> tuple[Blocker, ...]:
    """Return the functions to look for on every thread's stack."""
    return tuple(blocker for blocker in blockers() if blocker.is_triage)


@lru_cache(maxsize=1024)
def triage_blockers_in(module_label: str) -> tuple[Blocker, ...]:
    """Return those of them that a module with this label can hold."""
    return tuple(blocker for blocker in triage_blockers() if blocker.is_in(module_label))


@cache
def _by_symbol() -> dict[str, tuple[Blocker, ...]]:
    found: dict[str, tuple[Blocker, ...]] = {}
    for blocker in blockers():
        found[blocker.symbol] = (*found.get(blocker.symbol, ()), blocker)
    return found


def blocker_named(module_label: str, symbol: str) -> Blocker | None:
    """Return the blocker that `symbol` of the module `module_label` is, or None.

    Decoration is seen through: `_UnhandledExceptionFilter@4` is `UnhandledExceptionFilter`.
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
    """Return which of a walked stack's (module label, symbol) pairs, innermost first, say what the thread is stuck in.

    One for each kind of blocker, the innermost of its kind (`mscorwks!CorExitProcess`, to which
    `mscoree!CorExitProcess` only leads). First comes the one that explains the block best, then the others,
    outermost first: `KERNEL32!UnhandledExceptionFilter, MSVCR71!abort, mscorwks!CorExitProcess`.
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
