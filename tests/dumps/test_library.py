# SPDX-License-Identifier: Apache-2.0
"""`throwstack.open`: a dump opened by a program, and what it says when it cannot be."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import volatility3.symbols
from volatility3.framework import constants

import throwstack
from tests.conftest import Forge
from throwstack.core.budgets import BUDGETS
from throwstack.core.sides import Side
from throwstack.report.dump_report import WarningCode
from throwstack.report.verdict import VerdictCode
from throwstack.volatility.opening import kernel_symbols

Place = tuple[Path, Path]


@pytest.fixture
def ftp(forged: Forge) -> Place:
    out, _ = forged("ftp-2003")
    return out / "MEMORY.DMP", out / "isf"


@pytest.fixture(autouse=True)
def _settings_are_as_before() -> Iterator[None]:
    before = list(volatility3.symbols.__path__), constants.OFFLINE
    yield
    assert (list(volatility3.symbols.__path__), constants.OFFLINE) == before


def test_the_reference_case(ftp: Place):
    with throwstack.open(ftp[0], symbols=[ftp[1]], symbol_path="", offline=True) as dump:
        report = dump.report()
    (crash,) = report.crashes
    assert (crash.pid, crash.process.name, crash.tid) == (2564, "iftpsvc.exe", 2792)
    assert (crash.side, crash.arch) == (Side.X86, "x86")
    assert crash.verdict.text == "crashed inside shutdown"
    assert [blocker.name for blocker in crash.blockers] == [
        "KERNEL32!UnhandledExceptionFilter",
        "MSVCR71!abort",
        "mscorwks!CorExitProcess",
    ]
    exception = crash.exception
    assert exception is not None
    assert (exception.code, exception.type, exception.hresult) == (0xE06D7363, "_com_error", 0x80004003)
    assert (exception.record_address, exception.context_address) == (0x45BAB68, 0x45BA888)
    assert crash.throwing is not None
    assert crash.throwing.is_complete
    assert [frame.name for frame in crash.throwing.frames][:3] == [
        "KERNEL32!RaiseException+0x53",
        "MSVCR80!_CxxThrowException+0x46",
        "ftpsrvdata_pg!_com_raise_error+0x32",
    ]
    assert crash.throwing.frames[0].registers["eip"] == 0x77E4BEE7
    assert crash.throwing.frames[0].args == (0xE06D7363, 1, 3)
    assert crash.thrown_at == "ftpsrvdata_pg!_com_raise_error+0x32"


def test_the_machine_of_the_reference_case(ftp: Place):
    with throwstack.open(ftp[0], symbols=[ftp[1]], symbol_path="", offline=True) as dump:
        report = dump.report()
    machine = report.machine
    assert (machine.system, machine.architecture, machine.build) == ("Windows Server 2003", "x86", 3790)
    assert (machine.service_pack, machine.processors) == ("Service Pack 2", 2)
    assert machine.bug_check is not None
    assert (machine.bug_check.code, machine.bug_check.name) == (0xE2, "MANUALLY_INITIATED_CRASH")
    assert report.file.is_complete
    assert (report.examined.processes, report.examined.threads) == (4, 10)
    assert {file.module for file in report.symbols_wanted} >= {"ftpsrvdata_pg", "KERNEL32"}


def test_reports_can_be_read_after_the_dump_was_closed(ftp: Place):
    with throwstack.open(*ftp[:1], symbols=[ftp[1]], symbol_path="", offline=True) as dump:
        crashes, threads, processes = list(dump.crashes()), list(dump.threads()), list(dump.processes())
    assert crashes[0].blocked is not None
    assert crashes[0].blocked.frames[0].name == "ntdll!KiFastSystemCallRet"
    assert len(threads) == 10
    assert {process.pid for process in processes} >= {2564}
    (stuck,) = [thread for thread in threads if thread.tid == 2792]
    assert stuck.wait is not None
    assert (stuck.state, stuck.wait.reason) == ("Waiting", "UserRequest")
    assert [part.side for part in stuck.parts] == [Side.KERNEL, Side.X86]
    assert next(frame.name for _, frame in stuck.frames) == "nt!KiSwapContext+0x26"


def test_two_dumps_may_be_open_and_closed_in_any_order(forged: Forge, ftp: Place):
    out, _ = forged("service-x64")
    first = throwstack.open(ftp[0], symbols=[ftp[1]], symbol_path="", offline=True)
    second = throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path="", offline=True)
    assert len(list(first.crashes())) == 1
    first.close()
    assert len(list(second.crashes())) == 2
    second.close()


def test_processes_and_threads_can_be_selected(forged: Forge):
    out, _ = forged("service-x64")
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path="", offline=True) as dump:
        tids = [crash.tid for crash in dump.crashes()]
        assert [crash.tid for crash in dump.crashes(tids=tids[1:])] == tids[1:]
        assert [crash.tid for crash in dump.crashes(names=["LEDGERSVC"])] == tids
        assert not list(dump.threads(names=["nobody.exe"]))
        with pytest.raises(throwstack.ThrowstackError, match="names is a collection of texts"):
            list(dump.crashes(names="ledgersvc"))
        report = dump.report(pids=[4242], tids=[17])
    assert report.crashes == ()
    found = {(warning.code, warning.pid, warning.tid) for warning in report.warnings}
    assert found == {(WarningCode.NOT_FOUND, 4242, None), (WarningCode.NOT_FOUND, None, 17)}


def test_exceptions_that_a_handler_has_taken_are_reported_when_asked_for(forged: Forge):
    out, truth = forged("handlers-x86")
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path="", offline=True) as dump:
        assert len(list(dump.crashes())) == len(truth.stuck)
        handled = [crash for crash in dump.crashes(handled=True) if crash.verdict.code is VerdictCode.HANDLED]
        report = dump.report(handled=True)
    (crash,) = handled
    assert (crash.pid, crash.tid, crash.exceptions) in [(one.pid, one.tid, one.exceptions) for one in report.crashes]
    assert crash.exception.code == 0xC0000005
    assert crash.throwing.frames[0].ip == truth.stuck[0].address


def test_one_side_of_32_bit_processes_can_be_selected(forged: Forge):
    out, truth = forged("wow64-service")
    (stuck,) = truth.stuck
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        assert [(crash.tid, crash.side, crash.arch) for crash in dump.crashes(wow64="x86")] == [
            (stuck.tid, Side.X86, "wow64")
        ]
        threads = [thread for thread in dump.threads(wow64="both") if thread.tid == stuck.tid]
        assert [part.side for part in threads[0].parts] == [Side.KERNEL, Side.NATIVE, Side.X86]
        with pytest.raises(throwstack.ThrowstackError, match="wow64 is one of x86, native, both, not x64"):
            list(dump.crashes(wow64="x64"))


def test_a_closed_dump_says_so_and_its_file_is_closed(ftp: Place):
    dump = throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True)
    crashes = dump.crashes()
    next(crashes)
    dump.close()
    dump.close()
    with pytest.raises(throwstack.ThrowstackError, match="the dump was closed"):
        dump.report()
    with pytest.raises(throwstack.ThrowstackError, match="the dump was closed"):
        next(crashes)


def test_a_list_of_processes_that_is_paged_out_is_no_clean_bill(forged: Forge):
    out, _ = forged("paged-peb")
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path="", offline=True) as dump:
        report = dump.report()
    assert any(warning.code is WarningCode.PROCESS and warning.pid for warning in report.warnings)


def test_progress_is_told_percentages_and_texts(ftp: Place):
    told: list[tuple[float, str]] = []
    with throwstack.open(
        ftp[0], symbols=[ftp[1]], symbol_path="", offline=True, progress=lambda share, text: told.append((share, text))
    ) as dump:
        dump.report()
    assert "Examining iftpsvc.exe (2564)" in [text for _, text in told]
    assert all(0 <= share <= 100 for share, _ in told)


def test_what_cannot_be_opened_is_said_in_a_line(ftp: Place, tmp_path: Path):
    text, empty, cut = tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "cut.dmp"
    text.write_text("not a dump")
    empty.touch()
    cut.write_bytes(ftp[0].read_bytes()[:100])
    for path, words in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "directory"),
        (text, "text file: this is text, not a memory image"),
        (empty, "empty file: the file has no contents: copy it again"),
        (cut, "not even the header is whole"),
    ):
        with pytest.raises(throwstack.ThrowstackError) as caught:
            throwstack.open(path, symbols=[ftp[1]], offline=True)
        message = str(caught.value)
        assert words in message
        assert path.name in message
        assert "\n" not in message


def test_symbols_that_are_not_at_hand_are_named(ftp: Place, tmp_path: Path):
    with pytest.raises(throwstack.ThrowstackError, match=r"windows/ntkrpamp\.pdb/[0-9A-F]{32}-\d+\.json\.xz"):
        throwstack.open(ftp[0], symbols=[tmp_path], offline=True)


def test_a_page_file_that_is_not_there_is_named(ftp: Place, tmp_path: Path):
    with pytest.raises(throwstack.ThrowstackError, match=r"pagefile\.sys is not a file"):
        throwstack.open(ftp[0], symbols=[ftp[1]], page_files=[tmp_path / "pagefile.sys"], offline=True)


def test_the_kernels_symbols_are_fetched_into_the_users_cache(
    ftp: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server's part is played by a function that writes where Volatility's would: the first symbol directory."""
    asked: list[str] = []

    def download(_context: object, guid: str, age: int, name: str, _progress: object) -> None:
        asked.append(name)
        (made,) = ftp[1].rglob(f"{guid}-{age}.json.xz")
        target = Path(volatility3.symbols.__path__[0], made.relative_to(ftp[1]))
        target.parent.mkdir(parents=True)
        shutil.copy(made, target)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_symbols.pdbutil.PDBUtility, "download_pdb_isf", download)
    own = tmp_path / "own"
    own.mkdir()
    for _ in range(2):
        with throwstack.open(ftp[0], symbols=[own], symbol_path="") as dump:
            assert len(list(dump.crashes())) == 1
    assert asked == ["ntkrpamp.pdb"]
    assert list(own.iterdir()) == []


def test_a_server_that_does_not_answer_costs_a_line(ftp: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "unreachable\x1b[31m")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_symbols.pdbutil.PDBUtility, "download_pdb_isf", fails)
    with pytest.raises(throwstack.ThrowstackError, match="symbols are not at hand"):
        throwstack.open(ftp[0], symbols=[tmp_path])


def test_who_has_no_pdb_does_not_wait_for_the_modules_that_read_them():
    """Importing them takes a tenth of what `windows.unhandled` takes on a whole machine."""
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    readers = "('throwstack.pdb.', 'throwstack.variables.')"
    code = (
        "import sys; from throwstack.volatility import crashes, plugin_runs; "
        f"sys.exit(' '.join(name for name in sys.modules if name.startswith({readers})) or None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_importing_throwstack_does_not_load_volatility():
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = "import sys, throwstack; sys.exit('volatility3' in sys.modules or 'capstone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_directory_of_symbols_that_can_be_none_is_said_and_does_no_harm_to_the_next_dump(ftp: Place, tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for given in ("a\0b", loop):
        with pytest.raises(throwstack.ThrowstackError):
            throwstack.open(ftp[0], symbols=[given], offline=True)
    with throwstack.open(ftp[0], symbols=[ftp[1]], symbol_path="", offline=True) as dump:
        assert len(list(dump.crashes())) == 1


def test_paths_that_can_be_no_files_are_said(ftp: Place):
    for path, words in (("", "is empty"), ("a\0b", "can be no file's path"), ("\udcff", "")):
        with pytest.raises(throwstack.ThrowstackError, match=words) as caught:
            throwstack.open(path, symbols=ftp[1], offline=True)
        assert str(caught.value).isprintable()


def test_relative_directories_of_symbols_stay_where_they_were(
    ftp: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ftp[1].parent)
    with throwstack.open(ftp[0], symbols="isf", symbol_path="", offline=True) as first:
        monkeypatch.chdir(tmp_path)
        with throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True):
            assert str(ftp[1].resolve()) in volatility3.symbols.__path__
        (crash,) = first.crashes()
    assert crash.thrown_at == "ftpsrvdata_pg!_com_raise_error+0x32"


def test_a_hosts_own_settings_are_kept(ftp: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "OFFLINE", True)
    with throwstack.open(ftp[0], symbols=ftp[1], symbol_path=""):
        assert constants.OFFLINE
    assert constants.OFFLINE


def test_wrong_arguments_are_not_blamed_on_the_dump(ftp: Place):
    with throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True) as dump:
        for wrong in ({"pids": 5}, {"pids": None}, {"tids": ["a"]}, {"pids": "2564"}):
            with pytest.raises(throwstack.ThrowstackError, match="is a collection of numbers, not"):
                dump.report(**wrong)


MINE = "my own"


def test_what_progress_raises_is_the_callers(ftp: Place):
    def fails(_share: float, _text: str) -> None:
        raise LookupError(MINE)

    with (
        throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True, progress=fails) as dump,
        pytest.raises(LookupError, match=MINE),
    ):
        dump.report()


def test_names_in_messages_are_escaped(ftp: Place, tmp_path: Path):
    data = ftp[0].read_bytes()
    at = data.index(b"ntkrpamp.pdb\0")
    hostile = tmp_path / "hostile.dmp"
    hostile.write_bytes(data[:at] + b"\x1b\n" + data[at + 2 :])
    with pytest.raises(throwstack.ThrowstackError) as caught:
        throwstack.open(hostile, symbols=ftp[1], offline=True)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the open files of a process as Linux shows them")
def test_a_closed_dump_holds_no_file(ftp: Place):
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True) as dump:
        list(dump.crashes())
    before = files()
    for _ in range(3):
        with throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True) as dump:
            list(dump.crashes())
    assert files() == before


def test_damage_that_takes_a_process_away_is_told(forged: Forge, tmp_path: Path):
    """EPROCESS.Peb of the crashed process is zeroed: as if it were one of the kernel's own processes."""
    out, truth = forged("service-x64")
    pid = truth.stuck[0].pid
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        machine = dump._machine
        (item,) = (item for item in machine.processes() if int(item.UniqueProcessId) == pid)
        peb = machine.layout.offset("_EPROCESS.Peb")
        physical, _ = machine.context.layers[machine.kernel.layer_name].translate(item.vol.offset + peb)
        data = machine.memory.read(machine.canonical(item.vol.offset) + peb, 8)
    content = (out / "MEMORY.DMP").read_bytes()
    at = next(at for at in range(physical % 0x1000, len(content), 0x1000) if content[at : at + 8] == data)
    assert content.count(data) >= 1
    damaged = tmp_path / "damaged.dmp"
    damaged.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    with throwstack.open(damaged, symbols=out / "isf", symbol_path="", offline=True) as dump:
        report = dump.report()
    assert report.crashes == ()
    assert [(process.pid, process.name) for process in report.unexamined] == [(pid, "ledgersvc.exe")]


def test_a_budget_that_hides_pages_is_told(forged: Forge, monkeypatch: pytest.MonkeyPatch):
    out, _ = forged("service-x64")
    monkeypatch.setattr("throwstack.volatility.memory.vads.BUDGETS", replace(BUDGETS, vads=2))
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        report = dump.report()
    assert any(warning.code is WarningCode.PAGES and "2 VADs" in warning.text for warning in report.warnings)


@pytest.mark.usefixtures("caught")
def test_a_machine_that_cannot_be_described_costs_no_crash(ftp: Place, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr("throwstack.volatility.machine_report._build", fails)
    with throwstack.open(ftp[0], symbols=ftp[1], symbol_path="", offline=True) as dump:
        report = dump.report()
    assert len(report.crashes) == 1
    assert (report.machine.system, report.machine.architecture) == ("Windows", "x86")
