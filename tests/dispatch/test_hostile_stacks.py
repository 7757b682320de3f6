# SPDX-License-Identifier: Apache-2.0
"""Stacks full of words that look right: the search ends, does not raise, and keeps to its own rules."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_contexts import x64_context, x86_context
from tests.forge.stacks import Stack
from tests.targets import make_target
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.exception_pointers import scan_pointers
from throwstack.dispatch.search import MAX_NESTED, FoundExceptions, SearchStart, exceptions_in_flight
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x045B8000, 0x045BC000
NTDLL = Module("ntdll.dll", r"C:\WINDOWS\system32\ntdll.dll", 0x7C800000, 0xC0000)
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
SYMBOLS = {
    "ntdll.dll": {
        "KiUserExceptionDispatcher": 0x1000,
        "RtlRaiseException": 0x2000,
        "RtlDispatchException": 0x3000,
        "__report_gsfailure": 0x4000,
        "GS_ExceptionRecord": 0x50000,
        "GS_ContextRecord": 0x50800,
        "RtlUnwindEx": 0x5000,
    },
    "kernel32.dll": {"UnhandledExceptionFilter": 0x1000},
}
CODE = [NTDLL.base + 0x1000 * page + 0x10 for page in range(1, 6)] + [KERNEL32.base + 0x1010]


def target_of(arch: Arch, data: bytes, walk: Walk) -> Target:
    return make_target(arch, [NTDLL, KERNEL32], {LIMIT: data, NTDLL.base + 0x50000: data[:0x1000]}, SYMBOLS, walk)


def hostile(arch: Arch, seed: int) -> bytes:
    """A stack of plausible words, with CONTEXTs among them whose ip and sp are as plausible."""
    rng = random.Random(seed)
    size = arch.pointer_size
    words = (
        lambda: rng.randrange(LIMIT, BASE, 4),
        lambda: rng.randrange(LIMIT, BASE, 16),
        lambda: rng.choice(CODE),
        lambda: rng.choice((0xC0000005, 0xE06D7363, 0x10007, 0x10005F, 0, 15, 1 << 31)),
        lambda: rng.getrandbits(8 * size),
    )
    count = (BASE - LIMIT) // size
    data = bytearray(struct.pack(f"<{count}{'Q' if size == 8 else 'I'}", *(rng.choice(words)() for _ in range(count))))
    for _ in range(rng.randrange(6)):
        at = rng.randrange(0, BASE - LIMIT - 0x500, 16)
        context = bytearray(x64_context(0x10005F) if arch is Arch.X64 else x86_context(flags=0x10007))
        ip, sp = (0xF8, 0x98) if arch is Arch.X64 else (0xB8, 0xC4)
        context[ip : ip + size] = rng.choice(CODE).to_bytes(size, "little")
        context[sp : sp + size] = rng.randrange(LIMIT, BASE + 8, size).to_bytes(size, "little")
        data[at : at + len(context)] = context
    return bytes(data)


def frames(arch: Arch, seed: int) -> tuple[Frame, ...]:
    rng = random.Random(seed)
    found = []
    for sp in sorted(rng.sample(range(LIMIT, BASE, 16), rng.randrange(8))):
        names = arch.register_names
        values = {name: rng.choice((None, rng.randrange(LIMIT, BASE, 8))) for name in names}
        ip = rng.choice(CODE)
        gpr = tuple(sp if index == 4 else values[name] for index, name in enumerate(names))
        found.append(Frame(Registers(ip, gpr), sp + 8, rng.choice((*CODE, 0, None)), sp + 12, rng.choice(list(Trust))))
    return tuple(found)


def check(target: Target, found: FoundExceptions) -> None:
    stack = StackBounds(LIMIT, BASE)
    assert len(found.exceptions) <= MAX_NESTED
    sps = [item.context.registers.sp for item in found.exceptions]
    assert sps == sorted(set(sps))
    for item in found.exceptions:
        sp = item.context.registers.sp
        assert stack.contains(sp) or sp == BASE
        assert item.context.has_plausible_flags
        assert item.context.has_user_selectors
        assert item.record.code
        assert target.images.is_code(item.context.registers.ip) or item.record.address == item.context.registers.ip
        if stack.contains(item.context.address):
            assert item.context.address < sp


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    arch=st.sampled_from(list(Arch)),
    seeds=st.tuples(st.integers(0, 1 << 32), st.integers(0, 1 << 32)),
    proves=st.booleans(),
    is_complete=st.booleans(),
    registrations=st.none() | st.lists(st.integers(LIMIT // 4, BASE // 4 + 2).map(lambda word: 4 * word), max_size=8),
)
def test_nothing_on_a_stack_makes_the_search_raise(
    arch: Arch, seeds: tuple[int, int], proves: bool, is_complete: bool, registrations: list[int] | None
):
    walked = frames(arch, seeds[1])
    target = target_of(arch, hostile(arch, seeds[0]), Walk(walked, End.THREAD_START))
    chain = registrations if arch is Arch.X86 else None
    blocked = SearchStart(walked, LIMIT, is_complete, proves, chain)
    check(target, exceptions_in_flight(target, StackBounds(LIMIT, BASE), blocked))


class CountingMemory(Memory):
    """Counts the reads of structures."""

    __slots__ = ("reads",)

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        return super().read(address, size)


@pytest.mark.parametrize("arch", list(Arch))
def test_a_stack_of_nothing_but_pointers_to_contexts_costs_a_bounded_number_of_checks(arch: Arch):
    """Every pair of words leads to a record and a CONTEXT: a bounded number of them is read."""
    base = LIMIT + (8 << 20)
    size = arch.pointer_size
    context = x64_context(0x10005F) if arch is Arch.X64 else x86_context(flags=0x10007)
    pair = struct.pack("<QQ" if size == 8 else "<II", base - 0x100, base - 0x1000)
    stack = Stack(base - 0x1000, base).raw(context).data()
    data = pair * ((base - LIMIT - 0x1000) // len(pair)) + stack
    target = target_of(arch, data, Walk((), End.THREAD_START))
    counting = CountingMemory(target.memory)
    watched = Target(arch, counting, target.images, target.symbols, target.unwinder)
    assert list(scan_pointers(watched, StackBounds(LIMIT, base), LIMIT, base)) == []
    assert 0 < counting.reads < 50_000


def test_the_search_ends_where_exceptions_lead_back_to_themselves():
    """The stack that threw has the dispatcher's frame of the same exception on it: each step must lead outwards."""
    at, stack = LIMIT + 0x1000, Stack(LIMIT, BASE)
    context = bytearray(x64_context(0x10005F))
    struct.pack_into("<Q", context, 0x98, at + 0x700)
    struct.pack_into("<Q", context, 0xF8, CODE[0])
    stack.at(at).raw(bytes(context))
    stack.at(at + 0x4F0).d32(0xC0000005, 0).d64(0, CODE[0], 0)
    dispatcher = Frame(Registers.named(Arch.X64, {"rip": CODE[0], "rsp": at}), at, 0, None, Trust.CFI)
    target = target_of(Arch.X64, stack.data(), Walk((dispatcher,), End.THREAD_START))
    found = exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart((dispatcher,), at))
    assert len(found.exceptions) == 1
