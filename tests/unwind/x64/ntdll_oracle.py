# SPDX-License-Identifier: Apache-2.0
"""Windows' own unwinder as an oracle: RtlVirtualUnwind of a real ntdll.dll, run in an emulator.

No such file is part of the project: it is used where THROWSTACK_PE_DIRS holds one. The context that comes back is
compared with what our plan for the same address finds on the same (random) stack.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import capstone
import unicorn
from unicorn import x86_const

from tests.unwind.x64.pe_files import open_image
from throwstack.core.memory import Memory
from throwstack.core.registers import X64
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import Image
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.plan_cache import PlanCache
from throwstack.unwind.x64.unwind_plan import UnwindPlan

_STACK, _STACK_SIZE = 0x10000000, 0x200000
_WORK = 0x20000000
_TEB = 0x21000000
_OTHER_BASE = 0x7FF600000000
_STOP = 0x22000000
_CONTEXT = _WORK + 0x1000
_RIP, _RAX, _SIZE = 0xF8, 0x78, 0x4D0
_GPR = [0x78 + 8 * number for number in range(16)]


class Oracle:
    """One ntdll in the emulator, unwinding its own functions or those of another image."""

    def __init__(self, ntdll: Path, image: Path | None = None) -> None:
        opened = open_image(ntdll)
        assert opened is not None
        images, ntdll_image = opened
        exports = {export.name: export.rva for export in ntdll_image.exports}
        self._routine = ntdll_image.base + exports["RtlVirtualUnwind"]
        uc = self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._map(images.memory, ntdll_image)
        if image is not None and image != ntdll:
            other = open_image(image, _OTHER_BASE)
            assert other is not None
            images, self.image = other
            self._map(images.memory, self.image)
        else:
            self.image = ntdll_image
        for start, size in ((_STACK, _STACK_SIZE), (_WORK, 0x10000), (_TEB, 0x2000), (_STOP, 0x1000)):
            uc.mem_map(start, size)
        teb = bytearray(0x2000)
        struct.pack_into("<QQ", teb, 8, _STACK + _STACK_SIZE, _STACK)
        struct.pack_into("<Q", teb, 0x30, _TEB)
        uc.mem_write(_TEB, bytes(teb))
        uc.reg_write(x86_const.UC_X86_REG_GS_BASE, _TEB)
        self.images = images
        look_up = ntdll_image.base + exports["RtlLookupFunctionEntry"]
        uc.hook_add(unicorn.UC_HOOK_CODE, self._look_up, begin=look_up, end=look_up)
        self.functions = Functions(images)
        self._plans = PlanCache(images, self.functions)
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.random = random.Random(1)
        self.stack = self.random.randbytes(_STACK_SIZE)
        self._own = 0x40000
        """The lower part of the stack is what RtlVirtualUnwind itself runs on."""

    def _map(self, memory: Memory, image: Image) -> None:
        size = image.module.size + 0xFFF & ~0xFFF
        self.uc.mem_map(image.base, size)
        self.uc.mem_write(image.base, memory.read(image.base, size))

    def _look_up(self, uc: unicorn.Uc, *_: object) -> None:
        """Stand in for RtlLookupFunctionEntry, which wants a process with a loader: it is asked for jumps' targets."""
        rva = uc.reg_read(x86_const.UC_X86_REG_RCX) - self.image.base
        uc.mem_write(uc.reg_read(x86_const.UC_X86_REG_RDX), struct.pack("<Q", self.image.base))
        slot, entry = next(((s, e) for s, e in enumerate(self._table) if e.begin <= rva < e.end), (0, None))
        directory = self.image.headers.exception_directory[0]
        uc.reg_write(x86_const.UC_X86_REG_RAX, self.image.base + directory + 12 * slot if entry else 0)
        sp = uc.reg_read(x86_const.UC_X86_REG_RSP)
        uc.reg_write(x86_const.UC_X86_REG_RSP, sp + 8)
        uc.reg_write(x86_const.UC_X86_REG_RIP, struct.unpack("<Q", uc.mem_read(sp, 8))[0])

    @cached_property
    def _table(self) -> list[RuntimeFunction]:
        rva, size = self.image.headers.exception_directory
        table = range(self.image.base + rva, self.image.base + rva + size, 12)
        return [RuntimeFunction.read(self.images.memory, address) for address in table]

    def entries(self) -> Iterator[RuntimeFunction]:
        """Yield the image's function entries."""
        return (entry for entry in self._table if entry.is_plausible)

    def instructions(self, entry: RuntimeFunction) -> list[int]:
        """Return the addresses of an entry's instructions, as far as they decode in a row."""
        code = self.images.memory.read(self.image.base + entry.begin, entry.end - entry.begin)
        return [address for address, *_ in self._decoder.disasm_lite(code, self.image.base + entry.begin)]

    def random_registers(self) -> list[int]:
        """Return general registers that all point into the stack, so that any may be a frame register."""
        return [_STACK + _STACK_SIZE // 2 + 8 * self.random.randrange(0x1000) for _ in range(16)]

    def theirs(self, ip: int, entry: RuntimeFunction, gpr: list[int]) -> tuple[int, int, list[int]]:
        """Return rip, rsp and the nonvolatile registers that RtlVirtualUnwind finds."""
        uc = self.uc
        context = bytearray(_SIZE)
        struct.pack_into("<I", context, 0x30, 0x10000F)
        struct.pack_into("<16Q", context, _RAX, *gpr)
        struct.pack_into("<Q", context, _RIP, ip)
        uc.mem_write(_CONTEXT, bytes(context))
        uc.mem_write(_WORK, struct.pack("<III", entry.begin, entry.end, entry.unwind))
        uc.mem_write(_STACK, self.stack)
        sp = _STACK + self._own - 8
        frame = struct.pack("<QQQQQQQQQ", _STOP, 0, 0, 0, 0, _CONTEXT, _WORK + 0x100, _WORK + 0x110, 0)
        uc.mem_write(sp, frame)
        uc.reg_write(x86_const.UC_X86_REG_RSP, sp)
        uc.reg_write(x86_const.UC_X86_REG_RCX, 0)
        uc.reg_write(x86_const.UC_X86_REG_RDX, self.image.base)
        uc.reg_write(x86_const.UC_X86_REG_R8, ip)
        uc.reg_write(x86_const.UC_X86_REG_R9, _WORK)
        uc.emu_start(self._routine, _STOP, count=20000)
        after = bytes(uc.mem_read(_CONTEXT, _SIZE))
        values = struct.unpack_from("<16Q", after, _RAX)
        (rip,) = struct.unpack_from("<Q", after, _RIP)
        return rip, values[4], [values[number] for number in X64.nonvolatile]

    def _word(self, address: int) -> int:
        value: int = struct.unpack_from("<Q", self.stack, address - _STACK)[0]
        return value

    def ours(self, ip: int, gpr: list[int]) -> tuple[int, int, list[int]] | str | None:
        """Return the same by our plan for `ip`; None if the frame is larger than the stack."""
        plan = self._plans.interrupted(ip)
        if not isinstance(plan, UnwindPlan):
            return str(plan)
        slot = gpr[plan.result[0]] + plan.result[1]
        if slot >= _STACK + _STACK_SIZE - 64:
            return None
        values = list(gpr)
        for register, anchor, offset in plan.saves:
            values[register] = self._word(gpr[anchor] + offset)
        sp = self._word(slot + 24) if plan.is_machine_frame else slot + 8
        return self._word(slot), sp, [values[number] for number in X64.nonvolatile]

    def function(self, ip: int) -> Function | None:
        """Return our view of the function at `ip`."""
        found = self.functions.find(ip)
        return found if isinstance(found, Function) else None
