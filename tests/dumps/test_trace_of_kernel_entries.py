# SPDX-License-Identifier: Apache-2.0
"""What `vol -vvv` says of the frame with which an x86 kernel was entered: it has a trap frame, and no caller."""

from __future__ import annotations

import re

from tests.conftest import Forge
from tests.support.vol import vol

TID = 1204


def test_the_trace_says_that_what_was_taken_for_the_caller_of_an_entry_point_does_not_count(forged: Forge):
    out, _ = forged("handlers-x86")
    done = vol(out, "windows.stackwalk", "--tid", str(TID), more=("-vvv",))
    lines = [line.partition("throwstack.trace: ")[2] for line in done.err.splitlines() if "throwstack.trace" in line]
    entry = next(row for row in done.rows[0]["__children"] if row["Call Site"].startswith("nt!KiFastCallEntry"))
    (trap,) = re.findall("trap frame at (0x[0-9a-f]+)", entry["Notes"])
    said = lines.index(f"{entry['IP']:#x}: entry point of the kernel: trap frame at {trap} instead of a caller")
    wrong, after = lines[said - 1], lines[said + 1]
    assert "the return address at" in wrong
    assert after.startswith("frame ntdll!KiFastSystemCallRet ")
