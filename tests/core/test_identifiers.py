# SPDX-License-Identifier: Apache-2.0
"""Numbers as a user types them."""

from __future__ import annotations

import pytest

from throwstack.core.identifiers import address, identifier


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2564", 2564),  # digits only are decimal
        ("0x2564", 0x2564),
        ("a04", 0xA04),  # a letter makes it hexadecimal
        ("0xa04", 0xA04),
        ("A04", 0xA04),
        ("0`2564", 0x2564),  # and so does WinDbg's backtick
        ("12345678", 12345678),
    ],
)
def test_identifiers(text: str, number: int) -> None:
    assert identifier(text) == number


@pytest.mark.parametrize("text", ["", "-1", "12.5", "ftp", "0x", "1ffffffff", "٣", " 12", "1_000"])
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number|more than 32 bits"):
        identifier(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("045ba888", 0x45BA888),
        ("00123456", 0x123456),  # an address as WinDbg prints it, whose eight digits are all decimal ones
        ("0000001234567890", 0x1234567890),
        ("000000e3`b42fd0a0", 0xE3B42FD0A0),
        ("0x45ba888", 0x45BA888),
        ("73115784", 0x73115784),
        ("1234567", 1234567),
    ],
)
def test_addresses(text: str, number: int) -> None:
    assert address(text) == number


def test_an_address_has_at_most_64_bits() -> None:
    assert address("ffffffff`ffffffff") == (1 << 64) - 1
    with pytest.raises(ValueError, match="more than 64 bits"):
        address("ffffffffffffffffff")
