# SPDX-License-Identifier: Apache-2.0
"""Command lines that name a service, as svchost's do since Windows 10 1703, and such as name none."""

from __future__ import annotations

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
    assert service_named_by(command_line) == service
