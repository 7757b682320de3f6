# SPDX-License-Identifier: Apache-2.0
"""The command `throwstack doctor` on every kind of file: its verdict, its exit status, and what it says to do."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from volatility3.framework.automagic import symbol_cache

from tests.conftest import Forge
from tests.forge.__main__ import forge
from tests.forge.build import DumpKind
from tests.forge.cases import builders
from tests.forge.describe import Residency
from tests.forge.dump_kinds import MoreKinds, as_elf, as_lime, as_vmware, rewrite
from tests.support.residency import all_in, spread_over
from tests.support.vol import vol
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main

PAGE = 0x1000


@pytest.mark.parametrize("kind", list(DumpKind))
@pytest.mark.parametrize(("case", "counts"), [("service-x64", (2, 7)), ("ftp-2003", (4, 10))])
def test_a_dump_without_missing_pages_serves(forged: Forge, doctor, case: str, counts: tuple[int, int], kind: DumpKind):
    processes, threads = counts
    out, truth = forged(case, kind=kind)
    status, report = doctor(out / "MEMORY.DMP", out / "isf")
    assert (status, report["verdict"], report["problems"]) == (0, "serves", [])
    assert len(report["processes"]) == processes
    assert sum(process["threads"] for process in report["processes"]) == threads
    assert {stuck.pid for stuck in truth.stuck} <= {process["pid"] for process in report["processes"]}
    for process in report["processes"]:
        assert process["stack_pages"]["readable"] == process["stack_pages"]["total"]
    assert report["symbols"]["needed"].removesuffix(".xz") in report["symbols"]["found"]
    if kind is DumpKind.RAW:
        assert (report["kind"], report["header"]) == ("raw", None)
    else:
        assert report["pages"]["missing"] == 0
        assert report["header"]["dump_type"] == kind.value


def test_another_run_that_drops_the_symbols_from_volatilitys_index_does_no_harm(
    forged: Forge, doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # All runs of Volatility share an index of symbol files. Each drops what lies in no symbol directory of its own, and
    # what another misses there it downloads, into the file that it did not look for.
    class EmptiedMeanwhile(symbol_cache.SqliteCache):
        def find_location(self, identifier, operating_system):
            return None

    monkeypatch.setattr(symbol_cache, "SqliteCache", EmptiedMeanwhile)
    out, _ = forged("ftp-2003", kind=DumpKind.RAW)
    symbols = shutil.copytree(out / "isf", tmp_path / "isf")
    files = {path: path.read_bytes() for path in symbols.rglob("*.xz")}
    status, report = doctor(out / "MEMORY.DMP", symbols)
    assert (status, report["problems"]) == (0, [])
    assert {path: path.read_bytes() for path in symbols.rglob("*.xz")} == files


@pytest.mark.parametrize("name", ["_EPROCESS.Peb", "PsActiveProcessHead"])
def test_symbols_without_what_is_needed_are_named(forged: Forge, doctor, tmp_path: Path, name: str):
    out, _ = forged("service-x64")
    symbols = shutil.copytree(out / "isf", tmp_path / "isf")
    (kernel,) = symbols.rglob("ntkrnlmp.pdb/*.json.xz")
    table = json.loads(lzma.decompress(kernel.read_bytes()))
    type_name, _, member = name.partition(".")
    del (table["user_types"][type_name]["fields"] if member else table["symbols"])[member or name]
    kernel.write_bytes(lzma.compress(json.dumps(table).encode()))
    status, report = doctor(out / "MEMORY.DMP", symbols)
    assert status == ExitStatus.IN_PART
    assert report["problems"][0].startswith("the ISF file is not of this kernel, or lacks what is needed:")
    assert f"the kernel's symbols have no {name}" in report["problems"][0]
    done = vol(out, "windows.unhandled", isf=symbols, more=("--cache-path", str(tmp_path)))
    assert f"the kernel's symbols have no {name}" in done.err
    assert "Traceback" not in done.err


def test_what_the_symbols_lack_beside_that_is_a_problem(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    symbols = shutil.copytree(out / "isf", tmp_path / "isf")
    (kernel,) = symbols.rglob("ntkrnlmp.pdb/*.json.xz")
    table = json.loads(lzma.decompress(kernel.read_bytes()))
    del table["user_types"]["_KTRAP_FRAME"]["fields"]["SegCs"]
    kernel.write_bytes(lzma.compress(json.dumps(table).encode()))
    status, report = doctor(out / "MEMORY.DMP", symbols)
    assert (status, report["problems"]) == (
        0,
        ["the kernel's symbols have no _KTRAP_FRAME.SegCs: registers of threads are not known"],
    )


def test_the_report_has_the_dumps_header(forged: Forge, doctor):
    out, _ = forged("service-x64")
    _, report = doctor(out / "MEMORY.DMP", out / "isf")
    assert report["header"] == {
        "dump_type": 1,
        "is_64bit": True,
        "pae": False,
        "build": 19041,
        "processors": 1,
        "directory_table_base": 0x1AD000,
        "bug_check": 0xE2,
        "bug_check_parameters": [0, 0, 0, 0],
        "system_time": report["header"]["system_time"],
        "up_time_seconds": report["header"]["up_time_seconds"],
    }
    assert report["header"]["system_time"].startswith("2021-")


@pytest.mark.parametrize("kind", [kind for kind in MoreKinds if kind is not MoreKinds.TRIAGE], ids=lambda k: k.name)
def test_other_kinds_serve_as_well(forged: Forge, doctor, tmp_path: Path, kind: MoreKinds):
    out, _ = forged("service-x64")
    rewrite(out / "MEMORY.DMP", tmp_path / "it.dmp", kind)
    status, report = doctor(tmp_path / "it.dmp", out / "isf")
    assert (status, report["header"]["dump_type"]) == (0, kind.value)


@pytest.mark.parametrize(("write", "kind"), [(as_lime, "lime"), (as_elf, "elf_core")])
def test_what_volatility_stacks_serves_too(forged: Forge, doctor, tmp_path: Path, write: Any, kind: str):
    out, _ = forged("service-x64")
    write(out / "MEMORY.DMP", tmp_path / "image")
    status, report = doctor(tmp_path / "image", out / "isf")
    assert (status, report["kind"], report["problems"]) == (0, kind, [])


def test_a_vmem_file_serves_with_its_state_beside_it_and_the_state_alone_does_not(
    forged: Forge, doctor, tmp_path: Path
):
    out, _ = forged("service-x64")
    as_vmware(out / "MEMORY.DMP", tmp_path / "machine.vmem")
    status, report = doctor(tmp_path / "machine.vmem", out / "isf")
    assert (status, report["kind"], report["problems"]) == (0, "raw", [])
    status, report = doctor(tmp_path / "machine.vmsn", out / "isf")
    assert (status, report["kind"]) == (2, "vmware")
    assert ".vmem file of the same name" in report["advice"][0]


@pytest.mark.parametrize("kind", [DumpKind.FULL, DumpKind.RAW])
def test_a_page_file_that_is_given_is_a_route(doctor, tmp_path: Path, kind: DumpKind):
    case = builders()["service-x64"][0]()
    spread_over(case, all_in(Residency.IN_PAGE_FILE), Residency.VALID)
    pids = {stuck.pid for stuck in case.truth.stuck}
    forge(case, tmp_path, kind=kind)
    for options, route in (((), "paged_out"), (("--page-file", str(tmp_path / "pagefile.sys")), "page_file")):
        _, report = doctor(tmp_path / "MEMORY.DMP", tmp_path / "isf", *options)
        (process,) = [one for one in report["processes"] if one["pid"] in pids]
        assert set(process["stack_pages"]["routes"]) == {route}
        assert any("pages are in a page file" in advice for advice in report["advice"]) is (route == "paged_out")
        assert not any("next time" in advice for advice in report["advice"]), "the dump is a complete one"


@pytest.mark.parametrize("build", [19045, 22631])
def test_the_compressed_store_is_a_route_where_its_layout_is_known(doctor, tmp_path: Path, build: int):
    case = builders()["service-x64"][0]()
    case.machine = replace(case.machine, version=(10, 0, build))
    spread_over(case, all_in(Residency.IN_STORE), Residency.IN_STORE)
    forge(case, tmp_path)
    status, report = doctor(tmp_path / "MEMORY.DMP", tmp_path / "isf")
    process = next(one for one in report["processes"] if one["pid"] == case.truth.stuck[0].pid)
    said = [advice for advice in report["advice"] if "compressed store" in advice]
    if build == 19045:
        assert (status, set(process["stack_pages"]["routes"]), said) == (0, {"store"}, [])
    else:
        assert (status, set(process["image_pages_sampled"]["routes"])) == (2, {"compressed"})
        assert report["problems"][0].startswith("no page of a thread's user-mode stack")
        assert not any("kernel's memory alone" in problem for problem in report["problems"])
        assert len(said) == 1
        assert "the store's layout in build 22631 (x64) is not known well enough" in said[0]


def test_without_the_kernels_symbols_it_says_which(forged: Forge, doctor):
    out, _ = forged("service-x64")
    status, report = doctor(out / "MEMORY.DMP")
    (isf,) = (out / "isf").rglob("ntkrnlmp.pdb/*.json.xz")
    assert (status, report["verdict"], report["problems"]) == (0, "serves", []), "they are not cached, that is all"
    assert report["symbols"] == {"needed": f"windows/ntkrnlmp.pdb/{isf.name}", "found": None}
    assert any(isf.name in advice for advice in report["advice"])


def short(isf: bytes) -> bytes:
    return isf[:2000]


def of_another_kernel(_isf: bytes) -> bytes:
    return (Path(__file__).parents[1] / "forge" / "layouts" / "win2003_sp2_x86.json.xz").read_bytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (short, "damaged"),
        (lambda _: b"hello", "damaged"),
        (lambda _: lzma.compress(b"{}"), "damaged"),
        (lambda _: lzma.compress(b"[" * 100_000), "damaged"),
        (of_another_kernel, "not of this kernel"),
    ],
)
def test_an_isf_file_that_cannot_be_used_is_what_to_replace(
    forged: Forge, doctor, tmp_path: Path, change: Callable[[bytes], bytes], problem: str
):
    out, _ = forged("service-x64")
    (isf,) = (out / "isf").rglob("ntkrnlmp.pdb/*.json.xz")
    bad = tmp_path / isf.relative_to(out / "isf")
    bad.parent.mkdir(parents=True)
    bad.write_bytes(change(isf.read_bytes()))
    status, report = doctor(out / "MEMORY.DMP", tmp_path)
    assert status == ExitStatus.IN_PART
    assert any("ISF file is" in line and problem in line for line in report["problems"])
    (advice,) = report["advice"]
    assert isf.name in advice


def test_a_page_file_that_is_none_is_a_wrong_command(forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("service-x64")
    assert main(["doctor", str(out / "MEMORY.DMP"), "--page-file", str(tmp_path)]) == 64
    assert f"--page-file: {tmp_path} is not a file" in capsys.readouterr().err


def test_a_truncated_dump_says_how_much_is_missing(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    data = (out / "MEMORY.DMP").read_bytes()
    (tmp_path / "cut.dmp").write_bytes(data[: len(data) * 3 // 4])
    status, report = doctor(tmp_path / "cut.dmp", out / "isf")
    assert status == ExitStatus.IN_PART
    assert report["pages"]["missing"] == pytest.approx(report["pages"]["expected"] / 4, abs=3)
    assert any("cut off" in advice for advice in report["advice"])


@pytest.mark.parametrize("part", range(1, 8))
def test_a_truncated_dump_never_serves_in_full(forged: Forge, doctor, tmp_path: Path, part: int):
    out, _ = forged("service-x64")
    data = (out / "MEMORY.DMP").read_bytes()
    (tmp_path / "cut.dmp").write_bytes(data[: len(data) * part // 8])
    status, report = doctor(tmp_path / "cut.dmp", out / "isf")
    assert status in {ExitStatus.CANNOT, ExitStatus.IN_PART}
    assert report["advice"]


@pytest.mark.parametrize("size", [0x2000, 0x2001, 0x20000])
def test_a_dump_cut_off_before_its_stacks_is_not_taken_for_another_kind(
    forged: Forge, doctor, tmp_path: Path, size: int
):
    out, _ = forged("service-x64")
    (tmp_path / "cut.dmp").write_bytes((out / "MEMORY.DMP").read_bytes()[:size])
    status, report = doctor(tmp_path / "cut.dmp", out / "isf")
    assert status == 2
    assert any("after the end of the file" in problem for problem in report["problems"])
    assert any("copy it again" in advice for advice in report["advice"])
    said = " ".join(report["problems"] + report["advice"])
    assert "kernel's memory alone" not in said
    assert "next time" not in said


def test_a_dump_of_an_arm64_machine_is_named(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    data = bytearray((out / "MEMORY.DMP").read_bytes())
    data[0x30:0x34] = (0xAA64).to_bytes(4, "little")
    (tmp_path / "arm.dmp").write_bytes(data)
    status, report = doctor(tmp_path / "arm.dmp", out / "isf")
    assert status == 2
    assert report["description"].startswith("Windows crash dump, ARM64:")
    assert any("ARM64 is not supported" in advice for advice in report["advice"])


@pytest.mark.parametrize("kind", [MoreKinds.SUMMARY, MoreKinds.BITMAP_KERNEL, MoreKinds.LIVE_KERNEL])
def test_a_dump_of_the_kernel_alone_does_not_serve(forged: Forge, doctor, tmp_path: Path, kind: MoreKinds):
    out, _ = forged("service-x64")
    users = set()
    for process in builders()["service-x64"][0]().machine.processes:
        for region in process.regions:
            users |= {region.data[at : at + PAGE].ljust(PAGE, b"\0") for at in range(0, len(region.data), PAGE)}
    rewrite(out / "MEMORY.DMP", tmp_path / "kernel.dmp", kind, lambda page: page not in users)
    status, report = doctor(tmp_path / "kernel.dmp", out / "isf")
    assert status == 2
    assert any("the kernel's memory alone" in problem for problem in report["problems"])
    assert any("complete or active memory dump" in advice for advice in report["advice"])


def test_pages_are_counted_by_the_route_that_finds_them(doctor, tmp_path: Path):
    case = builders()["service-x64"][0]()
    spread_over(case, all_in(Residency.PROTOTYPE), Residency.TRANSITION)
    pids = {stuck.pid for stuck in case.truth.stuck}
    forge(case, tmp_path)
    status, report = doctor(tmp_path / "MEMORY.DMP", tmp_path / "isf")
    (process,) = [one for one in report["processes"] if one["pid"] in pids]
    assert status == 0
    assert set(process["stack_pages"]["routes"]) == {"prototype"}
    assert set(process["image_pages_sampled"]["routes"]) == {"prototype"}


def test_a_small_dump_does_not_serve(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    rewrite(out / "MEMORY.DMP", tmp_path / "mini.dmp", MoreKinds.TRIAGE)
    status, report = doctor(tmp_path / "mini.dmp", out / "isf")
    assert status == 2
    assert "small dump" in report["problems"][0]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", str(tmp_path / "none.dmp")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_has_no_end_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        assert main(["doctor", str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"throwstack doctor: {path}: ")


def test_damage_to_the_header_leads_to_a_search(forged: Forge, doctor, tmp_path: Path):
    out, _ = forged("service-x64")
    data = bytearray((out / "MEMORY.DMP").read_bytes())
    data[0x10:0x30] = bytes(0x20)  # page tables and lists
    data[0x80:0x88] = bytes(8)
    (tmp_path / "damaged.dmp").write_bytes(data)
    status, report = doctor(tmp_path / "damaged.dmp", out / "isf")
    assert status == 0
    assert any("do not lead to the kernel" in problem for problem in report["problems"])


def test_the_text_says_the_same(forged: Forge, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("service-x64")
    assert main(["doctor", str(out / "MEMORY.DMP"), "-s", str(out / "isf")]) == 0
    said = capsys.readouterr().out
    assert "Windows crash dump, 64-bit: complete memory dump (type 1)" in said
    assert "bug check        0xe2" in said
    assert "Verdict: this image can serve windows.unhandled" in said


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_dump_whose_name_is_not_utf_8(forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As an archive of another machine unpacks it. Volatility looks for another file; the dump is not damaged."""
    out, _ = forged("service-x64")
    dump = tmp_path / os.fsdecode(b"M\xfcller.dmp")
    dump.hardlink_to(out / "MEMORY.DMP")
    assert main(["doctor", str(dump), "-s", str(out / "isf")]) == 2
    said = capsys.readouterr().out
    assert "its path is not UTF-8, and Volatility opens no such file: rename it" in said
    assert "damaged" not in said
