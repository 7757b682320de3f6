# SPDX-License-Identifier: Apache-2.0
"""One failure has one signature, however it ends: by a fast-fail, or in a handler of the program that waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stacks.outcomes import LaidOut
from tests.stacks.published import read_stack

CALLER = ("app!Parse", "app!main", "KERNEL32!BaseThreadInitThunk", "ntdll!RtlUserThreadStart")
WAITS = ("ntdll!NtWaitForSingleObject", "KERNELBASE!WaitForSingleObjectEx", "app!OnFailure")
REFUSED = ("ucrtbase!_invalid_parameter", "ucrtbase!_invalid_parameter_noinfo")
FAILURES = {
    "purecall": (("!int29 7", "ucrtbase!abort", "VCRUNTIME140!_purecall"), (*WAITS, "VCRUNTIME140!_purecall")),
    "terminate": (("!int29 7", "ucrtbase!abort", "ucrtbase!terminate"), (*WAITS, "ucrtbase!terminate")),
    "abort": (("!int29 7", "ucrtbase!abort"), (*WAITS, "ucrtbase!raise", "ucrtbase!abort")),
    "invalid parameter": (("!int29 5", "ucrtbase!_invoke_watson", *REFUSED), (*WAITS, *REFUSED)),
    "invalid parameter of a function of the C runtime": (
        ("!int29 5", "ucrtbase!_invoke_watson", *REFUSED, "ucrtbase!fopen"),
        (*WAITS, *REFUSED, "ucrtbase!fopen"),
    ),
}


def signature(lines: tuple[str, ...], folder: Path, mode: str = "all names") -> str:
    path = folder / "stack.txt"
    path.write_text("\n".join((*lines, *CALLER)), "utf-8")
    crash = LaidOut(read_stack(path)).outcome(mode).crash
    assert crash is not None
    return str(crash.signature)


@pytest.mark.parametrize(("fast", "waiting"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_that_ends_by_a_fast_fail_has_the_signature_of_one_that_waits(
    fast: tuple[str, ...], waiting: tuple[str, ...], tmp_path: Path
):
    assert signature(fast, tmp_path) == signature(waiting, tmp_path)


def test_failures_of_one_function_differ(tmp_path: Path):
    assert len({signature(fast, tmp_path) for fast, _ in FAILURES.values()}) == len(FAILURES)


def test_a_fast_fail_of_the_program_itself_is_no_abort(tmp_path: Path):
    assert signature(("!int29 7",), tmp_path) != signature(FAILURES["abort"][0], tmp_path)
