# SPDX-License-Identifier: Apache-2.0
"""Blockers: functions in which a thread is stuck after its exception went unhandled, or while its process cannot end.

They are data: one line each in data/blockers.tsv. To add a blocker, add a line there. This module reads the table,
finds the blockers of a walked stack, and says in words what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files

from throwstack.core.text import escape


class BlockerKind(Enum):
    """What a blocking function does. The kind that explains a stuck thread best comes first, and so on."""

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
    """Waits for the debugger that the registry key AeDebug names, or is stopped in it."""
    PURE_CALL = "purecall"
    INVALID_PARAMETER = "invalid-parameter"
    TERMINATE = "terminate"
    """C++ terminate: an exception left a noexcept function, or found no handler."""
    ABORT = "abort"
    HARD_ERROR = "hard-error"
    """A message that csrss shows for the process."""
    ERROR_BOX = "error-box"
    """A message box of the C runtime or of an assertion."""
    SHUTDOWN = "shutdown"
    """The process runs its exit code, and waits for something that does not happen."""
    TERMINATION = "termination"
    """TerminateProcess: the kernel ends the process, and waits for something that does not happen."""


_ORDER = {kind: index for index, kind in enumerate(BlockerKind)}


@dataclass(frozen=True, slots=True)
class Blocker:
    """A blocking function: the modules that have it (patterns for a lower-case label), its name and its kind.

    `proves_exception`: the function runs only when an exception went unhandled. `is_triage`: triage looks for it on the
    stack of each thread. The others are only named, if a walked stack has them.
    """

    modules: tuple[str, ...]
    symbol: str
    kind: BlockerKind
    proves_exception: bool
    is_triage: bool

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
    kind, symbol, modules, marks, _why = line.split("\t")
    return Blocker(tuple(modules.split()), symbol, BlockerKind(kind), "proof" in marks, "triage" in marks)


@cache
def triage_blockers() -> tuple[Blocker, ...]:
    """Return the blockers for which triage looks on the stack of each thread."""
    return tuple(blocker for blocker in blockers() if blocker.is_triage)


@lru_cache(maxsize=1024)
def triage_blockers_in(module_label: str) -> tuple[Blocker, ...]:
    """Return the blockers of triage that a module with this label can hold."""
    return tuple(blocker for blocker in triage_blockers() if blocker.is_in(module_label))


@cache
def _by_symbol() -> dict[str, tuple[Blocker, ...]]:
    found: dict[str, tuple[Blocker, ...]] = {}
    for blocker in blockers():
        found[blocker.symbol] = (*found.get(blocker.symbol, ()), blocker)
    return found


def blocker_named(module_label: str, symbol: str) -> Blocker | None:
    """Return the blocker that `symbol` of the module `module_label` is, or None.

    Decoration makes no difference: `_UnhandledExceptionFilter@4` is `UnhandledExceptionFilter`.
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
    """Return the blockers of a walked stack, as (module label, symbol) pairs.

    Args:
        names: the (module label, symbol) pairs of all frames, innermost first; the symbol of a frame may be "".

    Each kind of blocker is there once, with the innermost function of that kind: `mscorwks!CorExitProcess`, not
    `mscoree!CorExitProcess`, which only calls it. First comes the one that explains the wait best, then the others,
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


def verdict(kinds: Iterable[BlockerKind], has_exception: bool, box_text: str = "") -> str:
    """Return in a few words what the blockers of a thread mean.

    `has_exception`: a saved exception was found. `box_text` is the text of the error box, "" if it is not known.
    """
    found = set(kinds)
    crashed = has_exception or BlockerKind.UNHANDLED_FILTER in found or BlockerKind.CLR_WATSON in found
    parts = []
    if BlockerKind.SHUTDOWN in found:
        parts.append("crashed inside shutdown" if crashed else _shutdown_verdict(found))
    if found & {BlockerKind.ERROR_BOX, BlockerKind.HARD_ERROR}:
        parts += ["crashed"] if crashed and not parts else []
        parts.append(f'error box shown: "{escape(box_text)}"' if box_text else "error box shown")
    return ", ".join(parts) or (_crash_verdict(found) if crashed else _cause(found))


def _cause(found: set[BlockerKind]) -> str:
    return next((words for kind, words in _CAUSES.items() if kind in found), "")


def _shutdown_verdict(found: set[BlockerKind]) -> str:
    """Return the verdict on a thread that is stuck in shutdown without an exception, with the cause if there is one."""
    cause = _cause(found - {BlockerKind.TERMINATION})
    return f"{cause}, hangs in shutdown" if cause else "hangs in shutdown without an exception"


def _crash_verdict(found: set[BlockerKind]) -> str:
    return next((words for kind, words in _CRASHES.items() if kind in found), "crashed")


_CRASHES = {
    BlockerKind.JIT_DEBUGGER: "crashed and waiting for a debugger",
    BlockerKind.TERMINATION: "crashed and stuck in TerminateProcess",
    BlockerKind.WER: "crashed and waiting for WER",
    BlockerKind.CLR_WATSON: "crashed and waiting for WER",
    BlockerKind.FAIL_FAST: "failed fast",
    BlockerKind.TERMINATE: "crashed and stuck in terminate",
    BlockerKind.ABORT: "crashed and stuck in abort",
    BlockerKind.UNHANDLED_FILTER: "crashed and waiting in the unhandled exception filter",
}
"""What an exception together with one of these blockers means; the first that is there counts."""

_CAUSES = {
    BlockerKind.GS_FAILURE: "stack cookie overwritten",
    BlockerKind.FAIL_FAST: "failed fast",
    BlockerKind.PURE_CALL: "pure virtual function called",
    BlockerKind.INVALID_PARAMETER: "invalid parameter passed to the C runtime",
    BlockerKind.TERMINATE: "C++ terminate called",
    BlockerKind.ABORT: "abort called",
    BlockerKind.JIT_DEBUGGER: "waiting for a debugger",
    BlockerKind.WER: "waiting for WER",
    BlockerKind.TERMINATION: "stuck in TerminateProcess",
}
