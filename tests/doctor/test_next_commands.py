# SPDX-License-Identifier: Apache-2.0
"""Commands that are advised, as they are typed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from throwstack.doctor.next_commands import NextCommands
from throwstack.files.at_hand import FilesAtHand

GIVEN = FilesAtHand([Path("isf"), Path("more isf")], "srv*c*https://s", "/img", [Path("page.sys")], is_offline=True)


@pytest.mark.skipif(os.name == "nt", reason="quoted for another shell there")
def test_all_options_are_repeated_in_the_words_of_each_command():
    commands = NextCommands("it's.dmp", GIVEN)
    assert shlex.split(commands.throwstack("doctor", "--page-file", "swap.sys")) == [
        *("throwstack", "doctor", "it's.dmp", "-s", "isf", "-s", "more isf", "--symbol-path", "srv*c*https://s"),
        *("--image-path", "/img", "--page-file", "page.sys", "--offline", "--page-file", "swap.sys"),
    ]
    assert shlex.split(commands.vol("windows.unhandled", "swap.sys")) == [
        *("vol", "--single-swap-locations", "page.sys", "swap.sys", "--offline", "-s", "isf;more isf"),
        *("-f", "it's.dmp", "windows.unhandled", "--symbol-path", "srv*c*https://s", "--image-path", "/img"),
    ]


def test_what_was_not_given_is_not_there():
    assert NextCommands("MEMORY.DMP", FilesAtHand()).vol("windows.unhandled") == "vol -f MEMORY.DMP windows.unhandled"
