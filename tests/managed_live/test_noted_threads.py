# SPDX-License-Identifier: Apache-2.0
"""The notes of programs/wine_help.c, laid out as that does and read back."""

from __future__ import annotations

import struct

import pytest

from tests.managed_live.noted_threads import MAGIC, NotesError, read_notes


def notes(count: int) -> bytes:
    name = "decoy waits".encode("utf-16-le").ljust(64, b"\0")
    stack = "   at N.T.Wait()\r\n   at N.T.Start()".encode("utf-16-le").ljust(4000, b"\0")
    return MAGIC + struct.pack("<II", count, 0) + (struct.pack("<I", 0x1D4) + name + stack) * 12


def test_a_noted_thread_has_its_name_and_its_stack():
    memory = notes(1)

    (thread,) = read_notes(lambda address, size: memory[address - 0x1000 :][:size], 0x1000)

    assert (thread.tid, thread.name) == (0x1D4, "decoy waits")
    assert [frame.method for frame in thread.frames] == ["N.T.Wait", "N.T.Start"]


@pytest.mark.parametrize("memory", [bytes(60000), notes(13)])
def test_what_are_no_notes_is_refused(memory: bytes):
    with pytest.raises(NotesError):
        read_notes(lambda _, size: memory[:size], 0x1000)
