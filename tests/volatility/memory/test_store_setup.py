# SPDX-License-Identifier: Apache-2.0
"""How the compressed stores are found: by the kernel's variables, and by the process that owns them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.support.store_memory import FILE, GLOBALS, KERNEL, NOISE, OWNER, TEXT, Laid, lay
from throwstack.core.memory import Memory
from throwstack.volatility.memory.store_setup import StoreFinder

BUILD_NUMBER = KERNEL + 0x300000
DIRECTORY = 0x1234000
OFFSETS = {"_EPROCESS.ImageFileName": 0x450, "_EPROCESS.Pcb.DirectoryTableBase": 0x28}
SYMBOLS = {"?SmGlobals@@3U_SM_GLOBALS@@A": GLOBALS, "NtBuildNumber": BUILD_NUMBER}


class Offsets:
    """The offsets of this test."""

    def find(self, path: str) -> int | None:
        return OFFSETS.get(path)


def finder(change: Callable[[Laid], None] | None = None, symbols: dict[str, int] = SYMBOLS) -> StoreFinder:
    kernel, owner = lay()
    kernel.put(BUILD_NUMBER, "I", 0xF0000000 | 17763)
    kernel.write(OWNER + 0x450, b"MemCompression\0")
    kernel.put(OWNER + 0x28, "Q", DIRECTORY)
    if change is not None:
        change(kernel)
    spaces = {DIRECTORY: owner}
    return StoreFinder(Offsets(), Memory(kernel), 8, symbol=symbols.get, space=lambda base: spaces.get(base, Laid()))


def test_pages_are_read_from_the_owning_process():
    found = finder()
    assert (found.page(FILE, 0x1234), found.page(FILE, 5)) == (TEXT, NOISE)
    assert found.reasons == ()


def test_sm_globals_may_have_its_undecorated_name():
    assert finder(symbols={"SmGlobals": GLOBALS, "NtBuildNumber": BUILD_NUMBER}).page(FILE, 5) == NOISE


REFUSED = [
    pytest.param(lambda kernel: kernel.put(BUILD_NUMBER, "I", 0xF0000000 | 22621), "build 22621 (x64)", id="build"),
    pytest.param(lambda kernel: kernel.pages.pop(BUILD_NUMBER), "build number is not in the dump", id="no build"),
    pytest.param(lambda kernel: kernel.write(OWNER + 0x450, b"MemCompressor\0"), "owner is not", id="somebody else"),
    pytest.param(lambda kernel: kernel.write(OWNER + 0x450, b"System\0"), "owner is not", id="System"),
    pytest.param(lambda kernel: kernel.pages.pop(OWNER), "owner is not", id="owner not in the dump"),
    pytest.param(lambda kernel: kernel.put(OWNER + 0x28, "Q", 0x5000), "data is not in the dump", id="other tables"),
    # The owner of a later build, read by the layout of an earlier one: the structure itself contradicts.
    pytest.param(lambda kernel: kernel.put(BUILD_NUMBER, "I", 0xF0000000 | 19041), "owner is not", id="other layout"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_a_store_that_cannot_be_read_is_warned_of_once(
    change: Callable[[Laid], None], reason: str, caplog: pytest.LogCaptureFixture
):
    found = finder(change)
    with caplog.at_level(logging.WARNING):
        assert (found.page(FILE, 0x1234), found.page(FILE, 5)) == (None, None)
    assert len(found.reasons) == len(caplog.records) == 1
    assert reason in found.reasons[0]
    assert reason in caplog.text


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_store_whose_variables_the_symbols_lack_is_not_read(name: str):
    found = finder(symbols={key: value for key, value in SYMBOLS.items() if key != name})
    assert found.page(FILE, 5) is None
    assert found.reasons == ("the kernel's symbols do not name SmGlobals and NtBuildNumber",)
