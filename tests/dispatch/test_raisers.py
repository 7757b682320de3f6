# SPDX-License-Identifier: Apache-2.0
"""Exceptions whose record and CONTEXT name different instructions, because software raised them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.forge.stacks import Stack
from tests.support.context_records import x64_context, x86_context
from tests.support.given_names import GivenNames
from tests.support.targets import make_target
from tests.unwind.x64 import assembler as asm
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.raisers import captures_itself, is_in_raiser, is_plausible_record
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.search import SearchStart, exceptions_in_flight
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
NTDLL = Module("ntdll.dll", "", 0x7FFA_1000_0000, 0x20_0000)
KERNELBASE = Module("KERNELBASE.dll", "", 0x7FFA_0800_0000, 0x20_0000)
APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
JIT = 0x7FF6_8000_0000
CORECLR = Module("coreclr.dll", "", 0x7FFA_0400_0000, 0x20_0000)
NAMES = {
    "ntdll.dll": {
        "RtlRaiseException": 0x4000,
        "RtlRaiseStatus": 0x5000,
        "RtlDispatchException": 0x6000,
        "KiUserExceptionDispatch": 0x8000,
    },
    "KERNELBASE.dll": {"RaiseException": 0x1000, "UnhandledExceptionFilter": 0x2000, "RaiseFailFastException": 0x3000},
}
IN_DISPATCH, IN_RAISE_STATUS = NTDLL.base + 0x6100, NTDLL.base + 0x5051
IN_RTL_RAISE, IN_RAISE, IN_FILTER = NTDLL.base + 0x4080, KERNELBASE.base + 0x1068, KERNELBASE.base + 0x2100
IN_FAIL_FAST, IN_APP = KERNELBASE.base + 0x3100, APP.base + 0x1234
AT = LIMIT + 0x8000


def put_context(stack: Stack, address: int, *, rip: int, rsp: int) -> None:
    data = bytearray(x64_context(0x10005F))
    struct.pack_into("<Q", data, 0x98, rsp)
    struct.pack_into("<Q", data, 0xF8, rip)
    stack.at(address).raw(bytes(data))


def put_record(
    stack: Stack, address: int, *, code: int, ip: int, parameters: tuple[int, ...] = (), flags: int = 1
) -> None:
    stack.at(address).d32(code, flags).d64(0, ip).d32(len(parameters), 0).d64(*parameters)


def frame(ip: int, sp: int, return_address: int = 0, return_slot: int | None = None, **gpr: int) -> Frame:
    registers = Registers.named(Arch.X64, {"rip": ip, "rsp": sp, **gpr})
    return Frame(registers, sp, return_address, return_slot, Trust.CFI)


def search(stack: Stack, *frames: Frame, proves_exception: bool = False) -> tuple[SavedException, ...]:
    memory = {LIMIT: stack.data(), JIT: b"\x90" * 0x1000}
    walk = Walk(frames, End.THREAD_START)
    target = make_target(Arch.X64, [NTDLL, KERNELBASE, APP, CORECLR], memory, NAMES, walk)
    start = SearchStart(frames, LIMIT, is_complete=True, proves_exception=proves_exception)
    return exceptions_in_flight(target, StackBounds(LIMIT, BASE), start).exceptions


@pytest.mark.parametrize("record_ip", [IN_RAISE_STATUS, IN_APP, NTDLL.base + 0x5000])
def test_rtlraisestatus_has_a_context_of_its_own_state_in_its_frame(record_ip: int):
    """ntdll of 17763 and 26100: the record at rsp+0x20, the CONTEXT at rsp+0xC0, above the sp that it holds."""
    stack = Stack(LIMIT, BASE)
    put_record(stack, AT + 0x20, code=0xC0000008, ip=record_ip)
    put_context(stack, AT + 0xC0, rip=IN_RAISE_STATUS, rsp=AT)
    raiser = frame(IN_RAISE_STATUS + 0x20, AT, IN_APP, AT + 0x5A8)
    (found,) = search(stack, frame(IN_DISPATCH, LIMIT + 0x4000), raiser, frame(IN_APP, AT + 0x5B0))
    assert (found.record.location, found.context.address) == (AT + 0x20, AT + 0xC0)
    assert (found.record.code, found.routes) == (0xC0000008, (Route.RAISE,))


def test_the_kernel_may_dispatch_what_rtlraisestatus_raises():
    """With a debugger attached, it calls ZwRaiseException: the kernel copies record and CONTEXT to the dispatcher."""
    stack, raise_sp = Stack(LIMIT, BASE), AT + 0x800
    for at, record in ((AT, AT + 0x4F0), (raise_sp + 0xC0, raise_sp + 0x20)):
        put_context(stack, at, rip=IN_RAISE_STATUS, rsp=raise_sp)
        put_record(stack, record, code=0xC0000008, ip=IN_APP)
    raiser = frame(IN_RAISE_STATUS, raise_sp, IN_APP, raise_sp + 0x5A8)
    (found,) = search(stack, frame(NTDLL.base + 0x8010, AT), raiser, frame(IN_APP, raise_sp + 0x5B0))
    assert (found.record.location, found.context.address) == (AT + 0x4F0, AT)
    assert found.routes == (Route.DISPATCHER, Route.RAISE)


def test_a_context_above_its_sp_is_refused_where_no_raiser_captured_it():
    stack = Stack(LIMIT, BASE)
    put_record(stack, AT + 0x20, code=0xC0000008, ip=IN_APP)
    put_context(stack, AT + 0xC0, rip=IN_APP, rsp=AT)
    raiser = frame(IN_RAISE_STATUS + 0x20, AT, IN_APP, AT + 0x5A8)
    assert search(stack, frame(IN_DISPATCH, LIMIT + 0x4000), raiser, frame(IN_APP, AT + 0x5B0)) == ()


def raised_anew(stack: Stack, record_ip: int) -> tuple[Frame, Frame]:
    """A record of a fault in RaiseException's frame, a CONTEXT of RaiseException, and pointers to both further in."""
    raise_sp = AT + 0x600
    put_context(stack, AT + 0x60, rip=IN_RAISE, rsp=raise_sp)
    put_record(stack, raise_sp + 0x20, code=0xC0000005, ip=record_ip, parameters=(0, 8))
    stack.at(AT - 0x200).d64(raise_sp + 0x20, AT + 0x60)
    return frame(IN_RTL_RAISE, AT, IN_RAISE, raise_sp - 8), frame(IN_RAISE, raise_sp)


@pytest.mark.parametrize("record_ip", [JIT + 0x1C, IN_APP])
def test_a_runtime_may_raise_a_fault_anew_with_the_address_of_the_fault(record_ip: int):
    """.NET Core 3.1 and 8: an unhandled NullReferenceException, whose record names a JIT instruction."""
    stack = Stack(LIMIT, BASE)
    (found,) = search(stack, *raised_anew(stack, record_ip))
    assert (found.record.code, found.record.address) == (0xC0000005, record_ip)
    assert (found.context.registers.ip, found.routes) == (IN_RAISE, (Route.RAISE, Route.POINTERS))


def test_the_pointers_alone_lead_to_a_fault_that_was_raised_anew():
    stack = Stack(LIMIT, BASE)
    raised_anew(stack, JIT + 0x1C)
    (found,) = search(stack, proves_exception=True)
    assert (found.record.address, found.routes) == (JIT + 0x1C, (Route.POINTERS,))


@pytest.mark.parametrize("record_ip", [0, 0x1234, NTDLL.base - 0x10])
def test_what_a_record_raised_anew_names_is_code(record_ip: int):
    stack = Stack(LIMIT, BASE)
    assert search(stack, *raised_anew(stack, record_ip), proves_exception=True) == ()


def ended_by_clr(stack: Stack, *, code: int = 0x80131623, ip: int = CORECLR.base + 0x1000, flags: int = 0) -> Frame:
    """.NET 8, Environment.FailFast: a function of the runtime at AT has pointers, record, and CONTEXT in its frame."""
    put_record(stack, AT + 0x40, code=code, ip=JIT + 0xF_0000, flags=flags)  # the page is lost
    put_context(stack, AT + 0xE0, rip=ip, rsp=AT)
    stack.at(AT + 0x30).d64(AT + 0x40, AT + 0xE0)
    return frame(ip + 0x20, AT)


def test_the_runtime_of_net_ends_its_process_with_a_record_of_its_own() -> None:
    stack = Stack(LIMIT, BASE)
    runtime = ended_by_clr(stack)
    frames = frame(IN_FILTER, AT - 0x400), runtime, frame(IN_APP, AT + 0x1000)
    (found,) = search(stack, *frames, proves_exception=True)
    assert (found.record.location, found.context.address) == (AT + 0x40, AT + 0xE0)
    assert (found.record.code, found.routes) == (0x80131623, (Route.POINTERS,))


@pytest.mark.parametrize("other", [{"code": 0xC0000005}, {"code": 0x80070057}, {"ip": IN_APP}, {"flags": 2}], ids=str)
def test_nothing_else_in_a_frame_of_its_own_is_such_a_record(other: dict[str, int]) -> None:
    stack = Stack(LIMIT, BASE)
    frames = frame(IN_FILTER, AT - 0x400), ended_by_clr(stack, **other), frame(IN_APP, AT + 0x1000)
    assert search(stack, *frames, proves_exception=True) == ()


def test_a_record_of_the_runtime_in_another_functions_frame_is_stale() -> None:
    stack = Stack(LIMIT, BASE)
    ended_by_clr(stack)
    frames = frame(IN_FILTER, AT - 0x400), frame(IN_APP, AT - 0x200), frame(IN_APP, AT + 0x1000)
    assert search(stack, *frames, proves_exception=True) == ()


def test_record_and_context_of_two_instructions_of_the_program_are_no_pair():
    stack = Stack(LIMIT, BASE)
    put_context(stack, AT + 0x60, rip=IN_APP, rsp=AT + 0x600)
    put_record(stack, AT + 0x620, code=0xC0000005, ip=IN_APP + 0x20)
    stack.at(AT - 0x200).d64(AT + 0x620, AT + 0x60)
    assert search(stack, proves_exception=True) == ()


@pytest.mark.parametrize("home", [True, False])
def test_raisefailfastexception_is_given_record_and_context(home: bool):
    """They are in the home space of its caller, or in nonvolatile registers."""
    stack, caller_sp = Stack(LIMIT, BASE), AT + 0x600
    record, context = caller_sp + 0x1000, caller_sp + 0x1100
    put_record(stack, record, code=0xC0000005, ip=IN_APP, parameters=(1, 0))
    put_context(stack, context, rip=IN_APP, rsp=caller_sp + 0x2000)
    stack.at(caller_sp).d64(*((record, context) if home else (1, 2)))
    registers = {} if home else {"rbx": context, "rsi": record}
    fails = frame(IN_FAIL_FAST, AT, IN_APP + 0x40, caller_sp - 8, **registers)
    (found,) = search(stack, fails, frame(IN_APP + 0x40, caller_sp))
    assert (found.record.location, found.context.address) == (record, context)
    assert found.routes[0] is Route.FAIL_FAST_FRAME


@pytest.mark.parametrize("own", [True, False])
def test_raisefailfastexception_captures_a_context_that_it_is_not_given(own: bool):
    """combase gives a record with the stowed exception, and no CONTEXT."""
    stack, caller_sp = Stack(LIMIT, BASE), AT + 0x600
    record = caller_sp + 0x100
    put_record(stack, record, code=0xC000027B, ip=IN_APP, parameters=(0x1234, 1))
    put_context(stack, AT + 0x80, rip=IN_FAIL_FAST - 0x40 if own else IN_APP + 0x40, rsp=AT if own else caller_sp)
    stack.at(caller_sp).d64(record, 0)
    fails = frame(IN_FAIL_FAST, AT, IN_APP + 0x40, caller_sp - 8)
    (found,) = search(stack, fails, frame(IN_APP + 0x40, caller_sp))
    assert (found.record.code, found.record.location, found.context.address) == (0xC000027B, record, AT + 0x80)


def test_raisefailfastexception_builds_both_of_its_callers_state():
    stack, caller_sp = Stack(LIMIT, BASE), AT + 0x600
    put_record(stack, AT + 0x30, code=0xC0000602, ip=IN_APP + 0x40)
    put_context(stack, AT + 0xD0, rip=IN_APP + 0x40, rsp=caller_sp)
    fails = frame(IN_FAIL_FAST, AT, IN_APP + 0x40, caller_sp - 8)
    (found,) = search(stack, fails, frame(IN_APP + 0x40, caller_sp))
    assert (found.record.code, found.record.location, found.context.address) == (0xC0000602, AT + 0x30, AT + 0xD0)


def test_raisefailfastexception_without_anything_to_find():
    stack = Stack(LIMIT, BASE)
    assert search(stack, frame(IN_FAIL_FAST, AT, IN_APP, AT + 0x5F8), frame(IN_APP, AT + 0x600)) == ()


KERNEL32 = Module("kernel32.dll", "", 0x75E0_0000, 0x10_0000)
APP32 = Module("app.exe", "", 0x0040_0000, 0x10000)
LIMIT32, BASE32 = 0x0018_8000, 0x0019_0000


@pytest.mark.parametrize("is_given", [True, False])
def test_raisefailfastexception_on_x86(is_given: bool):
    """The arguments are after the return address. Null ones are built in the frame, with the caller's state."""
    ebp, returns_to = LIMIT32 + 0x4000, APP32.base + 0x1040
    record, context = (ebp + 0x400, ebp + 0x500) if is_given else (ebp - 0x340, ebp - 0x2E0)
    ip = APP32.base + 0x1234 if is_given else returns_to
    stack = Stack(LIMIT32, BASE32)
    stack.at(ebp).d32(ebp + 0x40, returns_to, *((record, context, 0) if is_given else (0, 0, 0)))
    data = bytearray(x86_context(0x1007F))
    struct.pack_into("<I", data, 0xB8, ip)
    struct.pack_into("<I", data, 0xC4, ebp + 0x1000 if is_given else ebp + 8)
    stack.at(context).raw(bytes(data))
    stack.at(record).d32(0xC0000602, 1, 0, ip, 0)
    registers = Registers.named(Arch.X86, {"eip": KERNEL32.base + 0x3100, "esp": ebp - 0x380, "ebp": ebp})
    fails = Frame(registers, ebp, returns_to, ebp + 4, Trust.PROLOGUE)
    names = {"kernel32.dll": {"RaiseFailFastException": 0x3000}}
    walk = Walk((fails,), End.THREAD_START)
    target = make_target(Arch.X86, [KERNEL32, APP32], {LIMIT32: stack.data()}, names, walk)
    # No handler is asked, so that there is no registration of ExecuteHandler: that does not mean that one has taken it.
    start = SearchStart((fails,), LIMIT32, proves_exception=False, registrations=())
    (found,) = exceptions_in_flight(target, StackBounds(LIMIT32, BASE32), start).exceptions
    assert (found.record.location, found.context.address, found.record.address) == (record, context, ip)
    assert found.routes[0] is Route.FAIL_FAST_FRAME


READABLE, NOT_READABLE = 0x2_0000_0000, 0x3_0000_0000
LOW_MODULE = Module("low.dll", "", 0x7000_0000, 0x10000)


def small_process() -> Target:
    """A process with a module that has code from RVA 0x1000 on, one at an address like a code, and a readable page."""
    image = asm.ImageBuilder(b"\x90" * 0x100).build()
    memory = {APP.base: image, READABLE: bytes(0x1000), 0: bytes(0x1000)}
    return make_target(Arch.X64, [APP, LOW_MODULE], memory, {}, Walk((), End.THREAD_START))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({}, True, id="ordinary"),
        pytest.param({"code": 0x40000000}, True, id="the lowest code with a severity"),
        pytest.param({"code": 0x3FFFFFFF}, False, id="a success code"),
        pytest.param({"code": LOW_MODULE.base + 0x100}, False, id="an address for a code"),
        pytest.param({"flags": 0xFF}, True, id="all flags"),
        pytest.param({"flags": 0x100}, False, id="a flag that there is not"),
        pytest.param({"declared_parameters": 15}, True, id="15 parameters"),
        pytest.param({"declared_parameters": 16}, False, id="16 parameters"),
        pytest.param({"nested": READABLE}, True, id="another record"),
        pytest.param({"nested": NOT_READABLE}, False, id="another record that cannot be read"),
        pytest.param({"address": APP.base + 0x20}, False, id="an instruction in the headers"),
        pytest.param({"address": READABLE}, True, id="an instruction outside images"),
        pytest.param({"address": NOT_READABLE}, False, id="an instruction that cannot be read"),
        pytest.param({"address": 0}, False, id="no instruction"),
    ],
)
def test_what_can_be_the_record_of_an_exception_whatever_its_context_is(members: dict[str, int], expected: bool):
    ordinary = ExceptionRecord(0xC0000005, 0, APP.base + 0x1010, 0, (), 0, 0)
    assert is_plausible_record(small_process(), replace(ordinary, **members)) is expected


@pytest.mark.parametrize(
    ("name", "raises", "captures"),
    [
        ("ntdll!RtlRaiseException", True, False),
        ("ntdll!RtlRaiseStatus", True, True),
        ("kernel32!RaiseException", True, False),
        ("KERNELBASE!RaiseException", True, False),
        ("kernelbase!RaiseFailFastException", True, True),
        ("ntdll!RtlRaiseStatus?", False, False),
        ("app!RaiseException", False, False),
        ("app!RtlRaiseStatus", False, False),
        ("ntdll!RtlDispatchException", False, False),
    ],
)
def test_the_functions_that_raise_are_known_by_certain_names(name: str, raises: bool, captures: bool):
    for arch in Arch:
        made = make_target(arch, [], {}, {}, Walk((), End.THREAD_START))
        target = replace(made, symbols=GivenNames(made.images, {0x1000: name}))
        assert is_in_raiser(target, 0x1000) is raises
        # On x86, RtlCaptureContext captures what the function that calls it returns to.
        assert captures_itself(target, 0x1000) is (captures and arch is Arch.X64)
