# SPDX-License-Identifier: Apache-2.0
"""A full minidump of a process that has reserved 64 GiB and uses 16 MiB of it; `make test-big` does it with 4 GiB."""

from __future__ import annotations

from pathlib import Path

import throwstack
from tests.big.sparse_process import BASE, RESERVED, write_sparse_dump
from tests.support.minidump_parts import Parts

USED = 16 << 20


def test_only_what_is_used_is_written(tmp_path: Path):
    path, pid = write_sparse_dump(tmp_path, used=USED)
    with throwstack.open(path, symbols=tmp_path / "isf", symbol_path="", offline=True) as dump:
        (report,) = dump.minidumps(tmp_path, pids=[pid], full=True)
    assert report.path is not None
    parts = Parts.of(report.path)
    sizes = {at: len(data) for at, data in parts.memory.items() if BASE <= at < BASE + RESERVED}
    assert sizes == {BASE + number * RESERVED // 8: USED // 8 for number in range(8)}
    assert not any("limit" in what or "beyond" in what for what in report.left_out)
    assert [region[3] for region in parts.regions if BASE <= region[0] < BASE + RESERVED][:2] == [
        USED // 8,
        RESERVED // 8 - USED // 8,
    ]
