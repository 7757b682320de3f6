# SPDX-License-Identifier: Apache-2.0
"""How much work the examination of one process and of one thread may cost: every figure is here.

A dump decides how many modules, pages, words and frames there are to look at, and a hostile one says "many" for the
price of a few bytes: one physical page, mapped four thousand times, is a stack of 16 MB. So each kind of work has a
budget per thread and per process, counted in units of work and never in seconds, so that the same dump always gives
the same answer. No real machine comes near one (stacks of 8 MB, 1,500 modules and 10,000 threads in a process). Where
one is spent all the same, that is said with the answer; what comes after in the process still has a share of its own,
and other processes are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """How much of one kind of work there may be.

    `thread` is for one thread, `process` for all threads of a process together. `share` is what a thread may have even
    where those before it have spent what their process has, as long as all such shares come to no more than `shares`.
    `unit` says in words what is counted.
    """

    unit: str
    thread: int
    process: int
    share: int
    shares: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of work on threads, and the bounds on what one process is made of."""

    stack: Budget = Budget("bytes of stack looked at", 16 * _MIB, 512 * _MIB, 128 * _KIB, 8192 * _MIB)
    """Of the part in use, from the stack pointer outwards: the cheap question, which every thread has its share of."""
    suspects: Budget = Budget("words that lead into a blocking function", 1 << 16, 1 << 20, 1 << 10, 1 << 20)
    """Looked at where the walk ended early; those of pages that come again count a few times."""
    resumed: Budget = Budget("words of the stack walked from", 32, 512, 4, 512)
    frames: Budget = Budget("frames walked", 1 << 13, 1 << 17, 1 << 9, 1 << 17)
    """By the walks that look for an exception. One walk has at most 1,024 frames."""
    code: Budget = Budget("instructions followed", 1 << 19, 1 << 23, 1 << 16, 1 << 23)
    """On x86, where a walk decodes code; what was decoded for another thread costs nothing. A real walk: 20,000."""
    checks: Budget = Budget("places looked at for a saved CONTEXT", 1 << 16, 1 << 19, 1 << 12, 1 << 19)
    searched: Budget = Budget("bytes searched for a saved CONTEXT", 256 * _MIB, 2048 * _MIB, 4 * _MIB, 2048 * _MIB)
    pointers: Budget = Budget("words that point into the stack", 1 << 20, 1 << 23, 1 << 14, 1 << 23)
    starts: Budget = Budget("places in code looked at for function starts", 1 << 23, 1 << 25, 1 << 16, 1 << 23)
    """On x86, in images that have exports only. A section of 64 MB has some 2 million calls and pointers."""
    modules: int = 4096
    """Of one side of a process, from the loader's list and the VADs together."""
    vads: int = 1 << 16
    """Nodes of a process's VAD tree."""
    views: int = 8192
    """Files that a process maps, whose names are read from its VADs."""
    threads: int = 1 << 16
    """Of a process."""


BUDGETS: Final = Budgets()


class Meter:
    """Counts the work on one process, thread by thread, and says which budgets are spent."""

    __slots__ = ("_budgets", "_of_process", "_of_thread", "_spent")

    def __init__(self, budgets: Budgets = BUDGETS) -> None:
        """Count against `budgets`."""
        self._budgets = budgets
        self._of_process: dict[Budget, int] = {}
        self._of_thread: dict[Budget, int] = {}
        self._spent: dict[str, None] = {}

    @property
    def budgets(self) -> Budgets:
        """Return the budgets that are counted against."""
        return self._budgets

    def begin_thread(self) -> None:
        """Count for the next thread from here on."""
        self._of_thread.clear()
        self._spent.clear()

    def left(self, budget: Budget) -> int:
        """Return how much of `budget` the thread may still have."""
        used, used_by_all = self._of_thread.get(budget, 0), self._of_process.get(budget, 0)
        of_process = budget.process - used_by_all
        share = min(budget.share - used, of_process + budget.shares)
        return max(min(budget.thread - used, max(of_process, share)), 0)

    def take(self, budget: Budget, amount: int = 1) -> int:
        """Return how much of `amount` the thread may have, and count that; less than `amount`: the budget is spent."""
        granted = min(amount, self.left(budget))
        self._of_thread[budget] = self._of_thread.get(budget, 0) + granted
        self._of_process[budget] = self._of_process.get(budget, 0) + granted
        if granted < amount:
            self.refuse(budget)
        return granted

    def refuse(self, budget: Budget) -> None:
        """Note that the thread wanted more of `budget` than there is."""
        is_of_thread = self._of_thread.get(budget, 0) >= budget.thread
        figure, whose = (budget.thread, "a thread") if is_of_thread else (budget.process, "a process's threads")
        self.say(f"the budget of {figure:,} {budget.unit} for {whose} is spent")

    def say(self, reason: str) -> None:
        """Note another reason why not all there is on the thread was looked at."""
        self._spent[reason] = None

    @property
    def spent(self) -> tuple[str, ...]:
        """Return, for each budget that was less than the thread wanted, a sentence that says so."""
        return tuple(self._spent)
