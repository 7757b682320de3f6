# SPDX-License-Identifier: Apache-2.0
"""What scenes with code without unwind data are made of: a place for it, regions, and functions that call it."""

from __future__ import annotations

import struct

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBP
from tests.unwind.x64.scene import Scene
from throwstack.core.regions import Region, RegionKind

JIT = 0x20000000
FRAME = bytes.fromhex("554889e54883ec20")  # push rbp; mov rbp,rsp; sub rsp,20h
FRAME_INFO = asm.unwind_info([asm.alloc(8, 0x20), asm.set_fpreg(4), asm.push_nonvol(1, RBP)], 8, frame_register=RBP)
RETURN = bytes.fromhex("4883c4205dc3")


def calling(scene: Scene, name: str, target: int) -> int:
    """Add a function with a frame pointer that calls `target` by rax; return the return address."""
    call = b"\x48\xb8" + struct.pack("<Q", target) + b"\xff\xd0"
    return scene.add(name, FRAME + call + b"\x90" + RETURN, FRAME_INFO) + len(FRAME + call)


class Protected:
    """Regions of one page each: whether code can run there, by address."""

    def __init__(self, **pages: bool) -> None:
        self.pages = {int(name[1:], 16): is_executable for name, is_executable in pages.items()}

    def find(self, address: int) -> Region | None:
        start = address & -0x1000
        known = self.pages.get(start)
        return None if known is None else Region(start, start + 0x1000, RegionKind.PRIVATE, known)
