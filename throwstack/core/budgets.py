# SPDX-License-Identifier: Apache-2.0
"""Limits on the work that is done for one thread and for one process. All such limits are defined here.

The contents of a dump decide how many modules, pages, words and frames there are to look at. A hostile dump can claim
many of them with a few bytes: one physical page that is mapped four thousand times is a stack of 16 MB. So each kind of
work has a limit, its budget, per thread and per process. A budget is a number of units of work, not of seconds, so that
the same dump always gives the same result. Real machines stay far below the budgets (they have stacks of 8 MB, and
processes of 1,500 modules and 10,000 threads). If a budget is spent all the same, the result says so. The remaining
threads of that process then still get a small part each, and other processes are not affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """The limits of one kind of work.

    `unit` names what is counted, for messages. `thread` is the most units that one thread may use, and `process` the
    most that all threads of a process may use together. Once `process` is used up, each further thread may still use
    `share` units, until `shares` units in total have been used in this way.
    """

    unit: str
    thread: int
    process: int
    share: int
    shares: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of the work on threads, and the most modules, VADs, files and threads of a process."""

    stack: Budget = Budget("bytes of stack looked at", 16 * _MIB, 512 * _MIB, 128 * _KIB, 8192 * _MIB)
    """Limits the first, cheap search of every thread. It reads the stack's used part (from the stack pointer on)."""
    suspects: Budget = Budget("words that lead into a blocking function", 1 << 16, 1 << 20, 1 << 10, 1 << 20)
    """They are examined if the walk ended early. Words of a page that is mapped many times count a few times only."""
    resumed: Budget = Budget("words of the stack walked from", 32, 512, 4, 512)
    probes: Budget = Budget("walks of stacks that have no word in a blocking function", 1, 1 << 10, 1, 1 << 10)
    """Limits how many stacks are walked only to see whether a return address was overwritten. A stack that has the
    return addresses of an earlier one is not walked again; real processes have some dozens of different ones."""
    frames: Budget = Budget("frames walked", 1 << 13, 1 << 17, 1 << 9, 1 << 17)
    """Limits all walks that look for an exception together; a single walk keeps some 1,024 frames."""
    recursion: Budget = Budget("frames of deep recursion walked", 1 << 17, 1 << 18, 1 << 8, 1 << 16)
    """Limits the frames that walks pass without keeping them. A stack of 1 MB that overflows has 5,000 to 20,000."""
    code: Budget = Budget("instructions followed", 1 << 19, 1 << 23, 1 << 16, 1 << 23)
    """Limits the decoding by walks of x86 stacks; a real walk needs 20,000. Code decoded for another thread is free."""
    checks: Budget = Budget("places looked at for a saved CONTEXT", 1 << 16, 1 << 19, 1 << 12, 1 << 19)
    searched: Budget = Budget("bytes searched for a saved CONTEXT", 256 * _MIB, 2048 * _MIB, 4 * _MIB, 2048 * _MIB)
    pointers: Budget = Budget("words that point into the stack", 1 << 20, 1 << 23, 1 << 14, 1 << 23)
    starts: Budget = Budget("places in code looked at for function starts", 1 << 23, 1 << 25, 1 << 16, 1 << 23)
    """Limits the search of x86 images that have exports only. A 64 MB section has some 2 million calls and pointers."""
    managed: Budget = Budget("places of a .NET runtime's memory looked at", 1 << 16, 1 << 19, 1 << 11, 1 << 19)
    """Limits the search for structures of the runtime. The first exception of a process takes some 2,000 places."""
    modules: int = 4096
    """Most modules of one side of a process (native or WoW64 code), from the loader's list and the VADs together."""
    vads: int = 1 << 16
    """Most nodes of a process's VAD tree."""
    views: int = 8192
    """Most mapped files of a process whose names are read from its VADs."""
    threads: int = 1 << 16
    """Most threads of a process."""


BUDGETS: Final = Budgets()


class Meter:
    """Counts the work on the threads of one process and knows which budgets are spent."""

    __slots__ = ("_budgets", "_of_process", "_of_thread", "_spent")

    def __init__(self, budgets: Budgets = BUDGETS) -> None:
        """`budgets` are the limits on the work."""
        self._budgets = budgets
        self._of_process: dict[Budget, int] = {}
        self._of_thread: dict[Budget, int] = {}
        self._spent: dict[str, None] = {}

    @property
    def budgets(self) -> Budgets:
        """Return the budgets that limit the work."""
        return self._budgets

    def begin_thread(self) -> None:
        """Begin to count for the next thread. Its own figures start at zero; the figures of the process go on."""
        self._of_thread.clear()
        self._spent.clear()

    def left(self, budget: Budget) -> int:
        """Return how many units of `budget` the current thread may still spend."""
        used, used_by_all = self._of_thread.get(budget, 0), self._of_process.get(budget, 0)
        of_process = budget.process - used_by_all
        share = min(budget.share - used, of_process + budget.shares)
        return max(min(budget.thread - used, max(of_process, share)), 0)

    def take(self, budget: Budget, amount: int = 1) -> int:
        """Use up to `amount` units of `budget`. Return how many were granted, fewer than `amount` if it is spent."""
        granted = min(amount, self.left(budget))
        self._of_thread[budget] = self._of_thread.get(budget, 0) + granted
        self._of_process[budget] = self._of_process.get(budget, 0) + granted
        if granted < amount:
            self.refuse(budget)
        return granted

    def refuse(self, budget: Budget) -> None:
        """Note that `budget` was not enough for the current thread."""
        is_of_thread = self._of_thread.get(budget, 0) >= budget.thread
        figure, whose = (budget.thread, "a thread") if is_of_thread else (budget.process, "a process's threads")
        self.say(f"the budget of {figure:,} {budget.unit} for {whose} is spent")

    def say(self, reason: str) -> None:
        """Note another `reason` why the current thread was not examined in full."""
        self._spent[reason] = None

    @property
    def spent(self) -> tuple[str, ...]:
        """Return a sentence for each reason why the current thread was not examined in full, mostly spent budgets."""
        return tuple(self._spent)
