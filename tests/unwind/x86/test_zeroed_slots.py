# SPDX-License-Identifier: Apache-2.0
"""Every return address of both stacks of the reference case, overwritten with 0, one at a time.

A buffer overrun that writes zeros leaves such stacks. Only the return address of the outermost frame is 0 by itself.
"""

from __future__ import annotations

import pytest

from tests.forge.cases import builders
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.unwind.x86 import Unwinder

USER_SPACE = 0x80000000


class Overwritten:
    """Memory with one word of it overwritten by 0."""

    def __init__(self, regions: dict[int, bytes]) -> None:
        self._source, self.at = SegmentSource(regions), 0

    def page(self, address: int) -> bytes | None:
        page = self._source.page(address)
        offset = self.at - address
        return page if page is None or not 0 <= offset < 0x1000 else page[:offset] + bytes(4) + page[offset + 4 :]


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports only"])
def test_a_zero_is_the_end_of_the_stack_in_its_outermost_frame_only(has_symbols):
    case = builders()["ftp-2003"][0]()
    truth = case.truth.stuck[0]
    process = next(process for process in case.machine.processes if process.pid == truth.pid)
    thread = next(thread for thread in process.threads if thread.tid == truth.tid)
    source = Overwritten({region.base: bytes(region.data) for region in process.regions})
    memory = Memory(source)
    images = ImageMap(memory, ModuleMap(Module(item.name, item.path, item.base, item.size) for item in process.modules))
    tables = {image.base: image.rvas() for image in case.images if has_symbols}
    symbols = Symbols(
        images,
        lambda image: (
            SymbolTable(SymbolKind.ISF, ((rva, name) for name, rva in tables[image.base].items()))
            if image.base in tables
            else None
        ),
    )
    unwinder = Unwinder(images, symbols)
    bounds = StackBounds(thread.stack_limit, thread.stack_base)
    for registers, frames in ((truth.registers, truth.frames), (thread.registers, truth.thread_stack)):
        true = [frame for frame in frames if frame.ip < USER_SPACE]
        for number, frame in enumerate(true):
            source.at = frame.child_sp + 4
            memory._pages.clear()
            walk = unwinder.walk(Registers.named(Arch.X86, registers), bounds)
            assert [found.ip for found in walk.frames[: number + 1]] == [frame.ip for frame in true[: number + 1]]
            if frame is true[-1]:
                assert walk.end is End.THREAD_START
                continue
            assert not walk.is_complete, hex(frame.ip)
            beyond = walk.frames[number + 1 :]
            assert not beyond or (beyond[0].trust, bool(beyond[0].note)) == (Trust.SCAN, True), hex(frame.ip)
