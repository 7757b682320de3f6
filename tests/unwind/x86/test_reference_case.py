# SPDX-License-Identifier: Apache-2.0
"""The reference case of a Server 2003 service, unwound with its symbols and with nothing but exports."""

from __future__ import annotations

import pytest

from tests.forge.cases import builders
from throwstack.core.frames import End, StackBounds
from throwstack.core.memory import memory_of
from throwstack.core.registers import X86, Arch, Registers
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.unwind.x86 import Unwinder

USER_SPACE = 0x80000000


@pytest.fixture(scope="module")
def case():
    return builders()["ftp-2003"][0]()


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports only"])
@pytest.mark.parametrize("stack", ["that threw", "of the blocked thread"])
def test_both_stacks_of_the_reference_case_are_unwound_frame_by_frame(case, has_symbols, stack):
    truth = case.truth.stuck[0]
    process = next(process for process in case.machine.processes if process.pid == truth.pid)
    thread = next(thread for thread in process.threads if thread.tid == truth.tid)
    memory = memory_of([(region.base, region.data) for region in process.regions])
    modules = ModuleMap(Module(item.name, item.path, item.base, item.size) for item in process.modules)
    images = ImageMap(memory, modules)
    tables = {image.base: image.rvas() for image in case.images if has_symbols}

    def source(image: Image) -> SymbolTable | None:
        rvas = tables.get(image.base)
        return None if rvas is None else SymbolTable(SymbolKind.ISF, ((rva, name) for name, rva in rvas.items()))

    registers, expected = (
        (truth.registers, truth.frames)
        if stack == "that threw"
        else (thread.registers, [frame for frame in truth.thread_stack if frame.ip < USER_SPACE])
    )
    walk = Unwinder(images, Symbols(images, source)).walk(
        Registers.named(Arch.X86, registers), StackBounds(thread.stack_limit, thread.stack_base)
    )
    assert walk.end is End.THREAD_START
    assert [(frame.ip, frame.child_sp, frame.return_address) for frame in walk.frames] == [
        (frame.ip, frame.child_sp, frame.return_address) for frame in expected
    ]
    for found, true in zip(walk.frames, expected, strict=True):
        known = {X86.register_names[n]: found.registers.gpr[n] for n in X86.nonvolatile}
        assert known == {name: true.registers[name] for name in known}
