# SPDX-License-Identifier: Apache-2.0
"""Who a process is, in the text."""

from __future__ import annotations

import pytest

from throwstack.report.process_report import ProcessReport
from throwstack.report.text.process_lines import process_lines

IMAGE = r"\Device\HarddiskVolume3\Windows\System32\svchost.exe"


@pytest.mark.parametrize(
    ("command_line", "is_image_told"),
    [
        (r"C:\WINDOWS\system32\svchost.exe -k netsvcs", False),
        (r'"C:\Windows\System32\svchost.exe" -k netsvcs', False),
        (r"C:\Temp\svchost.exe -k netsvcs", True),
        (r"notepad.exe C:\Windows\System32\svchost.exe", True),
        ("svchost.exe", True),
    ],
)
def test_the_image_is_told_where_the_command_line_tells_another(command_line: str, is_image_told: bool):
    """A process can be started with any command line, and can overwrite its own."""
    lines = [line.text.strip() for line in process_lines(ProcessReport(4, "svchost.exe", IMAGE, command_line))]
    assert (f"image {IMAGE}" in lines) is is_image_told
