# SPDX-License-Identifier: Apache-2.0
"""The CPU area of a WoW64 thread, as the versions of Windows write it, and words that are none."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from tests.forge.records import context_x86, cpu_area
from throwstack.core.memory import memory_of
from throwstack.volatility.objects.wow64 import Wow64Reader

TEB, TEB32, AREA = 0x7EFDB000, 0x7EFDD000, 0x20FD20
STACK_LIMIT, STACK_BASE = 0x18E000, 0x190000
ESP = 0x18F7A0
TLS_SLOTS = 0x1480
OFFSETS = {
    "_TEB.TlsSlots": TLS_SLOTS,
    "_WOW64_CPURESERVED.Machine": 2,
    "_TEB32.NtTib.ExceptionList": 0,
    "_TEB32.NtTib.StackBase": 4,
    "_TEB32.NtTib.StackLimit": 8,
    "_TEB32.NtTib.Self": 0x18,
}
SELECTORS = {"cs": 0x23, "ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B}
WINDOWS_7, WINDOWS_10 = (6, 1, 7601), (10, 0, 19041)


class Layout64:
    """The members above, as a `Layout` gives them."""

    def find(self, path: str) -> int | None:
        return OFFSETS.get(path)

    def size(self, name: str) -> int | None:
        return {"_WOW64_CPURESERVED": 4}.get(name)


def registers(**changed: int) -> dict[str, int]:
    names = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
    return {**dict.fromkeys(names, 0), "eip": 0x77D5F8BD, "esp": ESP, "eflags": 0x246, **SELECTORS, **changed}


def found(area: bytes) -> int | None:
    """Return eip of the CONTEXT that is found in a CPU area with these bytes, or None."""
    teb32 = struct.pack("<III", 0, STACK_BASE, STACK_LIMIT).ljust(0x18, b"\0") + struct.pack("<I", TEB32)
    teb = struct.pack("<Q", TEB32).ljust(TLS_SLOTS + 8, b"\0") + struct.pack("<Q", AREA)
    memory = memory_of({TEB: teb, TEB32: teb32, AREA: area})
    layout = Layout64()
    reader = Wow64Reader(SimpleNamespace(memory=memory, layout=layout, wow64=layout))  # type: ignore[arg-type]
    context = reader.cpu_context(memory, TEB)
    return None if context is None else context.registers.ip


@pytest.mark.parametrize("version", [WINDOWS_7, WINDOWS_10])
@pytest.mark.parametrize("flags", [0x1002F, 0x1007F, 0x10007])
def test_the_registers_of_32_bit_code_are_in_the_cpu_area(version, flags):
    assert found(cpu_area(registers(), flags, version)) == 0x77D5F8BD


@pytest.mark.parametrize(
    "area",
    [
        bytes(0x300),
        struct.pack("<HH", 0, 0x1C4) + context_x86(registers(), 0x1007F),  # ARM
        cpu_area(registers(), 0, WINDOWS_7),
        cpu_area(registers(), 0x100007, WINDOWS_7),  # the flags of an x64 CONTEXT
        cpu_area(registers(cs=0x33), 0x1007F, WINDOWS_7),
        cpu_area(registers(esp=STACK_BASE + 0x40), 0x1007F, WINDOWS_7),
    ],
)
def test_what_is_no_cpu_area_of_the_thread_is_refused(area):
    assert found(area) is None


def test_with_its_machine_a_context_may_be_on_another_stack():
    """A fiber has a stack of its own, which the TEB may not have yet."""
    assert found(cpu_area(registers(esp=0x500000), 0x1007F, WINDOWS_10)) is not None
