# SPDX-License-Identifier: Apache-2.0
"""The stuck thread's user stack of `ftp-2003`, laid out function by function, with the words that no call explains."""

from __future__ import annotations

from tests.forge.cases.ftp_dispatch import CONTEXT, POINTERS, dispatching_functions
from tests.forge.cases.ftp_images import COM_ERROR_VFTABLE, THROW_INFO, Library
from tests.forge.cases.ftp_throw import COM_ERROR, HRESULT, RECORD, throwing_functions
from tests.forge.cases.ftp_wait import waiting_functions
from tests.forge.chains_x86 import Chain
from tests.forge.records import context_x86
from tests.forge.stacks import Stack

STACK_LIMIT, STACK_BASE = 0x045B6000, 0x045C0000
RECORD_WORDS = (0xE06D7363, 1, 0, 0x77E4BEE7, 3, 0x19930520, COM_ERROR, THROW_INFO)
CXR = {
    "eax": 0x045BAB68,
    "ebx": 0x033F97FE,
    "ecx": 0,
    "edx": 0x045BAC00,
    "esi": 0x045BABF0,
    "edi": 0,
    "eip": 0x77E4BEE7,
    "esp": 0x045BAB64,
    "ebp": 0x045BABB8,
    "eflags": 0x206,
    "cs": 0x1B,
    "ss": 0x23,
    "ds": 0x23,
    "es": 0x23,
    "fs": 0x3B,
    "gs": 0,
}

# Words of the transcript that no call explains, by address.
LOCALS = {
    0x045BA3B8: 0x045BA3F0,
    0x045BA3BC: 0x79F7394A,
    0x045BA454: 0x79E70000,  # mscorwks, found by mscoree
    0x045BA868: RECORD,
    0x045BA86C: 0x045BFFDC,
    0x045BA870: 0x045BA85C,
    0x045BA874: 0x77E61A60,
    0x045BCC64: 0x78158ED7,  # a return address into _CallSettingFrame, left from running the catch block
    0x045BCC68: 0x045BF9B0,
    0x045BFFD8: POINTERS,  # where BaseThreadStart's filter looks for them
    0x045BFFF4: 0x781329E1,
    0x045BFFF8: 0x03266678,
}


def stuck_stack(library: Library) -> tuple[Stack, Chain, int]:
    """Return the stuck thread's user stack, the calls on it, and how many of them threw."""
    stack = Stack(STACK_LIMIT, STACK_BASE)
    for address, word in LOCALS.items():
        stack.at(address).d32(word)
    stack.at(RECORD).d32(*RECORD_WORDS)
    stack.at(CONTEXT).raw(context_x86(CXR, 0x10007))
    stack.at(0x045BABD0).d32(*RECORD_WORDS[:3], 0, *RECORD_WORDS[4:])  # _CxxThrowException's own copy
    stack.at(COM_ERROR).d32(COM_ERROR_VFTABLE, HRESULT, 0, 0)
    stack.at(0x045BA040).d32(0x2B8, 0x2C0)  # the handles that USER32 waits for
    chain, threw = lay_out(stack, library)
    return stack, chain, threw


def lay_out(stack: Stack, library: Library) -> tuple[Chain, int]:
    """Lay the whole thread out on `stack`, put its code into the images; return it and how many frames threw."""
    throwing = throwing_functions(library)
    functions = [*throwing, *dispatching_functions(library), *waiting_functions(library)]
    chain = Chain(stack, 0x045BFFF0)
    for module, function in functions:
        image = library[module]
        image.code(function.start, function.emit())
        image.name_function(function.name, function.start)
        if function.calls:
            chain.enter(function)
        else:
            chain.enter(function, ip=function.start)
    return chain, len(throwing)
