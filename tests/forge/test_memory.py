# SPDX-License-Identifier: Apache-2.0
"""Physical memory of forged dumps: runs, sharing, merging; VAD trees; what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volatility3.plugins.windows import vadinfo

from tests.forge.build import DumpKind, build
from tests.forge.describe import Machine, Paging, Process, Region
from tests.forge.dump_files import DumpFacts, write_dump
from tests.forge.physical import PhysicalMemory
from tests.support.forge_machines import PAGE, VERSIONS, image, machine, process
from tests.support.volatility_session import open_dump

FACTS = DumpFacts(
    is_64bit=False,
    is_pae=False,
    build=3790,
    directory_base=0x39000,
    debugger_data=0,
    module_list=0,
    process_list=0,
    processors=1,
    bug_check=(0, 0, 0, 0, 0),
    system_time=0,
    up_time=0,
)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.sets(st.integers(0, 300), min_size=1), st.integers(1, 5))
def test_runs_cover_all_pages_and_fit(numbers, limit):
    memory = PhysicalMemory()
    for number in numbers:
        memory.claim(number)
    runs = memory.runs(limit)
    assert len(runs) <= limit
    covered = [page for start, count in runs for page in range(start, start + count)]
    assert sorted(set(covered)) == covered == sorted(memory.pages)
    assert numbers <= set(covered)


def test_allocated_pages_avoid_claimed_ones():
    memory = PhysicalMemory()
    first, _ = memory.allocate()
    memory.claim(first + 1)
    assert memory.allocate()[0] == first + 2


def test_a_page_is_where_the_kind_of_file_has_it(tmp_path):
    """Page 0x40 of memory: after the header and page 0x39 in a dump, at its own place in a raw image."""
    memory = PhysicalMemory()
    memory.claim(0x39)
    memory.claim(0x40)[:4] = b"here"
    for kind, place in ((DumpKind.FULL, 2 * PAGE), (DumpKind.BITMAP, 3 * PAGE), (DumpKind.RAW, 0x40 * PAGE)):
        write_dump(tmp_path / "dump", kind, memory, FACTS)
        data = (tmp_path / "dump").read_bytes()
        assert data.index(b"here") == place
        assert len(data) == place + PAGE


def test_an_image_of_two_processes_is_in_memory_once(tmp_path):
    paging, shared = Paging.PAE, image()
    one, many = (
        build(
            Machine(
                paging, VERSIONS[paging], [process(paging, 0x100 * n, "p", shared, 0) for n in range(1, count + 1)]
            ),
            tmp_path / str(count),
        )
        for count in (1, 11)
    )
    apart = build(
        Machine(paging, VERSIONS[paging], [process(paging, 0x100 * n, "p", image(n), 0) for n in range(1, 12)]),
        tmp_path / "apart",
    )
    assert (apart.dump.stat().st_size - many.dump.stat().st_size) // PAGE >= 10 * (len(shared) // PAGE)
    assert many.dump.stat().st_size > one.dump.stat().st_size


def test_written_page_of_a_shared_file_is_private(tmp_path):
    """A TEB in a page of a mapped file: the other process sees the file as it is."""
    paging, data = Paging.X64, bytes(range(256)) * 32
    processes = [process(paging, pid, "p", image(), 1) for pid in (0x100, 0x200)]
    for each in processes:
        each.regions.append(Region(0x7FFC0000, data, file="\\file"))
    processes[0].threads[0].teb = 0x7FFC0000
    built = build(Machine(paging, VERSIONS[paging], processes), tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        assert session.process_layer(0x200).read(0x7FFC0000, len(data)) == data
        first = session.process_layer(0x100).read(0x7FFC0000, len(data))
        assert int.from_bytes(first[0x30:0x38], "little") == 0x7FFC0000
        assert first[0x80:0x1000] == data[0x80:0x1000]


def depth(parents: dict[int, int], node: int) -> int:
    """Return how many nodes there are from this one up to the root."""
    return 1 + depth(parents, parents[node]) if node in parents else 0


@pytest.mark.parametrize("count", [0, 1, 2, 5, 60])
@pytest.mark.parametrize("paging", [Paging.X64, Paging.X86], ids=lambda paging: paging.value)
def test_vad_trees_have_all_regions_and_are_balanced(paging, count, tmp_path):
    described = Process(0x100, "p", regions=[Region(0x1000000 + 0x10000 * n, b"x") for n in range(count)])
    built = build(Machine(paging, VERSIONS[paging], [described]), tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        rows = session.rows(vadinfo)
        starts = {row["Start VPN"] for row in rows}
        assert {0x1000000 + 0x10000 * n for n in range(count)} | {0x7FFDF000, 0x7FFE0000} <= starts
        parents = {row["Offset"]: row["Parent"] for row in rows}
        deepest = max(depth(parents, node) for node in parents)
        assert deepest <= len(rows).bit_length()


def test_descriptions_that_contradict_themselves_are_refused(tmp_path):
    described = machine(Paging.X86)
    described.processes[0].regions.append(Region(0x3D000, b"x"))
    with pytest.raises(ValueError, match="overlap"):
        build(described, tmp_path)
    described.processes[0].regions[-1] = Region(0x80000000, b"x")
    with pytest.raises(ValueError, match="user half"):
        build(described, tmp_path)
    described.processes[0].regions[-1] = Region(0x7FFE0000, b"a live capture has this page")
    build(described, tmp_path)
    described.processes[0].directory_base = 0x1234
    with pytest.raises(ValueError, match="no top table"):
        build(described, tmp_path)
    described.processes[0].directory_base = None
    described.processes[0].threads[0].kernel_stack = {0x1000: b"x"}
    with pytest.raises(ValueError, match="no address of the kernel"):
        build(described, tmp_path)
