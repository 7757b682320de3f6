# SPDX-License-Identifier: Apache-2.0
"""System call stubs in private memory, as libraries that hook system calls make them.

The hook replaces the first bytes of `ntdll!NtReadFile` by a jump to its own function. That function makes the system
call with a copy of the stub. So the frame of the copy is outside all images.
"""

from __future__ import annotations

import struct

import pytest

from tests.forge.cases import builders
from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    LEAVE,
    Assembler,
    mov,
    mov_value,
    pop,
    push,
    ret,
    sub,
)
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import Stack, walk
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import memory_of
from throwstack.core.registers import X86, Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.unwind.x86 import Unwinder

PRIVATE = 0x5000000
STUBS = {
    "KiFastSystemCall": ((mov_value(EAX, 0x107), mov_value(EDX, 0x7FFE0300), "ff12"), ret(0x14)),
    "WoW64, Windows 7": (
        (mov_value(EAX, 0x107), "33c9", "8d542404", "64ff15c0000000"),
        bytes.fromhex("83c404") + ret(8),
    ),
    "WoW64, Windows 10": ((mov_value(EAX, 0x107), mov_value(EDX, 0x77001000), "ffd2"), ret(8)),
}


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("is_popped", [True, False], ids=["gate popped its return address", "return address is there"])
@pytest.mark.parametrize("stub", STUBS)
def test_a_copy_of_a_stub_is_followed_to_its_return(stub, is_popped, has_symbols):
    """hook, an image's function, has called the copy, and the thread waits in the kernel."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("hook").label("back in start").emit("cc").align()
    asm.label("hook").emit(push(EBP), mov(EBP, ESP), push(ESI), sub(ESP, 8), "ffd0").label("back in hook")
    asm.emit("83c408", pop(ESI), LEAVE, ret()).align()
    asm.label("gate").emit(ret()).align()
    before, after = STUBS[stub]
    copy = Assembler(PRIVATE).emit(*before).label("back in copy").emit(after)
    back = copy.labels["back in copy"]
    removed = int.from_bytes(after[-2:], "little")
    # The gate of WoW64 up to Windows 7 leaves its return address, which the `add esp, 4` after the call removes.
    on_top = [] if is_popped and stub != "WoW64, Windows 7" else [back]
    stack = Stack(
        *("esp", *on_top, "stub returns", asm.labels["back in hook"], *range(1, removed // 4 + 1)),
        *(0, 0, 0x51, "ebp", 0, "hook returns", asm.labels["back in start"], 0, 0, 0),
    )
    eip = asm.labels["gate"] if on_top and stub != "WoW64, Windows 7" else back
    registers = {"eip": eip, "esp": stack["esp"], "ebp": stack["ebp"], "esi": 5, "ebx": 0xB, "edi": 0xD}
    segments = {PRIVATE: copy.finish().ljust(0x1000, b"\xcc")}
    found = walk(asm, stack, registers, has_symbols=has_symbols, segments=segments)
    names = [*([eip] if eip != back else []), back, asm.labels["back in hook"], asm.labels["back in start"]]
    assert [frame.ip for frame in found.frames] == names
    hook, start = found.frames[-2:]
    assert [hook.registers.gpr[number] for number in (EBX, ESI, EDI)] == [0xB, 5, 0xD]
    assert [start.registers.gpr[number] for number in (EBX, ESI, EDI)] == [0xB, 0x51, 0xD]
    assert found.is_complete
    assert {frame.trust for frame in found.frames[1:]} == {Trust.PROLOGUE}
    assert hook.registers.gpr[ECX] is None


def test_with_a_copied_stub_no_frame_of_the_reference_case_is_lost():
    """KiFastSystemCallRet returns to a copy; kernel32's return address is after a call of NtWaitForMultipleObjects."""
    case = builders()["ftp-2003"][0]()
    truth = case.truth.stuck[0]
    process = next(process for process in case.machine.processes if process.pid == truth.pid)
    thread = next(thread for thread in process.threads if thread.tid == truth.tid)
    gate, _, *outer = (frame for frame in truth.thread_stack if frame.ip < 0x80000000)
    copy = bytes.fromhex("b807010000 ba0003fe7f ff12 c21400")
    regions = {region.base: bytes(region.data) for region in process.regions}
    regions[PRIVATE] = copy.ljust(0x1000, b"\0")
    slot = gate.child_sp + 4
    base = next(base for base, data in regions.items() if base <= slot < base + len(data))
    data = bytearray(regions[base])
    struct.pack_into("<I", data, slot - base, PRIVATE + 12)
    regions[base] = bytes(data)
    modules = ModuleMap(Module(item.name, item.path, item.base, item.size) for item in process.modules)
    images = ImageMap(memory_of(regions), modules)
    found = Unwinder(images, Symbols(images)).walk(
        Registers.named(Arch.X86, thread.registers), StackBounds(thread.stack_limit, thread.stack_base)
    )
    assert [frame.ip for frame in found.frames] == [gate.ip, PRIVATE + 12, *(frame.ip for frame in outer)]
    assert found.end is End.THREAD_START
    for frame, true in zip(found.frames[2:], outer, strict=True):
        known = {X86.register_names[number]: frame.registers.gpr[number] for number in X86.nonvolatile}
        assert known == {name: true.registers[name] for name in known}
