# SPDX-License-Identifier: Apache-2.0
"""Mutants of a .NET runtime's memory, of its contract, and of NativeAOT's crash buffer, against what reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import edit, mutate
from tests.support.managed_heap import STACK, Style
from tests.support.managed_layouts import contract_json
from tests.support.thrown_objects import AREAS, ask, texts, with_aggregate
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.managed.contract import parse_contract
from throwstack.managed.crash_buffer import read_crash_buffer
from throwstack.managed.runtime_layout import layout_of_contract
from throwstack.managed.runtime_memory import StructureError

_BUFFER = {
    "version": "1.0.0",
    "runtime_version": "8.0.1",
    "reason": "1",
    "thread": "0x1A4",
    "message": "",
    "exception": {
        "address": "0x20000080",
        "hr": "0x80131601",
        "message": "no stock",
        "type": "Shop.OrderException",
        "stack": [{"ip": "0x7FF600001234", "module": "0x7FF600000000", "offset": "0x2F", "name": "Shop.Program.Main"}],
        "inner": [{"hr": "0x80131537", "message": "no number", "type": "System.FormatException"}],
    },
}


def _objects() -> Attack:
    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        process, pages = with_aggregate(rng.choice(list(Style)), rng.choice(list(Arch)))
        process.pages = {address: bytearray(page) for address, page in pages.items()}
        used = [page for page in pages if any(area <= page < area + 0x10000 for area in AREAS) and any(pages[page])]
        pool = [*used, STACK, *(page + rng.randrange(0, 0x1000, process.size) for page in used[:8])]
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            page = rng.choice(used)
            change = edit(rng, bytes(process.pages[page]).rstrip(b"\0").ljust(64, b"\0"), pool)
            process.place(page + change.at, change.data)
            shot.changes.append(
                f"{process.style} {process.arch} {page + change.at:#x}: {change.data.hex()} {change.how}"
            )
        yield from ask(process)

    return attack


def _contracts() -> Attack:
    seed = json.dumps(contract_json(8)).encode()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        text = mutate(rng, seed)
        shot.note("contract", seed, text)
        try:
            contract = parse_contract(text, 8, [0x1000, 0x2000])
            layout_of_contract(contract)
        except StructureError as error:
            yield str(error)

    return attack


def _crash_buffers() -> Attack:
    seed = json.dumps(_BUFFER).encode()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        text = mutate(rng, seed)
        shot.note("crash buffer", seed, text)
        memory = memory_of({0x10000: text})
        try:
            found = read_crash_buffer(memory, (0x48, 0, 0x10000, len(text)))
        except StructureError as error:
            yield str(error)
            return
        yield from (found.message, found.runtime_version)
        if found.exception is not None:
            yield from texts(found.exception)

    return attack


FAMILIES = [
    Family("managed exceptions", _objects, 2),
    Family("contracts of .NET", _contracts),
    Family("crash buffers of NativeAOT", _crash_buffers),
]
