# SPDX-License-Identifier: Apache-2.0
"""Methods of native images of NGEN, by the RVA of their code: hot, unprofiled and cold code of x64 and x86."""

from __future__ import annotations

import random

import pytest

from tests.support.ngen_image import BASE, COLD, DESCS, HEADER, HOT, LAYOUT, MODULE, TABLES, UNPROFILED, image
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.ngen import NgenImage


def opened(memory: Memory) -> NgenImage:
    metadata = Metadata.of_image(memory, BASE)
    assert metadata is not None
    return NgenImage(memory, metadata.header)


def in_memory(data: bytes) -> Memory:
    return memory_of({BASE: data})


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(("layout_at", "is_relative"), [(0x10, False), (0x58, True)])
def test_each_function_belongs_to_a_method(is_x86: bool, layout_at: int, is_relative: bool) -> None:
    code = opened(in_memory(image(is_x86=is_x86, layout_at=layout_at, is_relative=is_relative)))
    a, b, c = (BASE + DESCS + 0x10 * number for number in range(3))
    expected = [
        *((HOT, a, HOT, True), (HOT + 0x40, a, HOT, False), (HOT + 0x80, b, HOT + 0x80, True)),
        (UNPROFILED, c, UNPROFILED, True),
        *((COLD, a, HOT, False), (COLD + 0x40, a, HOT, False), (COLD + 0x80, c, UNPROFILED, False)),
    ]
    for begin, method_desc, start, is_body in expected:
        for rva in (begin, begin + 0x3F):
            found = code.method_at(rva)
            assert found is not None, hex(rva)
            assert (found.rid, found.method_desc, found.start, found.is_body) == (0, method_desc, start, is_body)
    for rva in (HOT - 1, HOT + 0xC0, UNPROFILED + 0x40, COLD + 0xC0):
        assert code.method_at(rva) is None


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param((HEADER, b"RTR\0"), id="another kind"),
        pytest.param((HEADER + 0x40, b"\xff\xff\xff\x7f"), id="Module outside the image"),
        pytest.param((MODULE + 0x58, bytes(8)), id="no pointer"),
        pytest.param((TABLES, b"\0\0\0\1"), id="functions outside the code"),
    ],
)
def test_what_contradicts_itself_is_refused(is_x86: bool, changed: tuple[int, bytes]) -> None:
    with pytest.raises(MetadataError):
        opened(in_memory(image(is_x86=is_x86, changed=changed)))


def test_an_absent_page_is_a_reason() -> None:
    data = image(is_x86=False)
    lost = memory_of({BASE + at: data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE) if at != HEADER})
    with pytest.raises(MetadataError, match="not readable"):
        opened(lost)


@pytest.mark.parametrize("is_x86", [False, True])
def test_no_bytes_raise_another_error(is_x86: bool) -> None:
    data = image(is_x86=is_x86)
    rng = random.Random(17)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.choice((HEADER + 0x40, MODULE + 0x58, LAYOUT + rng.randrange(0x90), TABLES + rng.randrange(0x600)))
            changed[at : at + 2] = rng.randbytes(2)
        try:
            code = opened(in_memory(bytes(changed)))
            for rva in range(HOT, COLD + 0x100, 0x20):
                code.method_at(rva)
        except MetadataError as reason:
            assert str(reason)  # noqa: PT017
