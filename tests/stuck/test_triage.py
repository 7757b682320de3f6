# SPDX-License-Identifier: Apache-2.0
"""The cheap question about a stack, and what the walk makes of it, on stacks laid out here word by word."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from tests.support.x86_saved import CONTEXT_IP, put_context, put_record
from throwstack.core.budgets import BUDGETS, Budget, Budgets, Meter
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.blockers import BlockerKind
from throwstack.names.symbols import LocatedFunction, SymbolKind, Symbols, SymbolTable
from throwstack.stuck.triage import Examination, Triage
from throwstack.unwind.target import Target, ThreadStack

LIMIT, BASE = 0x045B8000, 0x045C0000
SP = LIMIT + 0x1000
KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x100000)
NTDLL = Module("ntdll.dll", r"C:\WINDOWS\system32\ntdll.dll", 0x7C800000, 0xC0000)
MSCOREE = Module("mscoree.dll", r"C:\WINDOWS\system32\mscoree.dll", 0x79000000, 0x46000)
SYMBOLS = {
    "kernel32.dll": {"UnhandledExceptionFilter": 0x3608D, "RaiseException": 0xBE94, "Sleep": 0x1000},
    "ntdll.dll": {"ZwWaitForSingleObject": 0x27CFB, "RtlRaiseException": 0x285FF},
    "mscoree.dll": {"CorExitProcess": 0x4F65},
}
FILTER = KERNEL32.base + 0x3608D
IN_FILTER = FILTER + 0x12A
IN_WAIT, IN_SLEEP, IN_EXIT = NTDLL.base + 0x27D07, KERNEL32.base + 0x1020, MSCOREE.base + 0x4FAB
FILTER_EBP = 0x045BA77C


class Walks:
    """An unwinder that knows one walk for each place it may start from."""

    def __init__(self, walks: Mapping[int, Walk]) -> None:
        self.walks = walks

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        return self.walks.get(registers.ip, Walk((), End.NO_RETURN_ADDRESS))


def registers(ip: int, sp: int) -> Registers:
    return Registers.named(Arch.X86, {"eip": ip, "esp": sp})


def frame(ip: int, sp: int, child_ebp: int) -> Frame:
    return Frame(registers(ip, sp), child_ebp, 0, child_ebp + 4, Trust.FRAME_POINTER)


OUTERMOST = frame(IN_SLEEP, BASE - 0x40, BASE - 0x14)


def walk(*frames: Frame, end: End = End.THREAD_START) -> Walk:
    return Walk(frames, end)


WAITING = frame(IN_WAIT, SP, SP + 0x10)
IN_A_SLEEP = frame(IN_SLEEP, SP + 0x20, SP + 0x40)


def target_of(memory: Mapping[int, bytes], walks: Mapping[int, Walk] | None = None) -> Target:
    made = make_target(Arch.X86, [KERNEL32, NTDLL, MSCOREE], memory, SYMBOLS, walk())
    return Target(made.arch, made.memory, made.images, made.symbols, Walks(walks or {}))


def stack_of(*, sp: int | None = SP, missing: str = "", exception_list: int | None = None) -> ThreadStack:
    bounds = StackBounds(LIMIT, BASE)
    return ThreadStack(bounds, None if sp is None else registers(IN_WAIT, sp), missing, exception_list)


def is_suspect(stack: Stack, **where: int | None) -> bool:
    return Triage(target_of({LIMIT: stack.data()})).look_at(stack_of(**where)).is_suspect


@pytest.mark.parametrize(
    ("word", "suspect"),
    [
        (IN_FILTER, True),
        (FILTER + 1, True),
        (FILTER, False),  # where the function starts is what data holds; no call has returned to it
        (FILTER + 0x4001, False),
        (KERNEL32.base + 0xBE95, False),
        (MSCOREE.base + 0x4FAB, True),
    ],
)
def test_a_word_inside_a_blocking_function_makes_a_suspect(word: int, suspect: bool):
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(word)
    assert is_suspect(stack) is suspect


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_an_address_at_an_unaligned_place_of_the_stack_makes_no_suspect(shift: int):
    data = bytearray(BASE - LIMIT)
    struct.pack_into("<I", data, SP - LIMIT + 0x200 + shift, IN_FILTER)
    assert not Triage(target_of({LIMIT: bytes(data)})).look_at(stack_of()).is_suspect


def test_an_unaligned_address_does_not_hide_an_aligned_one_after_it():
    data = bytearray(BASE - LIMIT)
    struct.pack_into("<I", data, SP - LIMIT + 0x201, IN_FILTER)
    struct.pack_into("<I", data, SP - LIMIT + 0x208, IN_FILTER)
    assert Triage(target_of({LIMIT: bytes(data)})).look_at(stack_of()).is_suspect


def test_words_below_the_stack_pointer_make_no_suspect():
    stack = Stack(LIMIT, BASE)
    stack.at(SP - 4).d32(IN_FILTER)
    assert not is_suspect(stack)
    assert is_suspect(stack, sp=SP - 4)


def test_without_registers_the_whole_stack_is_searched():
    stack = Stack(LIMIT, BASE)
    stack.at(LIMIT + 8).d32(IN_FILTER)
    assert is_suspect(stack, sp=None)


def test_absent_pages_do_not_end_the_search_of_a_stack():
    stack = Stack(LIMIT, BASE)
    stack.at(BASE - 0x100).d32(IN_FILTER)
    data = stack.data()
    there = {LIMIT: data[:0x2000], LIMIT + 0x5000: data[0x5000:0x6000], BASE - PAGE_SIZE: data[-PAGE_SIZE:]}
    assert Triage(target_of(there)).look_at(stack_of()).is_suspect


def test_a_stack_that_was_switched_to_is_searched_instead_of_the_one_of_the_teb():
    fiber, memory = 0x02000000, bytearray(PAGE_SIZE)
    struct.pack_into("<I", memory, 0x800, IN_FILTER)
    triage = Triage(target_of({fiber: bytes(memory), LIMIT: bytes(BASE - LIMIT)}))
    assert triage.look_at(stack_of(sp=fiber + 0x10)).is_suspect
    assert not triage.look_at(stack_of()).is_suspect


def crashed() -> tuple[Stack, Label]:
    """The thread of the reference case: UnhandledExceptionFilter with its argument, record and CONTEXT."""
    stack, pointers, record, saved = Stack(LIMIT, BASE), Label("pointers"), Label("record"), Label("context")
    stack.at(FILTER_EBP - 0x30).d32(IN_FILTER)
    stack.at(FILTER_EBP).d32(0x045BA7AC, 0x77E792A3, pointers)
    stack.at(0x045BA7A4).mark(pointers).d32(record, saved)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record)
    return stack, saved


IN_THE_FILTER = frame(IN_FILTER, FILTER_EBP - 0x2C, FILTER_EBP)


def test_a_walk_through_the_filter_finds_the_thread_stuck_on_its_argument():
    stack, saved = crashed()
    walks = {IN_WAIT: walk(WAITING, IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.blocked_in == (("kernel32", "UnhandledExceptionFilter"),)
    assert stuck.kinds == (BlockerKind.UNHANDLED_FILTER,)
    assert [item.context.address for item in stuck.exceptions] == [int(saved)]
    assert stuck.notes == ()


class FailsAtTheThrow(Walks):
    """An unwinder with a defect that shows on the stack that threw."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        if registers.ip == CONTEXT_IP:
            raise RecursionError
        return super().walk(registers, stack, trust=trust)


@pytest.mark.usefixtures("caught")
def test_an_exception_whose_throwing_walk_fails_is_reported_with_the_frame_that_threw():
    stack, saved = crashed()
    target = target_of({LIMIT: stack.data()})
    target = replace(target, unwinder=FailsAtTheThrow({IN_WAIT: walk(WAITING, IN_THE_FILTER)}))
    stuck = Triage(target).examine(stack_of()).stuck
    assert [item.context.address for item in stuck.exceptions] == [int(saved)]
    (throwing,) = stuck.throwing_walks
    assert [item.ip for item in throwing.frames] == [CONTEXT_IP]
    assert (throwing.end, throwing.detail) == (End.FAULT, "unexpected RecursionError")


def test_a_complete_walk_without_a_blocker_clears_the_thread_whatever_words_its_stack_has():
    stack, _ = crashed()
    walks = {IN_WAIT: walk(WAITING, IN_A_SLEEP, OUTERMOST), IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data()}, walks))
    assert triage.look_at(stack_of()).is_suspect
    assert triage.examine(stack_of()).stuck is None


def zero_in_the_middle(*frames: Frame) -> Walk:
    """A walk that went wrong and came to a zero, which it takes for the return address of a start routine."""
    return Walk(frames, End.THREAD_START)


def test_a_walk_that_ends_at_a_zero_in_the_middle_of_the_stack_clears_nobody():
    """On x86 a callee whose code is absent, on x64 one damaged byte of unwind data, lead a walk astray."""
    stack, saved = crashed()
    walks = {IN_WAIT: zero_in_the_middle(WAITING, IN_A_SLEEP), IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.notes[0] == "the walk of the blocked stack ends at 0x45b9020, far from its base at 0x45c0000"


def test_a_doubt_names_a_word_into_the_filter_after_a_zero_at_which_the_walk_ended():
    stack, _ = crashed()
    triage = Triage(target_of({LIMIT: stack.data()}, {IN_WAIT: zero_in_the_middle(WAITING, IN_A_SLEEP)}))
    found = triage.examine(stack_of())
    assert found.stuck is None
    assert found.doubts[-1].endswith("the word at 0x45ba74c leads to kernel32!UnhandledExceptionFilter+0x12a")


BROKEN = walk(WAITING, IN_A_SLEEP, end=End.NO_RETURN_ADDRESS)


def test_where_the_walk_ends_early_the_word_in_the_filter_is_walked_from_and_the_row_says_so():
    stack, saved = crashed()
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.exceptions[0].routes[0] is Route.FILTER_ARGUMENT
    assert stuck.blocked_walk is BROKEN
    assert stuck.notes == (
        "the walk of the blocked stack ended early: no return address found",
        f"found by the word at {FILTER_EBP - 0x30:#x}, which may be of an earlier time",
    )


def test_words_on_the_part_of_the_stack_that_a_walk_has_covered_are_not_walked_from():
    stack, _ = crashed()
    further = frame(IN_SLEEP, FILTER_EBP + 0x100, FILTER_EBP + 0x140)
    walks = {IN_WAIT: walk(WAITING, further, end=End.NO_RETURN_ADDRESS), IN_FILTER: walk(IN_THE_FILTER)}
    assert Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck is None


def test_a_word_that_no_call_precedes_is_not_walked_from():
    stack, _ = crashed()
    code = b"\x90" * PAGE_SIZE
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data(), IN_FILTER & -PAGE_SIZE: code}, walks))
    assert triage.examine(stack_of()).stuck is None


@pytest.mark.parametrize(("node", "is_stuck"), [(0x045BA800, True), (0x045BA000, False), (0x045BF000, False)])
def test_an_exception_without_a_nested_registration_is_no_longer_in_flight(node: int, is_stuck: bool):
    """While a handler is asked, the dispatcher's registration lies in the chain, between the filter and the CONTEXT."""
    stack, _ = crashed()
    stack.at(node).d32(0xFFFFFFFF, NTDLL.base + 0x1000)
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data()}, walks))
    assert (triage.examine(stack_of(exception_list=node)).stuck is not None) is is_stuck


def test_a_note_says_that_the_registers_are_missing():
    stack, saved = crashed()
    walks = {IN_FILTER: walk(IN_THE_FILTER)}
    stuck = (
        Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of(sp=None, missing="trap frame is gone")).stuck
    )
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.notes[0] == "trap frame is gone"
    assert stuck.blocked_walk is None


def test_a_thread_in_shutdown_without_a_dispatch_has_no_exception_whatever_pointers_its_stack_has():
    stack, _ = crashed()
    walks = {IN_WAIT: walk(WAITING, frame(IN_EXIT, SP + 0x20, SP + 0x40), OUTERMOST)}
    stack.at(SP + 0x44).d32(IN_EXIT)
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.kinds == (BlockerKind.SHUTDOWN,)
    assert stuck.exceptions == ()
    assert stuck.notes == ()


def test_blockers_of_a_walk_that_ended_early_and_of_the_stack_after_it_are_named_together():
    stack, _ = crashed()
    stack.at(SP + 0x44).d32(IN_EXIT)
    broken = walk(WAITING, frame(IN_EXIT, SP + 0x20, SP + 0x40), end=End.NO_RETURN_ADDRESS)
    walks = {IN_WAIT: broken, IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.blocked_in == (("kernel32", "UnhandledExceptionFilter"), ("mscoree", "CorExitProcess"))
    assert len(stuck.exceptions) == 1


class NamesOfOthers(SymbolTable):
    """A table that knows functions it names nothing of: what lies far behind a symbol is one of these."""

    def locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        return tuple(replace(item, is_inside=rva - (item.rva or 0) < 0x200) for item in super().locate(rva))


@pytest.mark.parametrize(
    ("arch", "word", "is_stuck"),
    [
        (Arch.X86, IN_EXIT, True),
        (Arch.X86, IN_EXIT + 0x400, False),
        (Arch.X86, IN_FILTER + 0x400, True),
        (Arch.X64, IN_FILTER, True),
        (Arch.X64, IN_FILTER + 0x400, False),
    ],
)
def test_a_function_that_only_has_the_name_of_the_nearest_symbol_blocks_nobody(arch: Arch, word: int, is_stuck: bool):
    triage, given = blocked_at(arch, word, End.THREAD_START)
    found = triage.examine(given)
    assert (found.stuck is not None) is is_stuck
    assert found.doubts == ()


def blocked_at(arch: Arch, word: int, end: End) -> tuple[Triage, ThreadStack]:
    """A thread whose walk goes through `word` in a module that names few of its functions."""
    made = make_target(arch, [KERNEL32, NTDLL, MSCOREE], {}, {}, walk())
    symbols = Symbols(
        made.images,
        lambda image: NamesOfOthers(
            SymbolKind.EXPORT, ((rva, name) for name, rva in SYMBOLS[image.module.name].items())
        ),
    )
    known = Registers(word, (SP,) * len(arch.register_names))
    waiting = Frame(replace(known, ip=IN_WAIT), SP, 0, SP + 8, Trust.CONTEXT)
    blocked = Frame(known, SP + 0x10, 0, SP + 0x20, Trust.CFI)
    outermost = Frame(Registers(IN_SLEEP, (BASE - 0x40,) * len(arch.register_names)), BASE - 0x40, 0, None, Trust.CFI)
    target = Target(
        arch, made.memory, made.images, symbols, Walks({IN_WAIT: walk(waiting, blocked, outermost, end=end)})
    )
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x40).d64(word)
    target = replace(target, memory=memory_of({LIMIT: stack.data()}))
    return Triage(target), ThreadStack(StackBounds(LIMIT, BASE), waiting.registers)


def test_a_walk_that_ends_in_what_may_be_the_filter_is_no_proof_that_it_is_not():
    """On x64 one damaged entry of the function table ends the walk, and makes the name of its function doubtful."""
    triage, given = blocked_at(Arch.X64, IN_FILTER + 0x400, End.BAD_UNWIND_DATA)
    found = triage.examine(given)
    assert found.stuck is None
    assert found.doubts[-1].endswith("the frame at 0x77e765b7 may be in kernel32!UnhandledExceptionFilter")
    triage, given = blocked_at(Arch.X64, IN_EXIT + 0x400, End.BAD_UNWIND_DATA)
    assert triage.examine(given) == Examination(None)


@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("arch", [Arch.X86, Arch.X64])
def test_a_thread_that_waits_at_int_29h_failed_fast(arch: Arch, behind: int):
    """The kernel has it reported: there is no filter on its stack, and no CONTEXT."""
    at = NTDLL.base + 0x27D00
    registers = Registers(at + behind, (None, 7, None, None, SP, *(None,) * (len(arch.register_names) - 5)))
    first = Frame(replace(registers, ip=at), SP, 0, SP + 8, Trust.CONTEXT)
    code = bytearray(PAGE_SIZE)
    code[0xD00:0xD02] = b"\xcd\x29"
    made = make_target(arch, [KERNEL32, NTDLL, MSCOREE], {at & -PAGE_SIZE: bytes(code)}, SYMBOLS, walk(first))
    given = ThreadStack(StackBounds(LIMIT, BASE), registers)
    assert Triage(made).look_at(given).is_suspect
    stuck = Triage(made).examine(given).stuck
    (failure,) = stuck.exceptions
    assert (failure.record.code, failure.record.address, failure.record.parameters) == (0xC0000409, at, (7,))
    assert failure.context.registers.ip == at
    assert failure.found_by == "int 29h in the trap frame"
    assert stuck.blocked_in == (("ntdll", "ZwWaitForSingleObject"),)
    assert stuck.kinds == (BlockerKind.FAIL_FAST,)


def test_a_thread_at_any_other_instruction_did_not_fail_fast():
    code = bytearray(b"\x90" * PAGE_SIZE)
    code[0xD00:0xD02] = b"\xcd\x2e"  # a system call of old
    target = target_of({IN_WAIT & -PAGE_SIZE: bytes(code), LIMIT: bytes(BASE - LIMIT)}, {IN_WAIT: walk(WAITING)})
    for ip in (NTDLL.base + 0x27D00, NTDLL.base + 0x27D02, 0x100, 0):
        given = ThreadStack(StackBounds(LIMIT, BASE), registers(ip, SP))
        assert Triage(target).examine(given).stuck is None


@pytest.mark.parametrize(
    ("word", "suspect"),
    [(IN_EXIT, True), (MSCOREE.base + 0x5100, True), (MSCOREE.base + 0x5101, False), (IN_FILTER + 0x800, True)],
)
def test_an_address_after_the_next_export_belongs_to_that_export(
    monkeypatch: pytest.MonkeyPatch, word: int, suspect: bool
):
    """A call may be a function's last instruction: its return address is where the next one starts."""
    following = {"mscoree.dll": {"CorExitProcess": 0x4F65, "CorMarkThreadInThreadPool": 0x5100}}
    following["kernel32.dll"] = {"UnhandledExceptionFilter": 0x3608D, "WriteFile": 0x36200}

    def exports(image: Image) -> SymbolTable:
        names = following.get(image.module.name, {})
        return SymbolTable(SymbolKind.EXPORT, ((rva, name) for name, rva in names.items()))

    monkeypatch.setattr("throwstack.stuck.triage.export_table", exports)
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(word)
    assert is_suspect(stack) is suspect


DEEP = 0x10000000
DECOYS = 16 << 20


class OnePage:
    """A stack whose pages from `DEEP` on are one physical page, in front of what `source` has; counts the reads."""

    def __init__(self, source: PageSource, word: int, low: int = DEEP, high: int = DEEP + DECOYS) -> None:
        self.source, self.low, self.high = source, low, high
        self.data = struct.pack("<1024I", *[word] * 1024)
        self.reads = 0

    def page(self, address: int) -> bytes | None:
        if self.low <= address < self.high:
            self.reads += 1
            return self.data
        return self.source.page(address)


class WalksAt:
    """An unwinder that finds nothing but from one word on the stack, and counts the walks."""

    def __init__(self, sp: int, found: Walk) -> None:
        self.sp, self.found, self.walks = sp, found, 0

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        self.walks += 1
        return self.found if registers.sp == self.sp else Walk((), End.NO_RETURN_ADDRESS)


def aliased(word: int, low: int, high: int, meter: Meter | None = None) -> tuple[Target, OnePage, WalksAt]:
    """The crashed thread's stack, and decoys from `low` to `high`; only a walk from the true word leads anywhere."""
    stack, _ = crashed()
    made = target_of({LIMIT: stack.data()})
    source = OnePage(memory_of({LIMIT: stack.data()}), word, low, high)
    memory, unwinder = Memory(source), WalksAt(FILTER_EBP - 0x2C, walk(IN_THE_FILTER))
    target = replace(made, memory=memory, unwinder=unwinder)
    return (target if meter is None else replace(target, meter=meter)), source, unwinder


@pytest.mark.parametrize("where", ["below", "above"])
def test_the_true_word_is_found_among_millions_that_look_like_it(where: str):
    """All decoys lead into the filter. The true word is the one that a CONTEXT follows."""
    low, high = (LIMIT - DECOYS // 2, LIMIT) if where == "below" else (BASE, BASE + DECOYS // 2)
    target, _, unwinder = aliased(IN_FILTER, low, high)
    given = ThreadStack(StackBounds(min(low, LIMIT), max(high, BASE)), registers(IN_WAIT, min(low, SP)))
    triage = Triage(target)
    stuck = triage.examine(given).stuck
    assert [item.context.address for item in stuck.exceptions] == [0x045BA888]
    assert unwinder.walks <= 1 + BUDGETS.resumed.thread + 2
    assert any("most were left out" in note for note in stuck.notes)


def test_millions_of_decoys_cost_a_bounded_number_of_walks_and_little_memory_and_are_a_doubt():
    target, source, unwinder = aliased(IN_FILTER, DEEP, DEEP + DECOYS)
    triage = Triage(target)
    given = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
    tracemalloc.start()
    found = triage.examine(given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.stuck is None
    assert peak < 4 << 20
    assert unwinder.walks <= 1 + BUDGETS.resumed.thread
    assert source.reads <= 3 * DECOYS // PAGE_SIZE
    assert found.doubts[0].endswith("with words that lead into a blocking function: most were left out")


def test_the_cheap_question_costs_the_same_for_one_copy_of_a_module_and_for_hundreds():
    """Aliased page tables make 500 KERNEL32s of one for the price of a page."""
    copies = [replace(KERNEL32, base=0x20000000 + 0x200000 * index) for index in range(500)]
    reads = []
    for modules in ([KERNEL32], copies):
        made = make_target(Arch.X86, modules, {}, SYMBOLS, walk())
        source = OnePage(memory_of({}), 0x11111111)
        target = replace(made, memory=Memory(source))
        triage = Triage(target)
        given = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
        assert triage.examine(given) == Examination(None)
        reads.append(source.reads)
    assert reads == [DECOYS // PAGE_SIZE] * 2


def test_a_stack_is_not_searched_beyond_the_budget_and_that_is_a_doubt():
    """16 MB are in use at most in any real program; what is in the 17th may hide something."""
    size = BUDGETS.stack.thread + PAGE_SIZE
    target, source, _ = aliased(0x11111111, DEEP, DEEP + size)
    triage = Triage(target)
    given = ThreadStack(StackBounds(DEEP, DEEP + size), registers(IN_WAIT, DEEP))
    found = triage.examine(given)
    assert found.stuck is None
    assert source.reads == BUDGETS.stack.thread // PAGE_SIZE
    assert found.doubts == ("the budget of 16,777,216 bytes of stack looked at for a thread is spent",)


def test_a_thread_has_its_share_of_a_budget_that_earlier_threads_have_spent():
    budgets = Budgets(
        stack=Budget("bytes", 4 * PAGE_SIZE, 5 * PAGE_SIZE, 3 * PAGE_SIZE, 64 * PAGE_SIZE),
        resumed=Budget("words", 2, 4, 2, 64),
    )
    target, _, _ = aliased(IN_FILTER, DEEP, DEEP + DECOYS, Meter(budgets))
    triage = Triage(target)
    for _ in range(5):
        decoy = ThreadStack(StackBounds(DEEP, DEEP + DECOYS), registers(IN_WAIT, DEEP))
        found = triage.examine(decoy)
        assert found.stuck is None
        assert found.doubts
    crashed_thread = ThreadStack(StackBounds(LIMIT, BASE), registers(IN_WAIT, FILTER_EBP & -PAGE_SIZE))
    found = triage.examine(crashed_thread)
    assert found.stuck is not None, found.doubts
    assert found.stuck.exceptions


def test_a_blocker_whose_symbol_is_beyond_the_end_of_the_address_space_is_no_error() -> None:
    """kernel32 where no image can be, and a symbol table by which the filter is beyond 4 GiB."""
    end = Module("kernel32.dll", "", 0xFFFF0000, 0x10000)
    names = {"kernel32.dll": {"UnhandledExceptionFilter": 0xFFF0, "FatalAppExitA": 0x20000}}
    memory = {LIMIT: Stack(LIMIT, BASE).at(SP + 0x200).d32(0xFFFFFFF8).data()}
    assert Triage(make_target(Arch.X86, [end], memory, names, walk())).look_at(stack_of()).is_suspect
