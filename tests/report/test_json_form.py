# SPDX-License-Identifier: Apache-2.0
"""JSON of reports: what is left out, and in which form numbers, words and times are."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field

from throwstack.core.frames import End, Trust
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.json_form import to_json
from throwstack.report.values import ALWAYS, Hexadecimal, hexadecimal


@dataclass(frozen=True)
class Sample:
    text: str = ""
    count: int = 0
    found: bool = False
    address: Hexadecimal | None = None
    items: tuple[str, ...] = ()
    rows: tuple[str, ...] = field(default=(), metadata=ALWAYS)


def test_fields_with_nothing_in_them_are_left_out_but_zero_and_false_are_values():
    assert to_json(Sample()) == {"count": 0, "found": False, "rows": []}


def test_an_address_of_zero_is_an_address():
    assert to_json(Sample(address=Hexadecimal(0)))["address"] == "0x0"


def test_addresses_have_one_form_and_are_numbers_for_programs():
    address = hexadecimal(0x7C828752)
    assert address + 2 == 0x7C828754
    assert (str(address), f"{address:08x}", repr(address)) == ("0x7c828752", "7c828752", "0x7c828752")
    assert to_json([address, None, 5]) == ["0x7c828752", None, 5]
    assert hexadecimal(None) is None


def test_members_of_enums_are_words():
    assert to_json([Trust.FRAME_POINTER, End.THREAD_START]) == ["frame-pointer", "thread-start"]


def test_times_are_iso_8601_in_utc():
    time = datetime.datetime(2008, 3, 14, 20, 26, 39, 687500, tzinfo=datetime.timezone.utc)
    assert to_json(time) == "2008-03-14T20:26:39.687500+00:00"


def test_a_stack_in_json():
    frame = FrameReport(
        0,
        Hexadecimal(0x401000),
        Hexadecimal(0x12FF00),
        "app!main+0x10",
        "context",
        args=(Hexadecimal(1), None, Hexadecimal(3)),
        registers={"eip": Hexadecimal(0x401000)},
    )
    walk = to_json(WalkReport((frame,), End.UNREADABLE, "at 0x12ff04"))
    assert json.loads(json.dumps(walk)) == {
        "frames": [
            {
                "number": 0,
                "ip": "0x401000",
                "sp": "0x12ff00",
                "name": "app!main+0x10",
                "trust": "context",
                "args": ["0x1", None, "0x3"],
                "offset": 0,
                "registers": {"eip": "0x401000"},
            }
        ],
        "end": "unreadable",
        "detail": "at 0x12ff04",
    }
