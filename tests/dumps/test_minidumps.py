# SPDX-License-Identifier: Apache-2.0
"""Minidumps of processes in forged dumps: exception, registers, threads, modules and memory are the dump's."""

from __future__ import annotations

import errno
import logging
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge
from tests.support.minidump_parts import Parts
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main
from throwstack.core.errors import ThrowstackError
from throwstack.minidump.minidump_report import MinidumpReport
from throwstack.volatility.dump import Dump


@pytest.fixture
def opened(forged: Forge) -> Iterator[Dump]:
    out, _ = forged("service-x64")
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        yield dump


def written(dump: Dump, directory: Path, **options: object) -> tuple[MinidumpReport, Parts]:
    (report,) = dump.minidumps(directory, **options)
    assert report.path is not None
    assert report.size == report.path.stat().st_size
    return report, Parts.of(report.path)


def exception_of(parts: Parts) -> tuple[int, int, int]:
    """Return thread, code and address."""
    tid, _, code, _, _, address = struct.unpack_from("<IIIIQQ", parts.streams["exception"])
    return tid, code, address


def context_of(parts: Parts) -> bytes:
    return parts.part(*struct.unpack_from("<II", parts.streams["exception"], 160))


def test_the_reference_case(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        report, parts = written(dump, tmp_path)
        crash = next(dump.crashes())
    assert (report.pid, report.process, report.tid, report.arch) == (2564, "iftpsvc.exe", 2792, "x86")
    assert report.path == tmp_path / f"iftpsvc.exe-2564-{crash.signature.digest}.dmp"
    assert exception_of(parts) == (2792, 0xE06D7363, crash.exception.address)
    assert struct.unpack_from("<I", context_of(parts), 0xB8) == (crash.throwing.frames[0].ip,)
    assert struct.unpack_from("<H", parts.streams["system"]) == (0,)
    assert len(parts.threads) == 4
    assert struct.unpack_from("<I", parts.streams["modules"]) == (12,)
    assert "C++ _com_error" in parts.comment
    assert "MEMORY.DMP, an image of Windows Server 2003 x86" in parts.comment
    assert str(out) not in parts.comment


def test_the_thread_that_threw_has_its_stack_from_the_wait_to_the_base(opened: Dump, tmp_path: Path):
    report, parts = written(opened, tmp_path)
    thread = next(thread for thread in parts.threads if thread[0] == report.tid)
    _, _, _, _, teb, start, size, rva, *context = thread
    stack = parts.part(size, rva)
    assert parts.memory[max(at for at in parts.memory if at <= start)].find(stack[:64]) >= 0
    registers = parts.part(*context)
    (rsp,) = struct.unpack_from("<Q", registers, 0x98)
    assert start == rsp
    (thrown_at,) = struct.unpack_from("<Q", context_of(parts), 0x98)
    assert start < thrown_at < start + size
    assert any(at <= teb < at + len(data) for at, data in parts.memory.items())


def test_registers_that_are_not_known_are_named_in_the_comment(opened: Dump, tmp_path: Path):
    _, parts = written(opened, tmp_path)
    assert "not known, zero or left out: rax, rcx, rdx, r8, r9, r10, r11 of threads 5308" in parts.comment


def test_a_second_stuck_thread_is_in_the_comment_and_can_be_chosen(opened: Dump, tmp_path: Path):
    first, parts = written(opened, tmp_path)
    assert (first.tid, exception_of(parts)[1]) == (5320, 0xE06D7363)
    assert "another stuck thread: thread 5324" in parts.comment
    second, parts = written(opened, tmp_path, tids=[5324])
    assert exception_of(parts)[:2] == (5324, 0xC0000005)
    assert "another stuck thread: thread 5320" in parts.comment
    assert first.path != second.path


def test_a_full_minidump_has_all_that_can_be_read(opened: Dump, tmp_path: Path):
    small, _ = written(opened, tmp_path)
    full, parts = written(opened, tmp_path, full=True)
    assert full.size > small.size
    memory = parts.memory
    assert all(at % 0x1000 == len(data) % 0x1000 == 0 for at, data in memory.items())
    starts = {region[0] for region in parts.regions}
    assert memory.keys() <= starts
    for base, _, _, size, *_ in parts.regions:
        assert len(memory.get(base, b"")) in {0, size}
    assert all(one[0] + one[3] <= following[0] for one, following in pairwise(parts.regions))
    thread = next(thread for thread in parts.threads if thread[0] == full.tid)
    assert parts.part(thread[6], thread[7])[:8] == read(memory, thread[5], 8)


def read(memory: dict[int, bytes], address: int, size: int) -> bytes:
    at = max(start for start in memory if start <= address)
    return memory[at][address - at :][:size]


def test_a_process_that_is_not_stuck_has_a_minidump_without_an_exception(forged: Forge, tmp_path: Path):
    out, _ = forged("quiet")
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        assert list(dump.minidumps(tmp_path)) == []
        process = next(dump.processes())
        report, parts = written(dump, tmp_path, pids=[process.pid])
    assert "exception" not in parts.streams
    assert report.tid is None
    assert report.path.name.endswith(f"-{process.pid}.dmp")


def test_the_32_bit_side_is_what_a_32_bit_reporter_would_write(forged: Forge, tmp_path: Path):
    out, _ = forged("wow64-service")
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        report, parts = written(dump, tmp_path)
        crash = next(dump.crashes())
        native, of_native = written(dump, tmp_path, wow64="native")
    assert struct.unpack_from("<H", parts.streams["system"]) == (0,)
    assert exception_of(parts) == (report.tid, 0xE06D7363, crash.exception.address)
    assert struct.unpack_from("<I", context_of(parts), 0xB8) == (crash.throwing.frames[0].ip,)
    assert max(at + len(data) for at, data in parts.memory.items()) <= 1 << 32
    assert struct.unpack_from("<H", of_native.streams["system"]) == (9,)
    (count,), (of_x86,) = (struct.unpack_from("<I", one.streams["modules"]) for one in (of_native, parts))
    assert count > of_x86
    assert native.arch == "x64"


def test_the_command(forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("ftp-2003")
    arguments = ["minidump", str(out / "MEMORY.DMP"), "-s", str(out / "isf"), "--symbol-path", "", "--offline"]
    before = logging.getLogger().level
    assert main([*arguments, "-o", str(tmp_path / "new")]) == ExitStatus.DONE
    (line,) = capsys.readouterr().out.splitlines()
    (path,) = (tmp_path / "new").iterdir()
    assert line.startswith(f"{path}: iftpsvc.exe (PID 2564), x86; thread 2792: C++ _com_error")
    assert "bytes of stacks and data that are not in the image" in line
    assert main([*arguments, "-o", str(tmp_path / "new"), "--tid", "4"]) == ExitStatus.NOTHING
    assert "there is no thread with TID 4" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*arguments, "-o", str(tmp_path / "file")]) == ExitStatus.CANNOT
    assert f"{tmp_path / 'file'} is not a directory" in capsys.readouterr().err
    logging.getLogger().setLevel(before)


def test_a_dump_in_which_nobody_is_stuck(forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("quiet")
    arguments = ["minidump", str(out / "MEMORY.DMP"), "-s", str(out / "isf"), "-o", str(tmp_path), "--offline"]
    assert main(arguments) == ExitStatus.NOTHING
    assert "no thread is stuck on an unhandled exception: no minidump was written" in capsys.readouterr().err


def test_a_word_that_selects_no_side_is_refused(opened: Dump, tmp_path: Path):
    with pytest.raises(ThrowstackError, match="x86 or native"):
        list(opened.minidumps(tmp_path, wow64="both"))


def test_a_disk_that_is_full_costs_the_file_and_is_said(opened: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("throwstack.volatility.minidumps.write_small", fails)
    with pytest.raises(ThrowstackError, match=rf"^{re.escape(str(tmp_path))}/\S+: No space left on device"):
        list(opened.minidumps(tmp_path))
    assert list(tmp_path.iterdir()) == []
