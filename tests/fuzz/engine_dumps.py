# SPDX-License-Identifier: Apache-2.0
"""Attacks on what reads dumps: headers, runs, bitmaps, page tables and entries, the compressed store, XPRESS."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.forge.xpress import compress
from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Changed, Ground, Shot
from tests.fuzz.mutate import edit, mutate
from tests.support import store_memory as store
from tests.support.dump_headers import Buffer, bitmap, header32, header64, with_runs
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.crashdump.dump_pages import DumpPages
from throwstack.crashdump.header import read_header
from throwstack.crashdump.runs import NoRuns, read_runs
from throwstack.pages.compressed_store import CompressedStores, NotInStore
from throwstack.pages.page_table_entries import Bits, PteFormats
from throwstack.pages.page_tables import AddressSpace, PagingMode
from throwstack.pages.resolver import ResolvedPages
from throwstack.pages.store_layout import store_layout
from throwstack.pages.vad_views import PrototypeRun, VadView, VadViews
from throwstack.pages.xpress import BadXpress, decompress

_TYPE_AT = {True: 0xF98, False: 0xF88}


def _headers() -> list[bytes]:
    made = []
    for page in (header64(), header32()):
        made.append(bytes(with_runs(bytearray(page), [(1, 3), (0x100, 2)])) + bytes(5 * PAGE_SIZE))
        is_64bit = len(page) == 2 * PAGE_SIZE
        for kind in (2, 5, 6, 7):
            with_kind = bytearray(page)
            struct.pack_into("<I", with_kind, _TYPE_AT[is_64bit], kind)
            pages = bitmap({1, 2, 3, 9, 200}, len(page) + PAGE_SIZE, 256)
            made.append(bytes(with_kind) + pages.ljust(PAGE_SIZE, b"\0") + bytes(5 * PAGE_SIZE))
        for kind in (8, 9, 10):
            with_kind = bytearray(page)
            struct.pack_into("<I", with_kind, _TYPE_AT[is_64bit], kind)
            ranges = struct.pack("<QQQQ", 1, 3, 0x100, 2)
            head = struct.pack("<I8s4xQQQQ", 0x40, b"RDMPDUMP", 0, len(page) + 0x30 + len(ranges), 0, 5)
            made.append(bytes(with_kind) + head.ljust(0x30, b"\0") + ranges + bytes(5 * PAGE_SIZE))
    return made


def _dump_headers() -> Attack:
    seeds = _headers()
    ranges = {True: [(0, 0x40), (0x80, 0x200), (0xF98, 0x100), (0x2000, 0x100)]}
    ranges[False] = [(0, 0x40), (0x5C, 0x100), (0xF88, 0x78), (0x1000, 0x100)]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        seed = rng.choice(seeds)
        start, size = rng.choice(ranges[seed[4:8] == b"DU64"])
        part = mutate(rng, seed[start : start + size], keeps_size=rng.random() < 0.8)
        data = seed[:start] + part + seed[start + size :]
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        shot.note("dump", seed, data)
        buffer = Buffer(data)
        header = read_header(buffer)
        if header is None:
            return
        yield f"{header.kind} {header.paging} {header.size} {header.is_arm64}"
        try:
            pages = DumpPages(buffer, read_runs(buffer, header))
        except NoRuns as reason:
            yield str(reason)
            return
        assert pages.extent.missing <= pages.extent.expected
        for run in (*pages.runs[:4], *pages.runs[-4:]):
            for frame in (run.first, run.first + run.count - 1, run.first + run.count):
                pages.page(frame * PAGE_SIZE)

    return attack


_FORMATS = {
    PagingMode.X86: PteFormats(4, Bits(12, 20), Bits(12, 20), None, Bits(1, 4), Bits(12, 20), Bits(5, 5)),
    PagingMode.PAE: PteFormats(8, Bits(12, 26), Bits(12, 26), Bits(32, 32), Bits(1, 4), Bits(32, 32), Bits(5, 5)),
    PagingMode.X64: PteFormats(
        8, Bits(12, 36), Bits(12, 36), Bits(16, 48), Bits(12, 4), Bits(32, 32), Bits(5, 5), Bits(4, 1), 1 << 45
    ),
}


class _PageFiles:
    def page(self, number: int, index: int) -> bytes | None:
        return bytes(PAGE_SIZE) if index & 1 else None

    def is_compressed_store(self, number: int) -> bool:
        return number == 2


def _page_tables() -> Attack:
    grounds = {}
    for mode in PagingMode:
        size, levels = mode.value.entry_size, mode.value.levels
        entries: list[tuple[int, bytes]] = []
        for level in range(len(levels)):
            last = level == len(levels) - 1
            words = [(level + 2) * PAGE_SIZE | 0x67] if not last else [page * PAGE_SIZE | 0x67 for page in range(1, 9)]
            entries.append(((level + 1) * PAGE_SIZE, b"".join(word.to_bytes(size, "little") for word in words)))
        ground = Ground([*entries, *((page * PAGE_SIZE, b"data" * 1024) for page in range(6, 9))])
        ground.hot = [(at, 64) for at, _ in entries]
        ground.values = [page * PAGE_SIZE | flags for page in range(9) for flags in (0x67, 0xE7, 0x800, 0xC00, 0x400)]
        grounds[mode] = ground
    kernel = Ground([(0xE1000000, bytes(PAGE_SIZE)), (0xFFFFC00000000000, bytes(PAGE_SIZE))])
    kernel.values = grounds[PagingMode.X64].values

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        mode = rng.choice(list(PagingMode))
        physical = grounds[mode].mutate(rng, shot)
        prototypes = 0xFFFFC00000000000 if mode is PagingMode.X64 else 0xE1000000
        first, count = rng.choice((0, 1, 1 << 40)), rng.choice((0, 1, 8, 1 << 36))
        view = VadView(
            0, 0x8000, rng.random() < 0.3, rng.random() < 0.5, True, (PrototypeRun(first, count, prototypes),)
        )
        tables = AddressSpace(physical, mode, PAGE_SIZE | rng.choice((0, 0x18)), invalid_mask=1 << 45)
        pages = ResolvedPages(
            physical,
            tables,
            _FORMATS[mode],
            kernel=kernel.mutate(rng, shot),
            views=lambda: VadViews((view,)),
            page_files=_PageFiles(),
        )
        for address in (0, 0x1000, 0x7000, rng.getrandbits(48) & -PAGE_SIZE, (1 << 64) - PAGE_SIZE):
            tables.page(address)
            origin, page = pages.resolve(address)
            assert page is None or len(page) == PAGE_SIZE
            yield origin.value

    return attack


def _compressed_store() -> Attack:
    laid = store.lay()
    sources = [Ground.of(one, one.pages) for one in laid]
    places = (store.GLOBALS, store.METADATA, store.STORE, store.CHUNKS, store.CHUNK, store.REGIONS)
    for at in (*places, *(tree for tree in (store.ROOT, store.LEFT, store.RIGHT, store.PAGES)), store.CHUNK + 0x1000):
        sources[0].aim(at, 0x40)
    for at, size in ((0x1C0, 8), (0x110, 0x30), (0x218, 0x18), (0x378, 8), (0x430, 2), (0x1848, 8), (0x19A8, 8)):
        sources[0].aim((store.GLOBALS if at == 0x1C0 else store.STORE) + at, size)
    sources[0].aim(store.CHUNK + 0x30 + 2 * 0x10, 8)
    sources[0].aim(store.CHUNK + 0x1000 + 0x30 + 15 * 0x10, 8)
    sources[0].values = [*places, store.ROOT, store.PAGES, store.OWNER, store.REGION]
    layout = store_layout(17763, is_64bit=True)
    assert layout is not None

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        kernel = sources[0].mutate(rng, shot)
        owner = sources[1].mutate(rng, shot) if rng.random() < 0.3 else Memory(Changed(sources[1].pages, {}))
        found = CompressedStores(kernel, store.GLOBALS, layout, lambda at: owner if at == store.OWNER else None)
        for index in (0x1234, 5, rng.getrandbits(28)):
            try:
                assert len(found.page(store.FILE, index)) == PAGE_SIZE
            except NotInStore as reason:
                yield str(reason)

    return attack


def _xpress() -> Attack:
    noise = random.Random(3).randbytes(700)
    seeds = [compress(text) for text in (store.TEXT, store.NOISE, noise * 5, bytes(PAGE_SIZE), b"ab" * 2048)]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        seed = rng.choice(seeds)
        data = mutate(rng, seed, rng.choice(seeds))
        shot.note("XPRESS", seed, data)
        try:
            assert len(decompress(data, PAGE_SIZE)) == PAGE_SIZE
        except BadXpress as reason:
            yield str(reason)

    return attack


def _prototype_formats() -> Attack:
    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        for formats in _FORMATS.values():
            raw = rng.getrandbits(64) & rng.getrandbits(64) if rng.random() < 0.5 else rng.getrandbits(64)
            made = edit(rng, raw.to_bytes(8, "little"))
            entry = int.from_bytes(made.data, "little") & (1 << 8 * formats.size) - 1
            shot.changes.append(f"entry {entry:#x}")
            yield str(formats.decode(entry).kind.value)

    return attack


FAMILIES = [
    Family("dump headers", _dump_headers, 3),
    Family("page tables", _page_tables, 2),
    Family("page-table entries", _prototype_formats),
    Family("compressed store", _compressed_store, 2),
    Family("XPRESS", _xpress, 2),
]
