# SPDX-License-Identifier: Apache-2.0
"""Which plan holds at an address: for a frame that has called, and for one that was interrupted."""

from __future__ import annotations

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX, TEXT, Assembler, ImageBuilder
from throwstack.core.frames import End
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import SP
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.plan_cache import PlanCache
from throwstack.unwind.x64.unwind_plan import LEAF, UnwindPlan

BASE = 0x180000000
GENERATED = 0x20000000


def made() -> tuple[PlanCache, dict[str, int]]:
    """push rbx / sub rsp,20h / call next / add rsp,20h / pop rbx / ret, then a function without an entry."""
    code = Assembler()
    code.label("begin")
    code.push(RBX)
    code.sub_rsp(0x20)
    body = code.here
    code.call("next")
    code.label("after call")
    code.add_rsp(0x20)
    code.label("in epilogue")
    code.pop(RBX)
    code.ret()
    code.label("next")
    end = code.here
    code.ret()
    builder = ImageBuilder(code.assemble())
    builder.add(TEXT, end, asm.unwind_info([asm.alloc(body - TEXT, 0x20), asm.push_nonvol(1, RBX)], body - TEXT))
    image = builder.build()
    source = SegmentSource({BASE: image, GENERATED: b"\x90\x90\x90\x90\x90\x90\x90\x90\xff\xd0\x90"})
    images = ImageMap(Memory(source), ModuleMap([Module("made.dll", "", BASE, len(image))]))
    return PlanCache(images, Functions(images)), {name: BASE + rva for name, rva in code.labels.items()}


CALLED = UnwindPlan(((RBX, SP, 0x20),), (SP, 0x28))


def test_a_frame_that_has_called_uses_its_unwind_codes() -> None:
    plans, at = made()
    assert plans.called(at["after call"]) == CALLED
    assert plans.called(at["after call"]) is plans.called(at["after call"])  # worked out once


def test_a_frame_that_was_interrupted_in_its_epilogue_uses_the_instructions() -> None:
    plans, at = made()
    assert plans.interrupted(at["in epilogue"]) == UnwindPlan(((RBX, SP, 0),), (SP, 8))
    # as a return address the same place means the codes: a call before it has the whole frame
    assert plans.called(at["in epilogue"]) == CALLED


def test_the_function_of_a_return_address_is_the_one_that_holds_the_call() -> None:
    """A call that never returns may be the last instruction: the return address is then in the next function."""
    plans, at = made()
    assert plans.called(at["next"]) == CALLED
    assert plans.interrupted(at["next"]) is LEAF


def test_a_return_address_that_is_not_in_code() -> None:
    plans, _ = made()
    assert plans.called(BASE) == Stop(End.BAD_RETURN_ADDRESS, f"{BASE:#x}")
    assert plans.called(0x1234) == Stop(End.BAD_RETURN_ADDRESS, "0x1234")


def test_generated_code_has_no_plan_where_a_call_precedes() -> None:
    plans, _ = made()
    assert plans.called(GENERATED + 10) is None
    assert plans.called(GENERATED + 9) == Stop(End.BAD_RETURN_ADDRESS, f"{GENERATED + 9:#x}")
    assert plans.interrupted(GENERATED) is None
