# SPDX-License-Identifier: Apache-2.0
"""Threads that wait at an int 29h: where it is, and the exception that the trap frame's registers stand for."""

from __future__ import annotations

import pytest

from tests.support.targets import make_target
from tests.unwind.x64 import assembler as asm
from throwstack.core.frames import End, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.fast_fail import fast_fail_at, fast_fail_exception
from throwstack.dispatch.saved_exception import Route
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
CODE = b"\xb9\x02\0\0\0\xcd\x29\xcc"  # mov ecx, 2; int 29h; int3
MOV, INT_29H, AFTER, END = (APP.base + 0x1000 + offset for offset in (0, 5, 7, 8))
PRIVATE = 0x2_0000_0000


def process(arch: Arch = Arch.X64, *, image: bytes = b"") -> Target:
    """A process with the code at RVA 0x1000 of its program, whose headers cannot be read unless `image` has them."""
    memory = {APP.base: image} if image else {APP.base + 0x1000: CODE}
    return make_target(arch, [APP], {**memory, PRIVATE: CODE}, {}, Walk((), End.THREAD_START))


@pytest.mark.parametrize("ip", [INT_29H, AFTER], ids=["at it", "after it"])
def test_the_processor_leaves_ip_at_the_int_29h_or_after_it(ip: int):
    assert fast_fail_at(process(), ip) == INT_29H


@pytest.mark.parametrize("ip", [MOV, END, APP.base + 0x8000], ids=["before it", "further on", "not readable"])
def test_a_thread_elsewhere_has_not_failed_fast(ip: int):
    assert fast_fail_at(process(), ip) is None


def test_an_int_29h_outside_images_may_be_anything():
    assert fast_fail_at(process(), PRIVATE + 5) is None


def test_the_64_bit_side_of_a_wow64_process_does_not_run_the_code_of_a_32_bit_image():
    """Both sides have the program among their modules. Its headers say whose code it is."""
    image = asm.ImageBuilder(CODE).build()  # of x64
    assert fast_fail_at(process(Arch.X64, image=image), INT_29H) == INT_29H
    assert fast_fail_at(process(Arch.X86, image=image), INT_29H) is None


def test_the_exception_has_the_registers_of_the_trap_frame_and_the_code_that_was_in_ecx():
    """EXCEPTION_NONCONTINUABLE (1) and STATUS_STACK_BUFFER_OVERRUN, as the kernel reports it; cx is register 1."""
    registers = Registers.named(Arch.X64, {"rip": AFTER, "rax": 7, "rcx": 0x5_8000_0003, "rdx": 9, "rsp": 0x7000})
    found = fast_fail_exception(Arch.X64, registers, INT_29H)
    record, context = found.record, found.context
    assert (record.code, record.flags, record.address, record.nested) == (0xC0000409, 1, INT_29H, 0)
    assert (record.parameters, record.declared_parameters) == ((0x8000_0003,), 1)
    assert (context.registers.ip, context.registers.gpr) == (INT_29H, registers.gpr)
    assert (found.routes, found.frame_sp) == ((Route.FAST_FAIL,), 0x7000)


def test_nothing_of_it_is_in_the_memory_of_the_process():
    found = fast_fail_exception(Arch.X86, Registers.named(Arch.X86, {"eip": AFTER, "esp": 0x7000}), AFTER)
    assert (found.record.location, found.context.address, found.where) == (0, 0, "no CONTEXT record")
    context = found.context
    unknown = (context.context_flags, context.eflags, context.cs, context.ss, context.ds, context.es, context.fs)
    assert {*unknown, context.gs} == {0}


def test_a_code_that_is_not_known_is_no_parameter():
    found = fast_fail_exception(Arch.X86, Registers.named(Arch.X86, {"eip": AFTER, "esp": 0x7000}), AFTER)
    assert (found.record.parameters, found.record.declared_parameters) == ((), 0)
