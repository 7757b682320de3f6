# SPDX-License-Identifier: Apache-2.0
"""Which names make a thread stuck: of the nearest symbol, of the next export; and an int 29h, which has no name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target
from tests.support.triage_stacks import (
    BASE,
    IN_EXIT,
    IN_FILTER,
    IN_SLEEP,
    IN_WAIT,
    KERNEL32,
    LIMIT,
    MSCOREE,
    NTDLL,
    SP,
    SYMBOLS,
    WAITING,
    Walks,
    is_suspect,
    registers,
    stack_of,
    target_of,
    walk,
)
from throwstack.core.frames import End, Frame, StackBounds, Trust
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.blockers import BlockerKind
from throwstack.names.function_extent import Certainty
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import Name, SymbolKind, Symbols, SymbolTable
from throwstack.stuck.suspects import may_be_in_function
from throwstack.stuck.triage import Examination, Triage
from throwstack.unwind.target import Target, ThreadStack


class NamesOfOthers(SymbolTable):
    """A table that knows functions it names nothing of: what lies far behind a symbol is one of these."""

    def locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        return tuple(replace(item, is_inside=rva - (item.rva or 0) < 0x200) for item in super().locate(rva))


@pytest.mark.parametrize(
    ("arch", "word", "is_stuck"),
    [
        (Arch.X86, IN_EXIT, True),
        (Arch.X86, IN_EXIT + 0x400, False),
        (Arch.X64, IN_FILTER, True),
        (Arch.X64, IN_FILTER + 0x400, False),
    ],
)
def test_a_function_that_only_has_the_name_of_the_nearest_symbol_blocks_nobody(arch: Arch, word: int, is_stuck: bool):
    triage, given = blocked_at(arch, word, End.THREAD_START)
    found = triage.examine(given)
    assert (found.stuck is not None) is is_stuck
    assert found.doubts == ()


def test_a_doubtful_name_of_the_filter_without_an_exception_is_a_doubt():
    triage, given = blocked_at(Arch.X86, IN_FILTER + 0x400, End.THREAD_START)
    found = triage.examine(given)
    assert found.stuck is None
    assert "may be in kernel32!UnhandledExceptionFilter, without an exception" in found.doubts[0]


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


def test_a_suspect_whose_walk_breaks_off_is_doubted_whatever_the_walk_goes_through():
    """The word that would lead on to the filter may be lost itself."""
    triage, given = blocked_at(Arch.X64, IN_EXIT + 0x400, End.BAD_UNWIND_DATA)
    doubt = f"the walk of the blocked stack ended early: {End.BAD_UNWIND_DATA.value}"
    assert triage.examine(given) == Examination(None, (doubt,))


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

    monkeypatch.setattr("throwstack.stuck.suspects.export_table", exports)
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(word)
    assert is_suspect(stack) is suspect


def test_a_blocker_whose_symbol_is_beyond_the_end_of_the_address_space_is_no_error() -> None:
    """kernel32 where no image can be, and a symbol table by which the filter is beyond 4 GiB."""
    end = Module("kernel32.dll", "", 0xFFFF0000, 0x10000)
    names = {"kernel32.dll": {"UnhandledExceptionFilter": 0xFFF0, "FatalAppExitA": 0x20000}}
    memory = {LIMIT: Stack(LIMIT, BASE).at(SP + 0x200).d32(0xFFFFFFF8).data()}
    assert Triage(make_target(Arch.X86, [end], memory, names, walk())).look_at(stack_of()).is_suspect


@pytest.mark.parametrize(
    ("certainty", "offset", "may_be"),
    [(Certainty.CERTAIN, 0x90000, True), (Certainty.LIKELY, 0x90000, False), (Certainty.DOUBTFUL, 0x55B, True)],
)
def test_a_part_apart_from_its_function_is_in_it_however_far_away(certainty: Certainty, offset: int, may_be: bool):
    name = Name(0x77900000, "ntdll", "RtlReportException", offset, SymbolKind.PDB, certainty=certainty)
    assert may_be_in_function(name) is may_be
