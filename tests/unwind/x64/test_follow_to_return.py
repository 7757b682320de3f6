# SPDX-License-Identifier: Apache-2.0
"""Code without unwind data that moves the stack pointer, interrupted at every instruction."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64.scene import Scene
from throwstack.core.frames import Trust
from throwstack.core.registers import X64

# push rcx / push rax / cmp rax,1000h / lea rcx,[rsp+18h] / jb done / again: sub rcx,1000h / or [rcx],0 /
# sub rax,1000h / cmp rax,1000h / ja again / done: sub rcx,rax / or [rcx],0 / pop rax / pop rcx / ret
PROBE = bytes.fromhex(
    "51 50 483d00100000 488d4c2418 721a 4881e900100000 48830900 482d00100000 483d00100000 77e7 482bc8 48830900 58 59 c3"
)
PUSHED = {0: 0, 1: 1, 2: 2, 8: 2, 13: 2, 15: 2, 22: 2, 26: 2, 32: 2, 38: 2, 40: 2, 43: 2, 47: 2, 48: 1, 49: 0}
"""Words on the stack before the instruction at each offset."""


def register(walk, name: str) -> int | None:
    return walk.frames[1].registers.gpr[X64.register_names.index(name)]


@pytest.mark.parametrize(("offset", "pushed"), PUSHED.items())
def test_a_stack_probe_without_unwind_data_is_followed_to_its_return(offset, pushed):
    scene = Scene(PROBE)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(8 * pushed).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + offset, rsp=sp, rbp=0xB9, r12=12)
    assert walk.frames[0].return_slot == int(caller_sp) - 8
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    assert walk.frames[1].trust is (Trust.PROLOGUE if pushed else Trust.CFI)
    assert (register(walk, "rbp"), register(walk, "r12"), register(walk, "rcx")) == (0xB9, 12, None)
    assert walk.is_complete


@pytest.mark.parametrize(
    ("code", "rbx"),
    [
        ("4883c408 5b c3", 0x5A5A),  # add rsp,8 / pop rbx / ret
        ("488d642408 5b c3", 0x5A5A),  # lea rsp,[rsp+8] / pop rbx / ret
        ("7402 0f0b 59 5b eb01 cc c3", 0x5A5A),  # je over ud2; pop rcx / pop rbx / jmp over int3; ret
        ("53 5b 59 5b c3", 0x5A5A),  # push rbx / pop rbx / pop rcx / pop rbx / ret
        ("4883c408 488b1c24 4883c408 c3", None),  # add rsp,8 / mov rbx,[rsp] / add rsp,8 / ret
        ("53 5b 4883c410 c3", None),  # push rbx / pop rbx / add rsp,10h / ret: what was pushed may be another value
        ("488d642410 c3", 0xBAD),  # lea rsp,[rsp+10h] / ret
        ("4883ec08 4883c418 c3", 0xBAD),  # sub rsp,8 / add rsp,18h / ret
        ("4883c410 b301 c3", None),  # add rsp,10h / mov bl,1 / ret
        ("ffd0 ffd1 4883c408 5b c3", 0x5A5A),  # call rax / call rcx / add rsp,8 / pop rbx / ret
        ("e2ee 7502 ffd0 4883c410 c3", 0xBAD),  # loop to before / jne over call rax / add rsp,10h / ret
        ("9c 9d 669c 669d 4883c410 c3", 0xBAD),  # pushfq / popfq / pushf / popf / add rsp,10h / ret
        ("6653 665b 4883c410 c3", None),  # push bx / pop bx / add rsp,10h / ret
        ("ffd0 4883c408 5b ffe0", 0x5A5A),  # call rax / add rsp,8 / pop rbx / jmp rax
        ("4883c410 48ff20", 0xBAD),  # add rsp,10h / jmp [rax]
        ("4883c410 e900001000", 0xBAD),  # add rsp,10h / jmp 1 MiB ahead, where no code is in the dump
        ("7402 ffe2 4883c410 c3", 0xBAD),  # je over jmp rdx, a switch: no return address is on top / add rsp,10h / ret
    ],
)
def test_code_that_leads_to_a_return_gives_the_caller(code, rbx):
    scene = Scene(bytes.fromhex(code))
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(0, 0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbx=0xBAD, rsi=0x51)
    assert walk.frames[1].trust is Trust.PROLOGUE
    assert walk.frames[1].sp == int(caller_sp)
    assert (register(walk, "rbx"), register(walk, "rsi")) == (rbx, 0x51)


@pytest.mark.parametrize(
    "code",
    [
        *("e800000000 4883c410 c3", "488be1 c3", "4883c410 c20800", "ebfe", "c9 c3", "4883c410 cc", "06"),
        *("53 c3", "488d6008 4883c410 c3", "488d640c08 4883c408 c3", "4801c4 4883c410 c3", "5c c3", "480fc8 0f05 c3"),
    ],
)
def test_code_that_leads_to_no_return_is_guessed_at(code):
    # a call to the next instruction, rsp from rcx, `ret 8`, an endless loop, leave, no end, no instruction;
    # a return to what was pushed, lea rsp,[rax+8], lea rsp,[rsp+rcx+8], add rsp,rax, pop rsp, a system call
    scene = Scene(bytes.fromhex(code))
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(0, 0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbx=0xBAD)
    assert walk.frames[1].trust is Trust.SCAN
    assert register(walk, "rbx") is None
