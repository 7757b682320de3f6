# SPDX-License-Identifier: Apache-2.0
"""What is known of addresses outside images: by the process's regions, and by sources of functions."""

from __future__ import annotations

from throwstack.core.memory import memory_of
from throwstack.core.regions import Region, RegionKind
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.code_outside import CodeOutside, OutsideFunction

IMAGE, CODE, DATA, UNKNOWN, ABSENT = 0x400000, 0x20000000, 0x30000000, 0x40000000, 0x50000000
IMAGES = ImageMap(
    memory_of(dict.fromkeys((IMAGE, CODE, DATA, UNKNOWN), bytes(16))), ModuleMap([Module("a.exe", "", IMAGE, 0x1000)])
)


class TwoRegions:
    def find(self, address: int) -> Region | None:
        if CODE <= address < CODE + 0x2000:
            return Region(CODE, CODE + 0x2000, RegionKind.PRIVATE, is_executable=True)
        return (
            Region(DATA, DATA + 0x1000, RegionKind.MAPPED, is_executable=False) if address >> 12 == DATA >> 12 else None
        )


class OneFunction:
    def __init__(self, at: int, name: str) -> None:
        self.at, self.known = at, OutsideFunction("a test", name)

    def function_at(self, address: int) -> OutsideFunction | None:
        return self.known if address == self.at else None


def test_regions_say_where_code_can_be():
    outside = CodeOutside(IMAGES, TwoRegions())
    assert outside.is_code(CODE) is True
    assert outside.is_code(CODE + 0x1000) is True  # the page is absent, and code all the same
    assert outside.is_code(DATA) is False
    assert outside.is_code(IMAGE) is False
    assert [outside.describe(address) for address in (CODE, DATA, UNKNOWN)] == [
        "private memory",
        "a mapped section",
        "",
    ]


def test_without_a_region_what_is_readable_can_be_code():
    for outside in (CodeOutside(IMAGES), CodeOutside(IMAGES, TwoRegions())):
        assert outside.is_code(UNKNOWN) is None
        assert not outside.is_known_code(UNKNOWN)
        assert outside.is_code(ABSENT) is False


def test_a_function_that_a_source_knows_is_code_and_the_first_source_is_believed():
    outside = CodeOutside(IMAGES, TwoRegions(), [OneFunction(DATA, "first"), OneFunction(DATA, "second")])
    known = outside.function(DATA)
    assert known is not None
    assert known.name == "first"
    assert outside.is_known_code(DATA)
    assert outside.function(CODE) is None
