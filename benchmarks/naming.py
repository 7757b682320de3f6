# SPDX-License-Identifier: Apache-2.0
"""What naming 10,000 frames costs: with PDBs that are new to this user, with PDBs converted before, with exports only.

    python benchmarks/naming.py [--modules 10] [--functions 20000] [--frames 10000]

The PDBs are written for the purpose: each function has lines, every tenth an inlined function. `--large MB` measures
one PDB of that size instead.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.pdb_writer import Inline, Pdb, Procedure
from tests.support.pe_writer import X86, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.pdb.pdb_symbols import PdbSymbols

_BASE, _STRIDE, _SIZE = 0x10000000, 0x1000000, 0x40
_LINES = 8


def _pdb(guid: str, functions: int) -> Pdb:
    procedures = [
        Procedure(
            f"Namespace::Class{index // 20}::function{index}",
            0x1000 + _SIZE * index,
            _SIZE,
            [(at * _SIZE // _LINES, rf"d:\src\file{index // 200}.cpp", 100 + at) for at in range(_LINES)],
            ("int", "void*"),
            [Inline(f"inlined{index % 500}", r"d:\src\inline.h", 7, [(8, 8, 8)])] if index % 10 == 0 else [],
        )
        for index in range(functions)
    ]
    return Pdb(guid, sections=[(".text", 0x1000, 0x1000 + _SIZE * functions)], procedures=procedures)


class _World:
    """A directory of PDBs and a process with their modules."""

    def __init__(self, directory: Path, modules: int, functions: int) -> None:
        self.directory, self.functions = directory, functions
        segments, loaded = {}, []
        for number in range(modules):
            guid = f"{number:032X}"
            name = f"module{number}"
            (directory / f"{name}.pdb").write_bytes(_pdb(guid, functions).to_bytes())
            base = _BASE + _STRIDE * number
            exports: list[tuple[str | None, int | str]] = [
                (f"Export{at}", 0x1000 + _SIZE * at) for at in range(0, functions, 20)
            ]
            code = Section(".text", 0x1000, b"\x40" * (_SIZE * functions))
            pe = Pe(X86, base, sections=[code], pdb=(guid, 1, f"{name}.pdb"), exports=exports)
            segments[base] = pe.mapped()
            loaded.append(Module(f"{name}.dll", f"{name}.dll", base, pe.size))
        self.images = ImageMap(memory_of(segments), ModuleMap(loaded))
        self.modules = loaded

    def addresses(self, count: int) -> list[int]:
        chance = random.Random(1)  # noqa: S311 repeatable, not secret
        return [
            chance.choice(self.modules).base + 0x1000 + chance.randrange(_SIZE * self.functions) for _ in range(count)
        ]

    def symbols(self, cache: Path) -> Symbols:
        path = SymbolPath(parse_symbol_path(str(self.directory), cache), say=print)
        return Symbols(self.images, PdbSymbols(path, cache=cache, say=print))


def _timed(what: str, addresses: list[int], make: Callable[[], Symbols]) -> None:
    start = time.perf_counter()
    symbols = make()
    for address in addresses:
        symbols.frames_at(address, is_return_address=True)
    seconds = time.perf_counter() - start
    print(f"{what:<44}{seconds:8.3f} s {len(addresses) / seconds:12,.0f} frames/s")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=int, default=10)
    parser.add_argument("--functions", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--large", type=int, metavar="MB", default=0)
    options = parser.parse_args()
    if options.large:
        options.modules, options.functions = 1, options.large * 5600
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        world = _World(directory, options.modules, options.functions)
        size = sum(path.stat().st_size for path in directory.glob("*.pdb"))
        print(f"{options.modules} PDBs, {size / 1e6:.1f} MB, {options.functions} functions each")
        addresses = world.addresses(options.frames)
        cache = directory / "cache"
        _timed("cold: PDBs converted", addresses, lambda: world.symbols(cache))
        _timed("warm: PDBs converted in an earlier run", addresses, lambda: world.symbols(cache))
        symbols = world.symbols(cache)
        for image in world.images:
            symbols.table(image)
        _timed("hot: in the same run, tables loaded", addresses, lambda: symbols)
        _timed("hot, addresses seen before", addresses, lambda: symbols)
        _timed("exports only", addresses, lambda: Symbols(world.images))


if __name__ == "__main__":
    main()
