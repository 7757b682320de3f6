# SPDX-License-Identifier: Apache-2.0
"""Where a thread waits: the kernel's frames, then those of user mode, as far as the stack that threw."""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End
from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.frame_report import FrameReport, Variable, WalkReport
from throwstack.report.stack_parts import StackPartReport, ThreadWait
from throwstack.report.text.wait_lines import wait_lines
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict, VerdictCode

KERNEL = 0xFFFFF803_00000000
WAIT = ThreadWait("UserRequest", "UserMode", alertable=False, ticks=2, seconds=0.03125, objects=("8a002aa0 Mutant",))


def frames(names: str, base: int = 0x401000) -> tuple[FrameReport, ...]:
    """Return a frame for each letter; equal letters are at equal places."""
    return tuple(
        FrameReport(number, Hexadecimal(base + ord(name)), Hexadecimal(ord(name) * 16), f"app!{name}", "cfi")
        for number, name in enumerate(names)
    )


def crash(throwing: str, blocked: str, kernel: str = "", arch: str = "x64") -> CrashReport:
    in_kernel = StackPartReport(Side.KERNEL, frames(kernel, KERNEL)) if kernel else None
    return CrashReport(
        ProcessSummary(4, "app.exe"),
        8,
        Side.NATIVE,
        arch,
        CrashVerdict(VerdictCode.CRASHED, "crashed"),
        throwing=WalkReport(frames(throwing), End.THREAD_START) if throwing else None,
        blocked=WalkReport(frames(blocked), End.THREAD_START),
        wait=WAIT,
        kernel_stack=in_kernel,
    )


def shown(report: CrashReport) -> list[str]:
    """Return the numbers and letters of the frames that are shown."""
    lines = (line.text.split() for line in wait_lines(report))
    return [f"{words[0]}{words[-1][-1]}" for words in lines if words and "app!" in words[-1]]


def test_the_stack_that_threw_is_not_told_twice():
    report = crash(throwing="xyz", blocked="abcxyz", kernel="kl")
    assert shown(report) == ["00k", "01l", "02a", "03b", "04c"]
    assert [line.text for line in wait_lines(report)][-1] == "  From frame 05 on it is the stack that threw, above."


def test_a_blocked_stack_that_goes_another_way_is_told_whole():
    assert shown(crash(throwing="xyq", blocked="abcxyz")) == ["00a", "01b", "02c", "03x", "04y", "05z"]
    assert shown(crash(throwing="", blocked="abc")) == ["00a", "01b", "02c"]


def test_32bit_code_on_64bit_windows_has_columns_of_its_own():
    lines = [line.text for line in wait_lines(crash(throwing="", blocked="ab", kernel="k", arch="wow64"))]
    assert [line.split()[1] for line in lines if " # " in line] == ["Child-SP", "ChildEBP"]


def test_the_wait_and_its_objects():
    lines = [line.text for line in wait_lines(crash(throwing="", blocked="a"))]
    assert "  WAIT: UserRequest UserMode Non-Alertable, for 2 ticks (0.031 s)" in lines
    assert "      8a002aa0 Mutant" in lines


def test_values_are_told_where_no_other_stack_tells_them():
    """A thread that hangs in shutdown threw nothing: its one stack is that on which it waits."""
    report = crash(throwing="", blocked="ab")
    assert report.blocked is not None
    told = replace(report.blocked.frames[0], signature="void f(int code)", parameters=(Variable("code", text="3"),))
    hang = replace(report, blocked=replace(report.blocked, frames=(told, report.blocked.frames[1])))
    assert any("void f(int code = 3)" in line.text for line in wait_lines(hang))
    threw = replace(hang, throwing=WalkReport(frames("x"), End.THREAD_START))
    assert not any("code = 3" in line.text for line in wait_lines(threw))
