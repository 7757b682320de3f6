# SPDX-License-Identifier: Apache-2.0
"""Processes and threads that a user asked for."""

from __future__ import annotations

import pytest

from throwstack.volatility.asked_for import AskedFor


@pytest.mark.parametrize(
    ("given", "kept", "is_it"),
    [
        ("iftpsvc", "iftpsvc.exe", True),
        ("IFTPSVC.EXE", "iftpsvc.exe", True),
        ("iftp", "iftpsvc.exe", False),
        ("daemon", "daemon", True),  # a process whose image has no extension
        ("daemon.exe", "daemon", False),
        ("longservice", "longservice.ex", True),  # the kernel keeps 14 characters
        ("averylongservicename", "averylongservi", True),
        ("averylongservicename.exe", "averylongservi", True),
    ],
)
def test_names_with_and_without_exe(given: str, kept: str, is_it: bool):
    assert AskedFor((), (), (given,)).process(4, kept) is is_it


def test_what_is_absent_is_named_once():
    asked = AskedFor((4, 8), (16,), ("app", "gone.exe"))
    assert asked.process(4, "app.exe")
    assert not asked.process(12, "app.exe")
    assert [(pid, text.partition(":")[0]) for pid, text in asked.absent_processes()] == [
        (8, "there is no process with PID 8"),
        (None, "there is no process called gone.exe"),
    ]
    assert [tid for tid, _ in asked.absent_threads({20, 24})] == [16]


def test_only_a_thread_without_a_doubt_is_said_not_to_be_stuck():
    asked = AskedFor((), (16, 20, 24), ())
    asked.may_be_stuck([20])
    (text,) = asked.not_stuck({16, 20})
    assert text == "thread 16 is not stuck on an exception: windows.stackwalk --tid 16 shows where it is"
