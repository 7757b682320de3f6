# SPDX-License-Identifier: Apache-2.0
"""The cases compared with their models: `ftp-2003` figure for figure against the WinDbg transcript."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.forge.__main__ import main
from tests.forge.cases import Case, builders
from tests.forge.describe import Residency
from tests.forge.truth import Truth, TruthFrame, TruthThread
from tests.support.reference_transcript import CONTRADICTION, THREAD, THROWING, expected


@pytest.fixture(scope="module")
def ftp() -> Case:
    return builders()["ftp-2003"][0]()


def shown(frames: tuple[TruthFrame, ...]) -> list[str]:
    return [
        " ".join((*(f"{word:08x}" for word in (frame.child_sp, frame.return_address, *frame.args)), frame.symbol))
        for frame in frames
    ]


def only(truth: Truth) -> TruthThread:
    (thread,) = truth.stuck
    return thread


def test_the_throwing_stack_is_the_transcripts(ftp: Case) -> None:
    assert shown(only(ftp.truth).frames) == expected(THROWING)


def test_the_blocked_stack_is_the_transcripts_and_goes_on_with_what_threw(ftp: Case) -> None:
    rows = shown(only(ftp.truth).thread_stack)
    known = expected(THREAD)
    assert rows[: len(known)] == known
    assert rows[len(known) :] == expected(THROWING)[5:]


def test_memory_holds_the_transcripts_words(ftp: Case) -> None:
    process = next(p for p in ftp.machine.processes if p.pid == 0xA04)
    thread = next(t for t in process.threads if t.tid == 0xAE8)
    stack = next(r for r in process.regions if r.base == thread.stack_limit)

    def word(address: int) -> int:
        if address in thread.kernel_stack:
            return int.from_bytes(thread.kernel_stack[address], "little")
        if thread.kernel_stack_limit <= address < thread.kernel_stack_base:
            return 0
        return int.from_bytes(stack.data[address - stack.base :][:4], "little")

    for line in (THREAD + THROWING).replace(*CONTRADICTION).splitlines():
        child, *words = (int(item, 16) for item in line.split()[:5])
        if "KiFastCallEntry" in line:  # printed for the system service's frame a second time
            words = words[1:]
            assert [word(child + 8 + 4 * i) for i in range(3)] == words
        else:
            assert [word(child + 4 + 4 * i) for i in range(4)] == words, line
    # dd 045ba7a4 l2
    assert [word(0x045BA7A4), word(0x045BA7A8)] == [0x045BAB68, 0x045BA888]
    # the record, the _com_error
    assert [word(0x045BAB68 + 4 * i) for i in range(8)] == [
        *(0xE06D7363, 1, 0, 0x77E4BEE7, 3, 0x19930520, 0x045BAC00, 0x03440A54),
    ]
    assert [word(0x045BAC00), word(0x045BAC04)] == [0x0342DC6C, 0x80004003]


def test_the_forged_context_is_what_cxr_printed(ftp: Case) -> None:
    printed = (
        "eax=045bab68 ebx=033f97fe ecx=00000000 edx=045bac00 esi=045babf0 edi=00000000 eip=77e4bee7 esp=045bab64 "
        "ebp=045babb8 cs=001b ss=0023 ds=0023 es=0023 fs=003b gs=0000 efl=00000206"
    )
    values = dict(item.split("=") for item in printed.replace("efl=", "eflags=").split())
    wanted = {name: int(value, 16) for name, value in values.items()}
    assert only(ftp.truth).registers == wanted
    process = next(p for p in ftp.machine.processes if p.pid == 0xA04)
    stack = next(r for r in process.regions if r.base <= 0x045BA888 < r.base + len(r.data))
    context = stack.data[0x045BA888 - stack.base :][:0x2CC]
    assert context[:4] == bytes.fromhex("07000100")
    # CONTEXT of winnt.h: gs at 0x8c, then fs es ds edi esi ebx edx ecx eax ebp eip cs eflags esp ss
    offsets = {"edi": 0x9C, "esi": 0xA0, "ebx": 0xA4, "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0}
    offsets |= {"ebp": 0xB4, "eip": 0xB8, "cs": 0xBC, "eflags": 0xC0, "esp": 0xC4, "ss": 0xC8}
    offsets |= {"gs": 0x8C, "fs": 0x90, "es": 0x94, "ds": 0x98}
    assert {name: int.from_bytes(context[at : at + 4], "little") for name, at in offsets.items()} == wanted


def test_processes_and_thread_are_the_transcripts(ftp: Case) -> None:
    facts = {p.name: (p.pid, p.address, p.directory_base, p.peb, p.ppid) for p in ftp.machine.processes[1:]}
    assert facts == {
        "intfysvc.exe": (0x79C, 0x89EEE6F8, 0x7F404380, 0x7FFDD000, 0x1BC),
        "SSHServer.exe": (0x7F0, 0x899F2BC8, 0x7F4043A0, 0x7FFD8000, 0x1BC),
        "iftpsvc.exe": (0xA04, 0x8948FA08, 0x7F404520, 0x7FFDE000, 0x1BC),
    }
    process = next(p for p in ftp.machine.processes if p.pid == 0xA04)
    thread = next(t for t in process.threads if t.tid == 0xAE8)
    assert (thread.teb, thread.address, thread.win32_thread) == (0x7FFAD000, 0x89E3D418, 0xE26A6508)
    assert (thread.kernel_stack_base, thread.kernel_stack_limit) == (0xB8FDF000, 0xB8FDB000)
    assert (thread.kernel_stack_pointer, thread.trap_frame) == (0xB8FDE900, 0xB8FDED64)
    assert (thread.start_address, thread.win32_start_address) == (0x77E617EC, 0x781329E1)
    assert (thread.priority, thread.base_priority, thread.alertable, thread.wait_mode) == (10, 8, True, 1)
    assert (thread.wait_ticks, ftp.machine.tick_count) == (7198, 7218)


@pytest.mark.parametrize("name", [name for name in builders() if name != "fleet"])
def test_a_case_makes_a_dump_and_its_truth_reads_back(name: str, tmp_path: Path) -> None:
    assert main([name, str(tmp_path)]) == 0
    assert (tmp_path / "MEMORY.DMP").stat().st_size > 1_000_000
    truth = Truth.load(tmp_path / "truth.json")
    assert truth == builders()[name][0]().truth
    threads = {(p.pid, t.tid) for p in builders()[name][0]().machine.processes for t in p.threads}
    assert {(t.pid, t.tid) for t in truth.stuck} | {*truth.quiet, *truth.hanging} == threads
    for path in (tmp_path / "isf" / "windows").glob("*/*"):
        guid, age = path.name.split(".")[0].rsplit("-", 1)
        assert (len(guid), age) == (32, "1")


def test_service_x64_has_a_throw_and_a_fault() -> None:
    throw, fault = builders()["service-x64"][0]().truth.stuck
    assert (throw.code, throw.exception_type) == (0xE06D7363, ".?AVconfig_error@ledger@@")
    assert throw.message == "configuration value 'listen_port' is missing"
    assert throw.frames[0].symbol.startswith("KERNELBASE!RaiseException+")
    assert (fault.code, fault.thrown_at) == (0xC0000005, "ledgersvc!ledger::hash_bytes+0x5")
    assert fault.frames[0].child_sp == fault.registers["rsp"]
    for thread in (throw, fault):
        kernel = [frame.symbol for frame in thread.thread_stack if frame.symbol.startswith("nt!")]
        assert (kernel[0].split("+")[0], kernel[-1]) == ("nt!KiSwapContext", "nt!KiSystemServiceCopyEnd+0x25")
        assert thread.thread_stack[len(kernel)].symbol == "ntdll!NtWaitForMultipleObjects+0x14"
        assert thread.frames[-1].return_address == 0


def test_fleet_is_large_and_has_three_crashes() -> None:
    case = builders()["fleet"][0]()
    assert len(case.truth.stuck) == 3
    assert sum(len(process.threads) for process in case.machine.processes) == 4000
    assert len(case.machine.processes) == 201


def test_paged_peb_has_one_process_without_a_readable_peb() -> None:
    case = builders()["paged-peb"][0]()
    gone = [p.pid for p in case.machine.processes if p.loader_residency is Residency.PAGED_OUT]
    assert len(gone) == 1
    assert only(case.truth).pid not in gone


def test_truth_is_json_with_hex_addresses(tmp_path: Path, ftp: Case) -> None:
    ftp.truth.save(tmp_path / "truth.json")
    raw = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    assert raw["stuck"][0]["record"] == "0x45bab68"
    assert raw["stuck"][0]["pid"] == 2564


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-case", "out"], "no case 'no-such-case'"),
        (["ftp-2003"], "CASE and OUT_DIR are needed"),
        (["ftp-2003", "out", "--isf", "no/such/file"], "--isf: no file"),
        (["ftp-2003", "out", "--isf", __file__], "is no ISF file with a kernel's structures"),
        (["ftp-2003", __file__], "is no directory"),
    ],
)
def test_bad_arguments_are_told_in_a_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_paging_that_does_not_fit_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service-x64", str(tmp_path), "--paging", "pae"]) == 1
    assert "paging pae does not fit" in capsys.readouterr().err


def test_list_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(builders())
    assert all(len(line.split()) > 4 for line in lines)
