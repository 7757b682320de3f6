# SPDX-License-Identifier: Apache-2.0
"""Figures and names as lines of the text have them."""

from __future__ import annotations

import pytest

from throwstack.report.text.spelling import argument


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("MEMORY.DMP", "MEMORY.DMP"),
        ("web 01.dmp", '"web 01.dmp"'),
        ("a;reboot.dmp", '"a;reboot.dmp"'),
        ("$(id).dmp", "'$(id).dmp'"),
        ("it's.dmp", '"it\'s.dmp"'),
        ("it's $(id)`.dmp", "'it'\"'\"'s $(id)`.dmp'"),
        ("-x.dmp", "./-x.dmp"),
    ],
)
def test_the_name_of_a_dump_can_be_copied_into_a_command(name: str, typed: str):
    assert argument(name) == typed
