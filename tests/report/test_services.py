# SPDX-License-Identifier: Apache-2.0
"""Command lines that name a service, as svchost's do since Windows 10 1703, and such as name none."""

from __future__ import annotations

import time

import pytest

from throwstack.report.services import service_named_by


@pytest.mark.parametrize(
    ("command_line", "service"),
    [
        (r"C:\Windows\system32\svchost.exe -k netsvcs -p -s Schedule", "Schedule"),
        (r'"C:\Windows\System32\svchost.exe" -k LocalService -s "W32Time"', "W32Time"),
        ("svchost.exe -k UnistackSvcGroup -s CDPUserSvc_3f2a1", "CDPUserSvc_3f2a1"),
        (r"C:\WINDOWS\system32\svchost.exe -k netsvcs", ""),
        (r"C:\Windows\system32\WerFault.exe -u -p 2564 -s 388", ""),
        (r"C:\tools\notsvchost.exe -s Fake", ""),
        (f"svchost.exe -k x -s {'a' * 300}", ""),
        ("", ""),
    ],
)
def test_the_service_that_a_command_line_names(command_line: str, service: str):
    assert service_named_by("svchost.exe", command_line) == service


@pytest.mark.parametrize(
    ("image", "command_line"),
    [
        ("notepad.exe", r"notepad.exe C:\svchost -s Schedule"),
        ("svchost.exe", r"other.exe svchost.exe -s Schedule"),
        ("miner.exe", r"C:\Windows\system32\svchost.exe -k netsvcs -s Schedule"),
    ],
)
def test_another_program_names_no_service(image: str, command_line: str):
    """Its user writes what is on its command line; a process can even overwrite its own."""
    assert service_named_by(image, command_line) == ""


def test_a_command_line_made_to_take_long_takes_a_moment():
    """The first word alone can be svchost. A search from each of 4,000 such words took seconds."""
    line = "svchost " * 4000
    began = time.process_time()
    for _ in range(20):
        assert service_named_by("svchost.exe", line + "-s" + " " * 500 + '""') == ""
    assert time.process_time() - began < 1
