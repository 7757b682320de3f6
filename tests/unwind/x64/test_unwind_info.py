# SPDX-License-Identifier: Apache-2.0
"""UNWIND_INFO decoded: bytes as the specification has them, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.core.frames import End
from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.unwind.x64.unwind_info import EpilogueRanges, UnwindCode, UnwindInfo, UnwindOp, decode

AT = 0x10000


def decoded(text: str) -> UnwindInfo:
    info = decode(memory_of({AT: bytes.fromhex(text)}), AT)
    assert isinstance(info, UnwindInfo), info
    return info


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ("01 50", UnwindCode(1, UnwindOp.PUSH_NONVOL, 5)),
        ("02 f0", UnwindCode(2, UnwindOp.PUSH_NONVOL, 15)),
        ("0a 01 00 20", UnwindCode(10, UnwindOp.ALLOC_LARGE, 0, 0x10000)),
        ("0a 01 ff ff", UnwindCode(10, UnwindOp.ALLOC_LARGE, 0, 0x7FFF8)),
        ("0a 11 10 00 08 00", UnwindCode(10, UnwindOp.ALLOC_LARGE, 0, 0x80010)),
        ("04 02", UnwindCode(4, UnwindOp.ALLOC_SMALL, 0, 8)),
        ("04 f2", UnwindCode(4, UnwindOp.ALLOC_SMALL, 0, 128)),
        ("09 34 07 00", UnwindCode(9, UnwindOp.SAVE_NONVOL, 3, 0x38)),
        ("09 65 08 00 10 00", UnwindCode(9, UnwindOp.SAVE_NONVOL_FAR, 6, 0x100008)),
        ("09 68 02 00", UnwindCode(9, UnwindOp.SAVE_XMM128, 6, 0x20)),
        ("09 f9 10 00 10 00", UnwindCode(9, UnwindOp.SAVE_XMM128_FAR, 15, 0x100010)),
        ("00 0a", UnwindCode(0, UnwindOp.PUSH_MACHFRAME, 0, 0)),
        ("00 1a", UnwindCode(0, UnwindOp.PUSH_MACHFRAME, 0, 1)),
    ],
)
def test_each_unwind_code_is_decoded(slots: str, expected: UnwindCode) -> None:
    count = len(bytes.fromhex(slots)) // 2
    info = decoded(f"01 0a {count:02x} 00 {slots}")
    assert info == UnwindInfo(1, 0, 10, 0, 0, (expected,))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ("00 00 00 00", "unwind information of version 0 at 0x10000"),
        ("03 00 00 00", "unwind information of version 3 at 0x10000"),
        ("01 00 01 00 01 40", "PUSH_NONVOL on a register that cannot be"),
        ("01 00 02 00 09 44 07 00", "SAVE_NONVOL on a register that cannot be"),
        ("01 00 03 00 09 45 08 00 10 00", "SAVE_NONVOL_FAR on a register that cannot be"),
        ("01 00 01 00 08 03", "SET_FPREG on a register that cannot be"),
        ("01 00 01 24 08 03", "SET_FPREG on a register that cannot be"),
        ("01 00 03 00 0a 21 00 00 00 00", "ALLOC_LARGE of form 2"),
        ("01 00 01 00 00 2a", "PUSH_MACHFRAME of form 2"),
        *((f"01 00 01 00 00 {code:02x}", f"code {code}, which there is not") for code in range(11, 16)),
        ("01 00 01 00 0a 01", "ALLOC_LARGE without its operand"),
        ("01 00 02 00 0a 11 01 00", "ALLOC_LARGE without its operand"),
        ("01 00 01 00 09 34", "SAVE_NONVOL without its operand"),
        ("01 00 02 00 09 65 08 00", "SAVE_NONVOL_FAR without its operand"),
        ("01 00 01 00 09 68", "SAVE_XMM128 without its operand"),
        ("01 00 02 00 09 f9 10 00", "SAVE_XMM128_FAR without its operand"),
        ("01 00 01 00 05 66", "SPARE without its operand"),
        ("01 00 02 00 05 67 00 00", "SPARE without its operand"),
        ("21 00 00 00 80100000 00100000 00300000", "chained entry that cannot be one"),
    ],
)
def test_what_cannot_be_unwind_information_is_refused_with_the_reason(info: str, reason: str) -> None:
    found = decode(memory_of({AT: bytes.fromhex(info)}), AT)
    assert isinstance(found, Stop)
    assert (found.end, found.detail.startswith(reason), "0x10000" in found.detail) == (End.BAD_UNWIND_DATA, True, True)


def test_a_register_that_only_the_low_bits_of_another_operation_name_is_allowed() -> None:
    """xmm4 has the number of rsp; the operands of SET_FPREG are reserved."""
    assert decoded("01 09 02 00 09 48 02 00").codes == (UnwindCode(9, UnwindOp.SAVE_XMM128, 4, 0x20),)
    assert decoded("01 08 01 f5 08 43").codes == (UnwindCode(8, UnwindOp.SET_FPREG, 5, 0xF0),)


def test_the_flags_are_in_the_upper_bits_of_the_first_byte() -> None:
    assert [decoded(f"{head:02x} 07 00 00").flags for head in (0x01, 0x09, 0x11, 0x19)] == [0, 1, 2, 3]
    assert decoded("09 07 00 00").prologue_size == 7


def test_the_frame_register_is_in_the_header() -> None:
    info = decoded("01 08 02 25 08 03 01 50")
    assert (info.frame_register, info.frame_offset) == (5, 0x20)
    assert info.codes == (UnwindCode(8, UnwindOp.SET_FPREG, 5, 0x20), UnwindCode(1, UnwindOp.PUSH_NONVOL, 5))


@pytest.mark.parametrize("codes", ["01 00 | 0132 0000", "02 00 | 0132 0250"])
def test_chained_entry_follows_an_even_number_of_codes(codes: str) -> None:
    count, slots = codes.split("|")
    info = decoded(f"21 04 {count} {slots} 00100000 80100000 00300000")
    assert info.chained == RuntimeFunction(0x1000, 0x1080, 0x3000)
    assert info.codes[0] == UnwindCode(1, UnwindOp.ALLOC_SMALL, 0, 0x20)


def test_the_epilogues_of_version_2_are_decoded() -> None:
    """Size 3, one at the end, one 0x123 bytes before it; the fourth slot is padding."""
    info = decoded("02 05 05 00 03 16 23 16 00 06 05 32 01 30")
    assert info.epilogues == EpilogueRanges(3, (3, 0x123))
    assert [code.op for code in info.codes] == [UnwindOp.ALLOC_SMALL, UnwindOp.PUSH_NONVOL]
    places = [distance for distance in range(0x200) if info.epilogues.covers(distance)]
    assert places == [1, 2, 3, 0x121, 0x122, 0x123]


def test_epilogue_that_is_not_at_the_end() -> None:
    assert decoded("02 00 02 00 07 06 12 06").epilogues == EpilogueRanges(7, (0x12,))


def test_version_2_without_epilogue_codes_has_none() -> None:
    assert decoded("02 04 01 00 04 42").epilogues == EpilogueRanges(0, ())
    assert decoded("01 04 01 00 04 42").epilogues is None


@pytest.mark.parametrize(
    ("version", "spare"), [("01", "05 66 00 00"), ("01", "05 67 00 00 00 00"), ("02", "05 67 00 00 00 00")]
)
def test_codes_that_once_saved_half_an_xmm_register_are_skipped_with_their_operands(version: str, spare: str) -> None:
    """sub rsp,20h and push rbx come after code 6 (one operand, only in version 1) or code 7 (two operands)."""
    count = len(bytes.fromhex(spare)) // 2 + 2
    info = decoded(f"{version} 05 {count:02x} 00 {spare} 05 32 01 30")
    assert info.codes == (UnwindCode(5, UnwindOp.ALLOC_SMALL, 0, 0x20), UnwindCode(1, UnwindOp.PUSH_NONVOL, 3))


def test_unwind_info_on_a_page_that_is_missing() -> None:
    memory = memory_of({AT: bytes.fromhex("01 00 ff 00")})
    assert isinstance(decode(memory, AT), UnwindInfo)  # zeros to the page's end: push rax, many times
    with pytest.raises(MemoryUnreadable):
        decode(memory, AT + 0xFFE)


@given(st.binary(min_size=4, max_size=560))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    found = decode(memory_of({AT: data}), AT)
    if isinstance(found, Stop):
        assert found.end is End.BAD_UNWIND_DATA
        assert found.detail
    else:
        assert found.version in (1, 2)
        assert len(found.codes) <= data[2]
        for code in found.codes:
            assert 0 <= code.register < 16
            assert 0 <= code.value < 1 << 32
