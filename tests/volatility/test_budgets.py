# SPDX-License-Identifier: Apache-2.0
"""One process that makes work, in whole dumps: its page tables map one physical page over and over.

The dump is the reference case, whose PID 2564 has a crashed thread (2792) beside others that wait.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.support.patched_memory import opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.memory import PAGE_SIZE
from throwstack.unwind.after_call import is_after_call
from throwstack.volatility.crashes import crash_row
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.tables.columns import row
from throwstack.volatility.tables.crash_table import CRASH_COLUMNS

NOTES = [column.title for column in CRASH_COLUMNS].index("Notes")
PID, CRASHED, DECOY = 2564, 2792, 2568
DEEP, LARGE = 0x10000000, 0x200000
LEAF, TABLE = 0x867, 0x867
"""Present, writable, user, accessed, dirty."""


@dataclass
class Patched:
    """The bytes of a dump, changed by physical and by virtual address."""

    session: Session
    machine: Machine
    raw: bytearray

    def __post_init__(self) -> None:
        self.survey = Survey(self.machine, Selection([PID]))
        (self.process,) = self.survey.processes()
        self.layer = self.session.process_layer(PID)
        self.directory = self.layer.config["page_map_offset"]
        physical = self.machine.physical
        free = (at for at in range(0x100000, 0x4000000, PAGE_SIZE) if physical.page(at) == bytes(PAGE_SIZE))
        self.free = [next(free) for _ in range(64)][40:]

    def write(self, physical: int, data: bytes) -> None:
        """Change physical memory."""
        layer = self.session.context.layers[self.session.kernel_layer.config["memory_layer"]]
        at = next(iter(layer.mapping(physical, 1)))[2]
        self.raw[at : at + len(data)] = data

    def write_virtual(self, layer: Any, address: int, data: bytes) -> None:
        """Change virtual memory."""
        self.write(layer.translate(address)[0], data)

    def map_over_and_over(self, size: int, page: bytes) -> None:
        """Map one physical page throughout `size` bytes from `DEEP` on."""
        data, table = self.free.pop(), self.free.pop()
        self.write(data, page)
        self.write(table, struct.pack("<Q", data | LEAF) * 512)
        tables = self.machine.physical.page(self.directory & -PAGE_SIZE)
        assert tables is not None
        (entry,) = struct.unpack_from("<Q", tables, (self.directory & 0xFFF) + 8 * (DEEP >> 30))
        directory = entry & (1 << 52) - PAGE_SIZE
        for index in range(size // LARGE):
            self.write(directory + 8 * ((DEEP >> 21 & 511) + index), struct.pack("<Q", table | TABLE))

    def give_stack(self, tid: int, size: int) -> None:
        """Let a thread's TEB and trap frame say that its stack is the `size` bytes from `DEEP` on."""
        thread = next(thread for thread in self.process.threads if thread.tid == tid)
        esp = self.machine.layout.offset("_KTRAP_FRAME.HardwareEsp")
        self.write_virtual(self.layer, thread.teb + 4, struct.pack("<II", DEEP + size, DEEP))
        self.write_virtual(self.session.kernel_layer, thread.trap_frame + esp, struct.pack("<I", DEEP))


def return_address_into_filter(patched: Patched) -> int:
    """Return a word that a call in UnhandledExceptionFilter leaves on the stack."""
    target = patched.process.program
    (_, start), *_ = target.symbols.find("UnhandledExceptionFilter")
    return next(start + at for at in range(5, 0x800) if is_after_call(target.memory, start + at))


@pytest.mark.parametrize("is_decoy", [True, False], ids=["return addresses into the filter", "plain words"])
def test_a_stack_of_one_page_costs_no_other_thread_its_row(
    forged: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_decoy: bool
):
    """64 MB, four times what is looked at: each page is the same, and says that the thread is in the filter."""
    folder, _ = forged("ftp-2003")
    size = 64 << 20
    with open_dump(folder / "MEMORY.DMP", folder / "isf") as session:
        machine = opened(session)
        expected = rows(machine)
        patched = Patched(session, machine, bytearray((folder / "MEMORY.DMP").read_bytes()))
        word = return_address_into_filter(patched) if is_decoy else 0x11111111
        patched.map_over_and_over(size, struct.pack("<1024I", *[word] * 1024))
        patched.give_stack(DECOY, size)
        (tmp_path / "MEMORY.DMP").write_bytes(patched.raw)
    with (
        open_dump(tmp_path / "MEMORY.DMP", folder / "isf") as session,
        caplog.at_level(logging.WARNING, "throwstack.volatility.survey"),
    ):
        found = rows(opened(session))
    assert found[CRASHED] == expected[CRASHED]
    reason = "the budget of 16,777,216 bytes of stack looked at for a thread is spent"
    if is_decoy:
        assert reason in found[DECOY][NOTES]
    else:
        assert f"stuck threads may have been missed: iftpsvc.exe (PID {PID}): thread {DECOY}: {reason}" in caplog.text


def rows(machine: Machine) -> dict[int, tuple[Any, ...]]:
    """Return the rows of all processes by thread id."""
    survey = Survey(machine, Selection())
    return {
        finding.thread.tid: tuple(str(value) for value in row(CRASH_COLUMNS, crash_row(machine, finding)))
        for finding in survey.findings()
    }
