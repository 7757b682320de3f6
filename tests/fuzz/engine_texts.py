# SPDX-License-Identifier: Apache-2.0
"""Attacks on what makes text of what a dump or a user gives: names, symbol paths, strings in memory, registers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Ground, Shot
from tests.fuzz.mutate import TEXTS, mutate
from throwstack.core.contexts import read_context
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.core.text import ansi_at, decode_ansi, decode_wide, escape, wide_at
from throwstack.files.needed_files import NeededFile
from throwstack.files.symbol_path import ImageIdentity, PathElement, Server, SymbolPath, parse_symbol_path, safe_name
from throwstack.images.image import PdbIdentity, parse_rsds
from throwstack.names import demangle
from throwstack.names.blockers import blocked_in, blocker_named, blockers
from throwstack.names.stable_names import plain_name
from throwstack.names.symbols import Name, SymbolKind
from throwstack.report.register_text import (
    context_values,
    format_instruction,
    format_registers,
    register_values,
)
from throwstack.report.verdict import verdict
from throwstack.stuck.signature import signature, thrown_at

_NAMES = [
    b"?f@A@@QAEXH@Z",
    b"?push_back@?$vector@HV?$allocator@H@std@@@std@@QAEXABH@Z",
    b".?AV?$basic_string@_WU?$char_traits@_W@std@@V?$allocator@_W@2@@std@@",
    b".PAVCException@@",
    b"_ZNSt6vectorIiSaIiEE9push_backERKi",
    b"St13runtime_error",
    b"N3app5ErrorE",
    b"operator delete(void*)",
    b"@_EH4_CallFilterFunc@8()",
    b"A::f<(lambda)>(int (__cdecl*)(int)) const",
    b"_ZN4core9panicking5panic17h0123456789abcdefE",
    b"??$f@V?$g@V?$h@H@@@@@@YAXXZ",
    b"`anonymous namespace'::X<class std::vector<int,`lambda'>>::operator()",
]


def _string(rng: random.Random, data: bytes) -> str:
    """Return bytes as a name: as the engine decodes them, or with hostile text put in."""
    text = rng.choice((decode_ansi, decode_wide, lambda raw: raw.decode("latin-1")))(data)
    if rng.random() < 0.3:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + decode_ansi(rng.choice(TEXTS)) + text[at:]
    return text


def _names() -> Attack:
    functions = (
        *(demangle.undecorate, demangle.declaration, demangle.type_name, demangle.itanium_type_name),
        *(demangle.strip_parameters, demangle.display_name, plain_name),
    )

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        data = mutate(rng, rng.choice(_NAMES), rng.choice(_NAMES))
        if rng.random() < 0.02:
            data = data * rng.choice((2, 50, 1000))
        name = _string(rng, data)
        shot.changes.append(f"name {name!a}")
        demangle.is_decorated(name)
        for function in functions:
            yield escape(function(name) or "")

    return attack


def _signatures() -> Attack:
    known = [(blocker.modules[0] if blocker.modules else "kernel32", blocker.symbol) for blocker in blockers()]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        pairs = []
        for _ in range(rng.randrange(1, 12)):
            module, symbol = rng.choice(known)
            if rng.random() < 0.6:
                symbol = _string(rng, mutate(rng, rng.choice((symbol.encode(), *_NAMES)), rng.choice(_NAMES)))
            if rng.random() < 0.3:
                module = _string(rng, mutate(rng, module.encode()))
            pairs.append((module, symbol))
        shot.changes.append(f"names {pairs!a}")
        kinds = [found.kind for pair in pairs if (found := blocker_named(*pair)) is not None]
        yield verdict(kinds, has_exception=rng.random() < 0.5, box_text=escape(pairs[0][1])).text
        yield escape(", ".join("!".join(pair) for pair in blocked_in(pairs)))
        kind = rng.choice((None, *SymbolKind))
        names = [Name(0x1000 * at, *pair, rng.getrandbits(16), kind) for at, pair in enumerate(pairs)]
        yield str(signature(names, _string(rng, mutate(rng, rng.choice(_NAMES)))))
        yield escape(str(thrown_at(names)))

    return attack


def _strings() -> Attack:
    ground = Ground([(0x1000, bytes(0x2000))])
    for index, text in enumerate([*_NAMES, *TEXTS]):
        at = index * 80
        page = ground.pages[0x1000]
        ground.pages[0x1000] = page[:at] + text[:79] + page[at + len(text[:79]) :]
    ground.aim(0x1000, 0x1000)
    ground.aim(0x1FC0, 0x80)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        for _ in range(4):
            address = rng.choice((rng.randrange(0x1000, 0x3008), (1 << 64) - 3, 0x2FFF))
            for read in (ansi_at, wide_at):
                try:
                    text = read(memory, address, rng.choice((0, 1, 16, 256, 4096)))
                except MemoryUnreadable:
                    continue
                yield text
        yield escape(_string(rng, rng.randbytes(24)), rng.choice((0, 1, 12, 256)))

    return attack


_PATHS = [
    b"srv*/symbols*https://server/path",
    b"srv*c:\\symbols*https://msdl.example/download/symbols",
    b"cache*/tmp/cache;/pdbs;srv**https://server",
    b"symsrv*symsrv.dll*\\\\share\\symbols*https://server",
    b'/pdbs;~nobody/x;"c:\\program files\\x"',
]


def _symbol_paths() -> Attack:
    cache = Path("/nowhere/cache")
    record = b"RSDS" + bytes(range(16)) + (1).to_bytes(4, "little") + b"c:\\build\\app.pdb\0"

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        data = mutate(rng, rng.choice(_PATHS), rng.choice(_PATHS))
        path = data.decode("utf-8", "surrogateescape")
        said: list[str] = []
        elements = parse_symbol_path(path, cache, said.append)
        assert len(elements) <= 64
        raw = mutate(rng, record)
        shot.changes += [f"path {path!a}", f"RSDS {raw!r}"]
        identity = parse_rsds(raw) or PdbIdentity(_string(rng, raw[24:]) or "x", "0" * 32, 1)
        image = ImageIdentity(_string(rng, mutate(rng, b"kernel32.dll")) or "x", rng.getrandbits(32), 5)
        for wanted in (identity, image):
            name = safe_name(wanted.name)
            assert name is None or not {"/", "\\", "\0"} & set(name)
            if name is not None:
                yield name
                yield Server("https://server").file_url(wanted) or ""
                # What `needed_files` lets through, for a line of the manifest.
                if name == wanted.name:
                    yield NeededFile(wanted, "app", "why").manifest_line
        asked: list[str] = []
        SymbolPath((PathElement((Path("/nowhere"),)),), say=asked.append).find(identity, lambda _: None)
        yield from asked

    return attack


def _register_views() -> Attack:
    code = bytes.fromhex("558bec83ec10ff1500104000c3ff2500204000f00fb10fc4e279180f66660f1f840000000000cc0f0b")
    ground = Ground([(0x1000, (code * 64)[:0x1000]), (0x2000, bytes(0x1000))])
    ground.aim(0x1000, 0x600)

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        memory = ground.mutate(rng, shot)
        for arch in Arch:
            gpr = tuple(rng.choice((None, rng.getrandbits(64))) for _ in arch.register_names)
            yield format_registers(register_values(arch, Registers(rng.getrandbits(64), gpr))).replace("\n", "")
            address = rng.choice((0x1000, 0x1000 + rng.randrange(0x600), 0x1FFF, (1 << 64) - 1))
            yield format_instruction(memory, arch, address, rng.choice((None, 0, 0x23, 0x33))) or ""
            try:
                context = read_context(memory, 0x1000 + rng.randrange(0x1F00), arch)
                yield format_registers(context_values(context)).replace("\n", "")
            except MemoryUnreadable:
                yield ""

    return attack


FAMILIES = [
    Family("decorated names", _names, 4),
    Family("blockers and signatures", _signatures, 2),
    Family("strings", _strings, 3),
    Family("symbol paths", _symbol_paths, 3),
    Family("registers and instructions", _register_views, 1),
]
