# SPDX-License-Identifier: Apache-2.0
"""What is said of the frames of a deep recursion that a walk has not kept."""

from __future__ import annotations

import json

from tests.support.targets import make_target
from throwstack.core.frames import End, Frame, LeftOut, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.images.modules import Module
from throwstack.report.frame_report import walk_report
from throwstack.report.json_form import to_json

APP = Module("app.exe", "", 0x400000, 0x10000)


def test_they_share_one_report_that_takes_their_numbers():
    def frame(ip: int, left_out: LeftOut | None = None) -> Frame:
        return Frame(
            Registers.named(Arch.X86, {"eip": ip, "esp": 0x1000}), 0xFFC, ip, None, Trust.CFI, left_out=left_out
        )

    gap = LeftOut(20_000, (0x401010, 0x402010, 0x401010 + 8), 0x2000)
    walk = Walk((frame(0x401010, gap), frame(0x403010)), End.THREAD_START)
    names = {"recurse": 0x1000, "helper": 0x2000, "main": 0x3000}
    target = make_target(Arch.X86, [APP], {}, {"app.exe": names}, walk)
    inner, gap_report, outer = walk_report(target, walk, frozenset()).frames
    assert [report.number for report in (inner, gap_report, outer)] == [0, 1, 20_001]
    assert gap_report.name == "20,000 more frames of app!recurse, app!helper"
    assert (gap_report.trust, gap_report.left_out, inner.left_out) == ("left-out", 20_000, None)
    assert (gap_report.ip, gap_report.sp, gap_report.return_address) == (0x401010, 0x2000, None)
    said = json.loads(json.dumps(to_json(gap_report)))
    assert said == {
        "number": 1,
        "ip": "0x401010",
        "sp": "0x2000",
        "name": "20,000 more frames of app!recurse, app!helper",
        "trust": "left-out",
        "offset": 0,
        "left_out": 20_000,
    }
