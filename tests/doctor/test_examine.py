# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of files that are no image, or hold one, or lack something beside them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.forge.dump_kinds import MoreKinds, as_vmware, rewrite
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main


def test_a_kernel_dump_without_symbols_serves_in_part_as_far_as_is_known(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    rewrite(out / "MEMORY.DMP", tmp_path / "it.dmp", MoreKinds.BITMAP_KERNEL)
    status, report = doctor(tmp_path / "it.dmp")
    assert (status, report["problems"][0].partition(":")[0]) == (3, "it may hold the kernel's memory alone")


def test_commands_that_are_advised_repeat_what_was_given(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    dump = tmp_path / "it's here.dmp"
    shutil.copyfile(out / "MEMORY.DMP", dump)
    _, report = doctor(dump, out / "isf", "--symbol-path", "/my pdbs")
    command = report["advice"][-1].removeprefix("run ").partition(", then")[0]
    assert shlex.split(command) == [
        *("vol", "-s", str(out / "isf"), "-f", str(dump), "windows.unhandled", "--symbol-path", "/my pdbs")
    ]


def test_a_vmem_file_whose_state_is_missing_says_so(forged: Forge, doctor, tmp_path: Path):
    """Where the parts of a .vmem are in physical memory is in the .vmss or .vmsn alone."""
    out, _ = forged("service-x64")
    as_vmware(out / "MEMORY.DMP", tmp_path / "machine.vmem")
    (tmp_path / "machine.vmsn").unlink()
    status, report = doctor(tmp_path / "machine.vmem", out / "isf")
    assert status == ExitStatus.CANNOT
    assert "needs the .vmss or .vmsn of the same name beside it" in report["advice"][0]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_dump_is_one_that_volatility_opens(forged: Forge, doctor, tmp_path: Path, pack: Any):
    out, _ = forged("ftp-2003")
    (tmp_path / "MEMORY.DMP.gz").write_bytes(pack((out / "MEMORY.DMP").read_bytes()))
    status, report = doctor(tmp_path / "MEMORY.DMP.gz")
    assert (status, report["kind"]) == (3, "compressed")
    assert "it holds: Windows crash dump, 32-bit: complete memory dump (type 1)" in report["problems"][0]
    assert any("Volatility unpacks it" in advice for advice in report["advice"])


@pytest.mark.parametrize(
    ("contents", "advice"),
    [
        (b"this is not a dump\n" * 100, "text"),
        (b"MDMP\x93\xa7\0\0" + bytes(0x1000), "one process"),
        (bytes(10), "unpack"),
    ],
)
def test_what_is_compressed_and_no_image_does_not_serve(doctor, tmp_path: Path, contents: bytes, advice: str):
    (tmp_path / "it.gz").write_bytes(gzip.compress(contents))
    status, report = doctor(tmp_path / "it.gz")
    assert status == (3 if advice == "unpack" else 2)
    assert advice in report["advice"][0]
    (tmp_path / "it.gz").write_bytes(b"\x1f\x8b\x08" + bytes(100))
    status, report = doctor(tmp_path / "it.gz")
    assert (status, report["advice"]) == (2, ["copy it again"])


def test_json_goes_into_a_file_and_the_text_is_printed_as_well(forged: Forge, tmp_path: Path, capsys):
    out, _ = forged("ftp-2003")
    file = tmp_path / "it.json"
    command = ["doctor", str(out / "MEMORY.DMP"), "-s", str(out / "isf"), "--json", str(file)]
    assert main(command) == 0
    assert "Verdict: this image can serve" in capsys.readouterr().out
    assert json.loads(file.read_text("utf-8"))["verdict"] == "serves"
    assert main([*command, "--quiet"]) == 2
    done = capsys.readouterr()
    assert (done.out, "--force overwrites it" in done.err) == ("", True)
    assert main([*command, "--quiet", "--force"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("contents", "kind", "advice"),
    [
        (b"", "empty", "no contents"),
        (b"this is not a dump\n" * 100, "text", "text, not a memory image"),
        (bytes(0x4000), "raw", "image of a Windows machine"),
        (b"MDMP\x93\xa7\0\0" + bytes(0x1000), "user_minidump", "one process"),
        (b"LibvirtQemudSave\x02\0\0\0" + bytes(100), "libvirt_save", "virsh dump --memory-only"),
        (b"QFI\xfb\0\0\0\x03" + bytes(100), "virtual_disk", "MEMORY.DMP"),
        (b"PAGEDU64" + bytes(0x100), "cut_header", "not even the header"),
        (b"PAGEDU64" + bytes(0x4000), "crash_dump", "damaged"),
    ],
)
def test_a_file_that_is_no_image_is_named(doctor, tmp_path: Path, contents: bytes, kind: str, advice: str):
    (tmp_path / "file").write_bytes(contents)
    status, report = doctor(tmp_path / "file")
    assert (status, report["kind"], report["verdict"]) == (2, kind, "does_not_serve")
    assert any(advice in line for line in report["advice"])
