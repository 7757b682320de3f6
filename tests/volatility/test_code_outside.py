# SPDX-License-Identifier: Apache-2.0
"""A thread in generated code, in a whole dump: its region's protection, and its registered unwind data."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases.machine_x64 import Site
from tests.forge.describe import Protection, Region
from tests.support.patched_memory import opened
from tests.support.volatility_session import open_dump
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX
from throwstack.core.frames import Trust
from throwstack.core.sides import Side
from throwstack.pages.code_regions import CodeRegions
from throwstack.volatility.processes import ProcessReader

PID, TID = 0x14B8, 0x14BC
JIT, TABLE = 0x21000000000, 0x22000000000
CODE = bytes.fromhex("53 4883ec20 ffd0 90 4883c420 5b cc")  # push rbx; sub rsp,20h; call rax; nop; …, no return
IN_CODE = JIT + 7
INFO = asm.unwind_info([asm.alloc(5, 0x20), asm.push_nonvol(1, RBX)], 5)


class GeneratingSite(Site):
    """A machine whose ntdll has a list of dynamic function tables with one table; the list's head is in .data."""

    def __init__(self) -> None:
        """Build the images once more, with the list."""
        super().__init__("generating")
        ntdll = self.system.images["ntdll"]
        head = ntdll.place_data(struct.pack("<QQ", TABLE, TABLE), writable=True)
        getter = ntdll.place_data(bytes(8))
        ntdll.data(getter, b"\x48\x8d\x05" + struct.pack("<i", head - (getter + 7)) + b"\xc3")
        ntdll.name_function("RtlGetFunctionTableListHead", getter, exported=True)
        self.head = head
        self._built = [(image, image.build()) for image in self.images]

    def table(self) -> bytes:
        """Return the DYNAMIC_FUNCTION_TABLE of the generated code, with its one entry 0x100 bytes after it."""
        members = struct.pack("<QQQQQQQ", self.head, self.head, TABLE + 0x100, 0, JIT, JIT + 0x1000, JIT)
        entry = struct.pack("<III", 0, len(CODE), 0x800)
        return (members + struct.pack("<QQQII", 0, 0, 0, 0, 1)).ljust(0x100, b"\0") + entry


@pytest.mark.parametrize("protection", [Protection.EXECUTE_READ, Protection.READ_WRITE])
def test_a_frame_of_generated_code_is_unwound_by_its_dynamic_function_table(tmp_path: Path, protection: Protection):
    """The thread waits in generated code, whose frame is on top of that of WaitForSingleObjectEx."""
    site = GeneratingSite()
    process, threads = site.service(PID)
    idle = threads.idle(TID, "main", 3000)
    sp = idle.thread.registers["rsp"] - 0x28
    idle.thread.registers |= {"rip": IN_CODE, "rsp": sp}
    site.add(process, replace(idle, frames=()))
    process.regions += [
        Region(JIT, CODE.ljust(0x800, b"\xcc") + INFO, protection),
        Region(TABLE, site.table()),
    ]
    forge(site.case(), tmp_path)
    user = [frame for frame in idle.frames if frame.ip < 1 << 47]
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        reader = ProcessReader(opened(session))
        found = reader.open(session.processes()[PID])
        assert found is not None
        (thread,) = found.threads
        stack = reader.stack(found, thread, Side.NATIVE)
        assert stack.registers is not None
        target = found.program
        walk = target.walk(stack.registers, stack.bounds)
        region = CodeRegions(found.pages).find(JIT)
    assert [(frame.ip, frame.child_sp) for frame in walk.frames] == [
        (IN_CODE, sp),
        *((frame.ip, frame.child_sp) for frame in user[1:]),
    ]
    assert walk.frames[1].trust is Trust.CFI
    assert walk.frames[1].note == f"dynamic function table at {TABLE:#x}"
    assert region is not None
    assert (region.start, region.is_executable) == (JIT, protection is Protection.EXECUTE_READ)
