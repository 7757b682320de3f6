# SPDX-License-Identifier: Apache-2.0
"""The order in which a person reads crashes: the worst first."""

from __future__ import annotations

from collections.abc import Iterable

from throwstack.report.crash_report import CrashReport
from throwstack.report.verdict import VerdictCode

_IN_DISPATCH = frozenset(
    {
        VerdictCode.VECTORED_HANDLER,
        VerdictCode.EXCEPTION_FILTER,
        VerdictCode.TERMINATION_HANDLER,
        VerdictCode.DISPATCHER_LOCK,
        VerdictCode.IN_DISPATCH,
    }
)
_HANGS = frozenset({VerdictCode.HANGS_IN_SHUTDOWN, VerdictCode.ERROR_BOX, VerdictCode.UNKNOWN})


def is_stuck(crash: CrashReport) -> bool:
    """Say whether the thread is stuck; it is not if a handler has taken its exception."""
    return crash.verdict.code is not VerdictCode.HANDLED


def worst_first(crashes: Iterable[CrashReport]) -> list[CrashReport]:
    """Return `crashes`: unhandled exceptions first, then failures without one, handlers that do not return, hangs.

    Exceptions that a handler has taken are last. Crashes of equal rank keep their order.
    """
    return sorted(crashes, key=_rank)


def _rank(crash: CrashReport) -> int:
    code = crash.verdict.code
    if code is VerdictCode.HANDLED:
        return 4
    if code in _IN_DISPATCH:
        return 2
    if code in _HANGS:
        return 3
    return 0 if crash.exceptions else 1
