# SPDX-License-Identifier: Apache-2.0
"""What comes along of the memory that Wine says it gave a process."""

from __future__ import annotations

from tests.live.capture import MEM_PRIVATE, CapturedModule, CommittedRange, Mapping, _all_of

MEM_MAPPED = 0x40000
READ_WRITE, EXECUTE_READ = 0x04, 0x20
HEAP = 0x7EBC_0000_0000


class Process:
    """A process in which each byte is the number of its page, and whose second page of each range was never written."""

    def mappings(self, *, everywhere: bool = False) -> list[Mapping]:
        tables = Mapping(0x70000, 0x72000, "r--s", "/usr/share/wine/nls/locale.nls")
        return [tables, Mapping(HEAP, HEAP + 0x3000, "rw-p", "")] if everywhere else [tables]

    def read(self, address: int, size: int) -> bytes:
        return bytes([address >> 12 & 0xFF]) * size

    def untouched(self, start: int, pages: int) -> frozenset[int]:
        return frozenset({1})


def captured(*committed: CommittedRange) -> list[tuple[int, int, bool, bool, frozenset[int]]]:
    module = CapturedModule("a.dll", "c:\\a.dll", 0x10000, 0x2800, 0, 0)
    stack = (0x20000, 0x22000)
    regions = _all_of(Process(), committed, {stack}, [module])  # type: ignore[arg-type]
    return [(r.base, len(r.data), r.is_code, r.is_section, r.untouched) for r in regions]


def test_private_memory_comes_along_wherever_it_is():
    assert captured(CommittedRange(HEAP, HEAP + 0x3000, READ_WRITE, MEM_PRIVATE)) == [
        (HEAP, 0x3000, False, False, frozenset({1}))
    ]


def test_the_pages_of_a_section_are_never_called_untouched():
    assert captured(CommittedRange(0x50000, 0x51000, EXECUTE_READ, MEM_MAPPED)) == [
        (0x50000, 0x1000, True, True, frozenset())
    ]


def test_modules_stacks_and_files_of_wine_are_left_out():
    everything = CommittedRange(0x10000, 0x24000, READ_WRITE, MEM_PRIVATE)

    assert [(base, size) for base, size, *_ in captured(everything)] == [(0x13000, 0xD000), (0x22000, 0x2000)]
    assert not captured(CommittedRange(0x70000, 0x72000, 0x02, MEM_MAPPED))
