# SPDX-License-Identifier: Apache-2.0
"""SIDs that mean the same account on every machine, and SIDs that do not."""

from __future__ import annotations

import pytest

from throwstack.report.accounts import account_name


@pytest.mark.parametrize(
    ("sid", "name"),
    [
        ("S-1-5-18", r"NT AUTHORITY\SYSTEM"),
        ("S-1-5-20", r"NT AUTHORITY\NETWORK SERVICE"),
        ("S-1-5-90-0-1", r"Window Manager\DWM-1"),
        ("S-1-5-96-0-2", r"Font Driver Host\UMFD-2"),
        ("S-1-5-21-1004336348-1177238915-682003330-500", "Administrator"),
        ("S-1-5-21-1004336348-1177238915-682003330-1001", ""),
        ("S-1-5-181", ""),
        ("S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464", ""),
        ("", ""),
    ],
)
def test_the_name_of_an_account(sid: str, name: str):
    assert account_name(sid) == name
