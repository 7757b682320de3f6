# SPDX-License-Identifier: Apache-2.0
"""Values as a page shows them."""

from __future__ import annotations

import datetime

from throwstack.core.frames import Trust
from throwstack.report.page.page_values import moment, number, place, size, word


def test_sizes_have_a_unit():
    assert [size(count) for count in (1, 1023, 1024, 5_324_800, 1 << 36, 1 << 99)] == [
        *("1 byte", "1,023 bytes", "1.0 KiB", "5.1 MiB", "64.0 GiB"),
        f"{(1 << 99) / (1 << 50):,.1f} PiB",
    ]


def test_addresses_have_the_width_of_their_code_or_what_they_take():
    assert (place(0x45BA888, is_64bit=False), place(0x45BA888, is_64bit=True)) == ("045ba888", "00000000`045ba888")
    assert (place(0x8948FA08), place(0xFFFFE00010001740), place(None)) == (
        *("8948fa08", "ffffe000`10001740", "????????"),
    )


def test_times_are_in_utc_with_milliseconds_if_there_are_any():
    time = datetime.datetime(2008, 3, 14, 20, 26, 39, 687500, tzinfo=datetime.timezone.utc)
    assert (moment(time), moment(time.replace(microsecond=0))) == (
        "2008-03-14 20:26:39.687 UTC",
        "2008-03-14 20:26:39 UTC",
    )


def test_frames_are_numbered_as_windbg_does_and_enums_are_words():
    assert (number(10), number(300), word(Trust.FRAME_POINTER)) == ("0a", "12c", "frame-pointer")
