# SPDX-License-Identifier: Apache-2.0
"""Small processes made of byte strings, for tests of what works on a `Target`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from throwstack.core.budgets import BUDGETS, Budget, Meter
from throwstack.core.frames import StackBounds, Trust, Walk
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.unwind.target import Target


class GivenWalk:
    """An unwinder that answers with the walk a test lays down, so that what stands above is tested alone."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        return self._walk


def make_target(
    arch: Arch,
    modules: Sequence[Module],
    memory: Mapping[int, bytes],
    symbols: Mapping[str, Mapping[str, int]],
    walk: Walk,
) -> Target:
    """Make a target whose modules have no readable headers and whose symbols are `{module name: {symbol: RVA}}`."""
    mapped = memory_of(memory)
    images = ImageMap(mapped, ModuleMap(modules))

    def table(image: Image) -> SymbolTable | None:
        names = symbols.get(image.module.name)
        return None if names is None else SymbolTable(SymbolKind.ISF, ((rva, name) for name, rva in names.items()))

    return Target(arch, mapped, images, Symbols(images, table), GivenWalk(walk))


def with_budget(target: Target, **limits: int) -> Target:
    """Return `target` with new budgets: `checks=3` lets its threads take three checks, all together."""
    budgets = {name: Budget("units", limit, limit, 0, 0) for name, limit in limits.items()}
    return replace(target, meter=Meter(replace(BUDGETS, **budgets)))
