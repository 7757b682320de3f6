# SPDX-License-Identifier: Apache-2.0
"""Page-table entries written out by hand in the formats of several kernels, and what each of them says.

The bit positions are those that the kernels' PDBs give for _MMPTE_TRANSITION, _MMPTE_PROTOTYPE and _MMPTE_SOFTWARE.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throwstack.pages.page_table_entries import Bits, DecodedEntry, EntryKind, PteFormats

MASK = 1 << 45
WINDOWS_7 = PteFormats(8, Bits(12, 36), Bits(12, 36), Bits(16, 48), Bits(1, 4), Bits(32, 32), Bits(5, 5))
WINDOWS_10 = PteFormats(
    8, Bits(12, 36), Bits(12, 36), Bits(16, 48), Bits(12, 4), Bits(32, 32), Bits(5, 5), Bits(4, 1), MASK
)
UNKNOWN_MASK = PteFormats(
    8, Bits(12, 36), Bits(12, 36), Bits(16, 48), Bits(12, 4), Bits(32, 32), Bits(5, 5), Bits(4, 1), None
)
PAE = PteFormats(8, Bits(12, 26), Bits(12, 26), Bits(32, 32), Bits(1, 4), Bits(32, 32), Bits(5, 5))
X86 = PteFormats(4, Bits(12, 20), Bits(12, 20), None, Bits(1, 4), Bits(12, 20), Bits(5, 5))

READ_WRITE = 4 << 5
PROTOTYPE, TRANSITION, SWIZZLED = 1 << 10, 1 << 11, 1 << 4


@pytest.mark.parametrize(
    ("formats", "entry", "expected"),
    [
        pytest.param(WINDOWS_7, 0, DecodedEntry(EntryKind.EMPTY), id="empty"),
        pytest.param(
            WINDOWS_7, 0x12345 << 12 | TRANSITION | READ_WRITE, DecodedEntry(EntryKind.TRANSITION, 0x12345), id="7"
        ),
        pytest.param(X86, 0xABCDE << 12 | TRANSITION, DecodedEntry(EntryKind.TRANSITION, 0xABCDE), id="x86"),
        pytest.param(
            WINDOWS_7,
            0xF8A0_01234560 << 16 | PROTOTYPE,
            DecodedEntry(EntryKind.PROTOTYPE, 0xFFFFF8A0_01234560),
            id="the address's sign bits come back",
        ),
        pytest.param(PAE, 0xE1234568 << 32 | PROTOTYPE, DecodedEntry(EntryKind.PROTOTYPE, 0xE1234568), id="PAE"),
        pytest.param(
            X86, 0x1234 << 11 | PROTOTYPE, DecodedEntry(EntryKind.SEE_VAD), id="x86: half an address is not used"
        ),
        pytest.param(WINDOWS_7, 0xFFFFFFFF << 32 | PROTOTYPE, DecodedEntry(EntryKind.SEE_VAD), id="x64: see the VAD"),
        pytest.param(PAE, 0xFFFFFFFF << 32 | PROTOTYPE, DecodedEntry(EntryKind.SEE_VAD), id="PAE: see the VAD"),
        pytest.param(
            WINDOWS_7,
            0x88 << 32 | 2 << 1 | READ_WRITE,
            DecodedEntry(EntryKind.PAGE_FILE, 0x88, 2),
            id="page file 2 of 7",
        ),
        pytest.param(
            WINDOWS_10,
            0x88 << 32 | 2 << 12 | SWIZZLED | READ_WRITE,
            DecodedEntry(EntryKind.PAGE_FILE, 0x88, 2),
            id="page file 2 of 10: its number has moved",
        ),
        pytest.param(
            X86, 0x88 << 12 | 1 << 1 | READ_WRITE, DecodedEntry(EntryKind.PAGE_FILE, 0x88, 1), id="page file of x86"
        ),
        pytest.param(WINDOWS_7, READ_WRITE, DecodedEntry(EntryKind.ZERO), id="demand zero"),
        pytest.param(WINDOWS_7, 0x10 << 5, DecodedEntry(EntryKind.NO_ACCESS), id="decommitted"),
        pytest.param(WINDOWS_7, 0x18 << 5, DecodedEntry(EntryKind.NO_ACCESS), id="PAGE_NOACCESS"),
    ],
)
def test_an_entry_is_decoded(formats: PteFormats, entry: int, expected: DecodedEntry):
    assert formats.decode(entry) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (0x12345 << 12 | TRANSITION | READ_WRITE, DecodedEntry(EntryKind.TRANSITION, 0x12345)),
        (READ_WRITE, DecodedEntry(EntryKind.ZERO)),
        (0x88 << 32 | READ_WRITE, DecodedEntry(EntryKind.PAGE_FILE, 0x88)),
    ],
)
def test_the_mask_against_l1tf_is_taken_out(entry: int, expected: DecodedEntry):
    assert WINDOWS_10.decode(entry | MASK) == expected
    assert WINDOWS_10.decode(entry | SWIZZLED) == expected


def test_the_swizzle_bit_marks_an_entry_that_has_the_masks_bit_itself():
    entry = 0xE001_30000000 << 16 | PROTOTYPE
    assert entry & MASK
    assert WINDOWS_10.decode(entry | SWIZZLED) == DecodedEntry(EntryKind.PROTOTYPE, 0xFFFFE001_30000000)


def test_the_marker_for_the_vad_is_recognised_with_and_without_the_swizzle_bit():
    marker = 0xFFFFFFFF << 32 | PROTOTYPE | READ_WRITE
    for formats in (WINDOWS_10, UNKNOWN_MASK):
        assert formats.decode(marker).kind is EntryKind.SEE_VAD
        assert formats.decode(marker | SWIZZLED).kind is EntryKind.SEE_VAD


def test_an_unknown_mask_never_leads_to_a_wrong_page():
    assert UNKNOWN_MASK.decode(0x88 << 32 | READ_WRITE | MASK).kind is EntryKind.UNKNOWN
    assert UNKNOWN_MASK.decode(0xE001_10000000 << 16 | PROTOTYPE | MASK).kind is EntryKind.SEE_VAD
    masked = UNKNOWN_MASK.decode(0x12345 << 12 | TRANSITION | MASK)
    assert masked.kind is EntryKind.TRANSITION
    assert masked.value > 1 << 32, "a frame beyond all memory rather than a wrong one"
    assert UNKNOWN_MASK.decode(0x12345 << 12 | TRANSITION | SWIZZLED) == DecodedEntry(EntryKind.TRANSITION, 0x12345)


@given(st.integers(0, (1 << 64) - 1), st.sampled_from([WINDOWS_7, WINDOWS_10, UNKNOWN_MASK, PAE]))
def test_random_entries_are_decoded(entry: int, formats: PteFormats):
    found = formats.decode(entry)
    assert 0 <= found.value < 1 << 64
    assert 0 <= found.page_file < 16
