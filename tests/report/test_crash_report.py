# SPDX-License-Identifier: Apache-2.0
"""How a report names the functions that a thread is stuck in."""

from __future__ import annotations

import pytest

from throwstack.report.crash_report import BlockerReport


@pytest.mark.parametrize(
    ("module", "function", "name"),
    [
        ("KERNELBASE", "UnhandledExceptionFilter", "KERNELBASE!UnhandledExceptionFilter"),
        ("svchost", "+0x1888", "svchost+0x1888"),
        ("", "0x1f0040", "0x1f0040"),
    ],
)
def test_a_function_without_a_name_is_named_as_in_a_signature(module: str, function: str, name: str):
    assert BlockerReport(module, function).name == name
