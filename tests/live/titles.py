# SPDX-License-Identifier: Apache-2.0
"""What the plugins must say of each scenario in words: the exception, the verdict, a function that was inlined.

The expectation is what the program does (programs/crash.c, programs/throw.cpp), not what the plugin once said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.live.compare import INLINE, Row

_FILTER = "crashed and waiting in the unhandled exception filter"
_DISPATCHED = "an exception is being dispatched"
_READ = r"ACCESS_VIOLATION reading 0x[0-9a-f]+"
_WRITE = r"ACCESS_VIOLATION writing 0x[0-9a-f]+"
_EXECUTION = r"ACCESS_VIOLATION executing 0x[0-9a-f]+"
_CALL_OF_NULL = r"ACCESS_VIOLATION executing 0x0+"
_DIVISION = r"0xC0000094 STATUS_INTEGER_DIVIDE_BY_ZERO \(Integer division by zero\)"
_RAISED = r"0xE0001234 \(defined by the application\), parameters 0x1 0x[0-9a-f]+ 0x1234"

_CLASS = r"C\+\+ store::StoreProblem( \(GCC\))?"
_NUMBER = r"C\+\+ int 5"

EXPECTED: dict[str, tuple[frozenset[str], str]] = {
    "abort": (frozenset({_READ}), "crashed inside shutdown"),
    "both": (frozenset({_CLASS, _NUMBER}), _FILTER),
    "class": (frozenset({_CLASS}), _FILTER),
    "cold": (frozenset({_READ}), _FILTER),
    "deadlock": (frozenset(), ""),
    "divide": (frozenset({_DIVISION}), _FILTER),
    "execute": (frozenset({_EXECUTION}), _FILTER),
    "filter": (frozenset({_READ}), _FILTER),
    "garbage": (frozenset({r"ACCESS_VIOLATION executing 0x0*12345678"}), _FILTER),
    "generated": (frozenset({_READ, _WRITE, _EXECUTION, _DIVISION}), _FILTER),
    "hooked": (frozenset({_READ, _RAISED}), _FILTER),
    "leaf": (frozenset({_READ}), _FILTER),
    "null": (frozenset({_CALL_OF_NULL}), _FILTER),
    "number": (frozenset({_NUMBER}), _FILTER),
    "overflow": (frozenset({r"STACK_OVERFLOW writing 0x[0-9a-f]+"}), _FILTER),
    "probe": (frozenset({r"STACK_OVERFLOW writing 0x[0-9a-f]+"}), _FILTER),
    "raise": (frozenset({_RAISED}), _FILTER),
    "read": (frozenset({_READ}), _FILTER),
    "seh": (frozenset({_READ}), f"{_DISPATCHED}, and (an exception filter|the filter of \\S+) does not return"),
    "shapes": (frozenset({_READ, _WRITE, _CALL_OF_NULL, _DIVISION, _RAISED}), _FILTER),
    "shutdown": (frozenset(), "hangs in shutdown without an exception"),
    "strayed": (frozenset({_READ, _EXECUTION}), _FILTER),
    "switched": (frozenset({_READ}), _FILTER),
    "topfilter": (frozenset({_READ}), _FILTER),
    "values": (frozenset({_READ, _RAISED}), _FILTER),
    "vectored": (frozenset({_READ, _RAISED}), f"{_DISPATCHED}, and (a vectored handler|its handling) does not return"),
    "write": (frozenset({_WRITE}), _FILTER),
}
"""By scenario (the last part of a fixture's name): what its threads raised, each at least once, and the verdict. All
are regular expressions."""

INLINED = {"leaf": "value_at"}
"""By scenario: a function that the compiler inlines where the fault is (programs/faults.c)."""


def inline_problems(case: str, rows: Sequence[Row]) -> list[str]:
    """Return what is missing among the rows of `windows.cxrstack` with PDBs: the inlined function, innermost."""
    function = INLINED.get(case.rpartition("-")[2])
    if function is None:
        return []
    inner = [row for row in rows if row["Frame"] == 0]
    good = [row for row in inner if row["Trust"] == INLINE and row["Call Site"].endswith(f"!{function}")]
    return [] if inner and good == inner else [f"no inline frame of {function} where it faults"]


def problems(case: str, rows: Sequence[Row]) -> list[str]:
    """Return what the rows of `windows.unhandled` on a fixture say wrongly, or leave unsaid."""
    scenario = case.rpartition("-")[2]
    if scenario not in EXPECTED:
        return [f"no expectation for what {case} raises: add it to tests/live/titles.py"]
    titles, verdict = EXPECTED[scenario]
    said = [row["Exception"] or "" for row in rows]
    wrong = [text for text in said if not any(re.fullmatch(title, text) for title in titles or {""})]
    missing = [title for title in titles if not any(re.fullmatch(title, text) for text in said)]
    verdicts = sorted({row["Verdict"] for row in rows if not re.fullmatch(verdict, row["Verdict"])})
    return [
        *(f"exception called {text!r}" for text in wrong),
        *(f"no exception called {title}" for title in missing),
        *(f"verdict {text!r}" for text in verdicts),
    ]
