# SPDX-License-Identifier: Apache-2.0
"""A stream that is read from front to back."""

from __future__ import annotations

import random

import pytest

from tests.support.held_stream import HeldStream
from throwstack.pdb.window import Window


@pytest.mark.parametrize("seed", range(4))
def test_the_head_of_each_record_is_whole(seed):
    chance = random.Random(seed)
    stream = HeldStream(chance.randbytes(700_000))
    end = stream.size - 1000
    window = Window(stream, 4, end, 48)
    position = 4
    while position < end:
        at = position - window.base if position <= window.last else window.move(position)
        assert window.data[at : at + 48] == stream.read(position, min(48, end - position))
        position += chance.choice((2, 40, 5000))
    assert sum(size for _, size in stream.reads if size > 48) < 800_000


def test_nothing_is_read_of_an_empty_range():
    assert Window(HeldStream(b"x" * 100), 60, 50, 8).data == b""
