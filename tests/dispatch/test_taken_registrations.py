# SPDX-License-Identifier: Apache-2.0
"""Whether a handler has taken an exception on x86: what is left of the thread's chain of exception registrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.support.taken_scenes import APP, CONTEXT, HANDLED, LOW, NTDLL, OF_BLOCK, RECORD, SIZE, scene, thrown
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.dispatch.taken import Answer, Registered, Taken, taken

NODE, OUTER_NODE = LOW + 0x400, CONTEXT + 0x200
IN_NTDLL, IN_APP = NTDLL.base + 0x500, APP.base + 0x500


def with_chain(*chain: int, handler: int = IN_APP, low: int = LOW, of: tuple[int, ...] = (), **scenery) -> Answer:
    """Ask where a handler was called and the whole chain has no registration for the exception.

    The registration at `NODE` has `handler`. `of` are the registrations by which other exceptions are found.
    """
    target, frames = scene(Arch.X86, *HANDLED, more={NODE + 4: handler}, **scenery)
    found = tuple(replace(thrown(Arch.X86, ip=0x402000), frame_sp=node) for node in of)
    return taken(target, thrown(Arch.X86), frames, low, Registered(found, chain, is_known=True))


def test_on_x86_registrations_of_the_block_that_runs_are_sound():
    assert with_chain(NODE, OUTER_NODE).taken is Taken.YES


@pytest.mark.parametrize("low", [LOW, NODE])
def test_on_x86_a_registration_whose_handler_is_not_code_is_damaged(low):
    assert with_chain(NODE, handler=0x1234, low=low) == Answer(
        Taken.UNKNOWN, f"the handler 0x1234 of the exception registration at {NODE:#x} is not code"
    )


def test_on_x86_a_registration_that_cannot_be_read_is_damaged():
    assert with_chain(LOW - 0x800, low=LOW - 0x1000) == Answer(
        Taken.UNKNOWN, f"the handler 0x0 of the exception registration at {LOW - 0x800:#x} is not code"
    )


def test_on_x86_registrations_of_other_parts_of_the_stack_say_nothing_of_the_exception():
    assert with_chain(NODE, OF_BLOCK, handler=0x1234, low=NODE + 4).taken is Taken.YES
    assert with_chain(OF_BLOCK, CONTEXT, handler=0x1234).taken is Taken.YES
    assert with_chain(CONTEXT - 4, handler=0x1234).taken is Taken.UNKNOWN


MAY_BE_OF_DISPATCH = Answer(
    Taken.UNKNOWN, f"the exception registration at {NODE:#x} may be ExecuteHandler's, and no exception is found by it"
)
OF_DISPATCH = {8: OUTER_NODE, 0x14: RECORD, 0x18: OUTER_NODE, 0x1C: CONTEXT}
"""What ExecuteHandler's registration has, by offsets: the registration that is asked, and the arguments."""


def with_ntdlls(words: Mapping[int, int], of: tuple[int, ...] = ()) -> Answer:
    """Ask where the registration at `NODE` has a handler of ntdll and is followed by `words`, given by offsets."""
    data = [words.get(offset, 0x61) for offset in range(8, 0x30, 4)]
    return with_chain(NODE, handler=IN_NTDLL, of=of, arguments=tuple(data), at=NODE + 8)


@pytest.mark.parametrize("lost", [(), (8,), (0x14,), (0x18,), (0x1C,), (0x14, 0x18), (8, 0x18), (0x18, 0x1C)])
def test_on_x86_a_registration_that_is_like_that_of_a_dispatch_leaves_it_open(lost):
    """Words of it are lost, so that no exception is found by it."""
    words = {offset: word for offset, word in OF_DISPATCH.items() if offset not in lost}
    assert with_ntdlls(words) == MAY_BE_OF_DISPATCH
    assert with_ntdlls(words, of=(OUTER_NODE,)) == MAY_BE_OF_DISPATCH
    assert with_ntdlls(words, of=(OUTER_NODE, NODE)).taken is Taken.YES


LAST_NODE, LOST_NODE = LOW + SIZE - 8, 0x20000000
"""A registration at the end of the stack's last page, and one that is not in the dump."""


@pytest.mark.parametrize(
    "words",
    [{8: LAST_NODE, 0x1C: CONTEXT}, {8: LOST_NODE, 0x14: RECORD, 0x18: LOST_NODE}],
    ids=["at the end of memory", "not in the dump"],
)
def test_on_x86_two_words_of_a_dispatch_are_enough_wherever_the_registration_is_that_was_asked(words):
    assert with_ntdlls(words) == MAY_BE_OF_DISPATCH


@pytest.mark.parametrize(
    "words",
    [
        {},
        {8: IN_NTDLL, 0xC: 0, 0x10: NODE + 0x40, 0x14: IN_NTDLL},
        {8: 0xFFFFFFFE, 0x18: 0xFFFFFFFE},
        {8: OUTER_NODE},
        {0x18: RECORD, 0x1C: CONTEXT},
        {8: NODE + 0x40, 0x1C: CONTEXT},
        {8: CONTEXT, 0x1C: CONTEXT},
        {8: LAST_NODE + 4, 0x1C: CONTEXT},
        {8: OUTER_NODE + 1, 0x1C: CONTEXT, 0x2C: 0},
    ],
    ids=[
        *("nothing", "a __try block's", "words alike", "one word", "side by side", "further in", "the CONTEXT"),
        *("no whole registration", "at an odd address"),
    ],
)
def test_on_x86_other_functions_of_ntdll_have_registrations_as_well(words):
    """Example: a catch block loads a DLL, and the DLL's DllMain waits. LdrLoadDll has a __try block."""
    assert with_ntdlls(words).taken is Taken.YES


def test_on_x86_a_registration_of_ntdll_s_on_a_lost_page_leaves_it_open():
    """What is in it is on the next page, which is not there."""
    target, frames = scene(Arch.X86, *HANDLED)
    data = target.memory.read(LOW, SIZE)
    node = LOW + SIZE - 8
    memory = memory_of({LOW: data[:-4] + IN_NTDLL.to_bytes(4, "little")})
    item = thrown(Arch.X86)
    item = replace(item, context=replace(item.context, address=LOW + 2 * SIZE))
    answer = taken(replace(target, memory=memory), item, frames, LOW, Registered((), (node,), is_known=True))
    assert "may be ExecuteHandler's" in answer.why


def test_on_x86_the_registration_whose_handler_was_asked_is_in_the_chain():
    """RtlUnwind unlinks the registrations further in than the one whose handler took it, but not that one."""
    asked = {"arguments": (RECORD, OUTER_NODE, CONTEXT), "at": LOW + 0x88}
    assert with_chain(OF_BLOCK, OUTER_NODE, **asked).taken is Taken.YES
    assert with_chain(NODE, OUTER_NODE, **asked).taken is Taken.YES
    assert with_chain(OF_BLOCK, OUTER_NODE + 0x100, **asked) == Answer(
        Taken.UNKNOWN,
        f"the exception registration at {OUTER_NODE:#x}, whose handler was asked, is not in the thread's chain",
    )


@pytest.mark.parametrize(("chain", "expected"), [((NODE, OUTER_NODE), Taken.YES), ((NODE,), Taken.UNKNOWN)])
def test_on_x86_of_several_registrations_that_were_asked_one_is_in_the_chain(chain, expected):
    """The arguments of two frames: 0x40 bytes are between them."""
    words = (RECORD, OUTER_NODE + 0x100, CONTEXT, *[0] * 13, RECORD, OUTER_NODE, CONTEXT)
    answer = with_chain(*chain, arguments=words, at=LOW + 0x88)
    assert answer.taken is expected
    assert (f"registration at {OUTER_NODE + 0x100:#x}" in answer.why) is (expected is Taken.UNKNOWN)
