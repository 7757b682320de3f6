# SPDX-License-Identifier: Apache-2.0
"""Minidumps of forged dumps, read by the package `minidump` of PyPI: another reader than ours finds the same."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge

peer = pytest.importorskip("minidump.minidumpfile", reason="needs `pip install '.[test]'`: the package minidump")


@pytest.mark.parametrize("case", ["ftp-2003", "service-x64", "wow64-service"])
@pytest.mark.parametrize("full", [False, True])
def test_the_package_minidump_reads_what_we_found(forged: Forge, tmp_path: Path, case: str, *, full: bool):
    out, _ = forged(case)
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        (report,) = dump.minidumps(tmp_path, full=full)
        crash = next(dump.crashes(pids=[report.pid], tids=[report.tid]))
    logging.disable(logging.ERROR)  # forged processes have no environment, and the package says so
    try:
        found = peer.MinidumpFile.parse(str(report.path))
    finally:
        logging.disable(logging.NOTSET)
    (raised,) = found.exception.exception_records
    record = raised.ExceptionRecord
    assert (raised.ThreadId, record.ExceptionCode_raw, record.ExceptionAddress) == (
        crash.tid,
        crash.exception.code,
        crash.exception.address,
    )
    assert record.ExceptionInformation[: record.NumberParameters] == list(crash.exception.parameters)
    assert crash.tid in {thread.ThreadId for thread in found.threads.threads}
    assert len({module.baseaddress for module in found.modules.modules}) == len(found.modules.modules) > 0
    reader = found.get_reader()
    frame = crash.throwing.frames[1]
    size = 4 if report.arch == "x86" else 8
    word = int.from_bytes(reader.read(frame.sp - size, size), "little")
    assert word == frame.ip or report.arch == "x86"
