# SPDX-License-Identifier: Apache-2.0
"""Methods of ReadyToRun images, by the RVA of their code."""

from __future__ import annotations

import random

import pytest

from tests.support import native_format_writer as write
from tests.support.ready_to_run_image import BASE, BODY, CODE, HEADER, function, image
from throwstack.core.memory import memory_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.ready_to_run import ReadyToRun


def opened(data: bytes) -> ReadyToRun:
    memory = memory_of({BASE: data})
    metadata = Metadata.of_image(memory, BASE)
    assert metadata is not None
    return ReadyToRun(memory, metadata.header)


@pytest.mark.parametrize(
    ("number", "rid", "first", "is_instance"),
    [(0, 1, 0, False), (1, 1, 0, False), (2, 3, 2, False), (3, 4, 3, True), (4, 4, 4, True), (5, 0, 5, True)],
)
def test_each_function_belongs_to_a_method(number: int, rid: int, first: int, is_instance: bool) -> None:
    code = opened(image())
    for rva in (function(number), function(number) + 0x1F):
        found = code.method_at(rva)
        assert found is not None
        assert (found.rid, found.start, found.is_instance) == (rid, function(first), is_instance)
        assert found.is_body == (number == first)
    assert code.method_at(function(number) + 0x20) is None
    assert code.is_whole


def test_a_cold_part_belongs_to_its_method() -> None:
    code = opened(image(cold=[(6, 0), (7, 2)]))
    parts = [code.method_at(function(number)) for number in (6, 7)]
    assert [(part.rid, part.start, part.is_body) for part in parts if part] == [
        (1, function(0), False),
        (3, function(2), False),
    ]


def test_an_entry_that_leads_before_the_section_is_left_out() -> None:
    """The distance to an entry is signed. Here it leads to 1000h bytes before it, and so before the section."""
    data = image()
    place = data.index(write.hash_table([[b"\1"], [b"\2", b"\3"]])[:7], BODY)  # the index of buckets
    changed = bytearray(data)
    changed[place + 8 : place + 10] = (-0x1000 << 2 & 0xFFFF | 1).to_bytes(2, "little")
    code = opened(bytes(changed))
    found = [code.method_at(function(number)) for number in (2, 4)]
    assert [method.rid for method in found if method is not None] == [3, 4]


def test_code_before_all_functions_has_no_method() -> None:
    assert opened(image()).method_at(CODE - 1) is None


@pytest.mark.parametrize("header", [{"flags": 0x20}, {"count": 0}])
def test_images_without_code_of_their_own_are_refused(header: dict[str, int]) -> None:
    with pytest.raises(MetadataError, match="no ReadyToRun code"):
        opened(image(header=header))


def test_no_bytes_raise_another_error() -> None:
    data = image(cold=[(6, 0)])
    rng = random.Random(13)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(HEADER, BODY + 0x100)
            changed[at : at + 2] = rng.randbytes(2)
        try:
            code = opened(bytes(changed))
            for number in range(8):
                code.method_at(function(number))
        except MetadataError as reason:
            assert str(reason)  # noqa: PT017
