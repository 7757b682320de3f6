# SPDX-License-Identifier: Apache-2.0
"""PDBs in the plugins, run through `vol` on the reference case: what they add, and what happens when they are wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.forge.cases import builders
from tests.forge.pdbs import write_pdbs
from tests.support.pdb_writer import Inline, Pdb
from tests.support.plugins_truth import expected_stacks, only
from tests.support.reference_pdbs import PDB, SOURCES, THROWN, sources, stack, stored, tables
from tests.support.vol import vol

KERNEL_ISF = "ntkr*.pdb"


@pytest.fixture(scope="module")
def case(forged: Forge) -> tuple[Path, list[dict[str, Any]]]:
    """The reference case: its directory, and the frames that its throwing stack has."""
    out, truth = forged("ftp-2003")
    return out, expected_stacks(truth)


@pytest.fixture
def pdbs() -> dict[str, Pdb]:
    """The PDBs of the case, to be altered."""
    return builders()["ftp-2003"][0]().pdbs


def test_the_reference_case_has_the_sources_of_the_transcript(case):
    out, frames = case
    done = stack(out, "--symbol-path", str(out / "pdb"))
    assert only(done.rows, frames) == frames
    assert sources(done.rows) == SOURCES
    assert [row["Call Site"].partition("+")[0] for row in done.rows] == [name for name, _, _ in THROWN]
    assert {row["Symbols"].rstrip("?") for row in done.rows} == {"pdb"}
    assert "refused" not in done.err


def test_frames_are_found_by_what_the_pdbs_say_of_them(case):
    """A frame's trust is that of the record of the function inside it; RaiseException's does not fit its code."""
    out, _ = case
    rows = stack(out, "--symbol-path", str(out / "pdb")).rows
    assert [row["Trust"] for row in rows] == ["context", "prologue", *["cfi"] * 9]


def test_system_frames_are_found_by_fpo_records(case):
    out, _ = case
    (thread,) = vol(out, "windows.stackwalk", "--tid", "2792", "--brief", "--symbol-path", str(out / "pdb")).rows
    trust = {row["Call Site"]: row["Trust"] for row in thread["__children"]}
    assert trust["KERNEL32!WaitForMultipleObjectsEx+0x11a"] == "fpo"
    assert trust["ole32!CoWaitForMultipleHandles+0xc9"] == "fpo"
    assert trust["MSVCR71!doexit+0xab"] == "fpo"
    # A Non-FPO record, here that of the function inside, says no more than that ebp points to the frame.
    assert trust["USER32!RealMsgWaitForMultipleObjectsEx+0x141"] == "prologue"
    assert trust["mscorwks!CLREvent::WaitEx+0xf7"] == "cfi"


def test_the_blocked_stack_has_the_runtimes_sources(case):
    out, _ = case
    (thread,) = vol(out, "windows.stackwalk", "--tid", "2792", "--brief", "--symbol-path", str(out / "pdb")).rows
    crt = r"[f:\vs70builds\3052\vc\crtbld\crt\src"
    runtime = {row["Call Site"]: row["Source"] for row in thread["__children"] if "MSVCR71!" in row["Call Site"]}
    assert runtime == {
        "MSVCR71!__crtExitProcess+0x25": rf"{crt}\crt0dat.c @ 463]",
        "MSVCR71!doexit+0xab": rf"{crt}\crt0dat.c @ 414]",
        "MSVCR71!_exit+0xd": rf"{crt}\crt0dat.c @ 311]",
        "MSVCR71!raise+0xae": rf"{crt}\winsig.c @ 508]",
        "MSVCR71!abort+0xe": rf"{crt}\abort.c @ 48]",
    }


def test_kv_shows_what_the_records_say(case):
    out, _ = case
    rows = stack(out, "--symbol-path", str(out / "pdb"), "--kv").rows
    assert [row["FPO"] for row in rows[:5]] == [fpo for _, _, fpo in THROWN[:5]]
    assert rows[-1]["FPO"] == "FPO: [SEH]"
    assert {row["FPO"] for row in stack(out, "--kv").rows} == {None}


# What the transcript's `!thread` shows after the frames of the blocked stack up to abort, as far as symbols say it.
BLOCKED = """\
ntdll!KiFastSystemCallRet (FPO: [0,0,0])
ntdll!NtWaitForMultipleObjects (FPO: [5,0,0])
KERNEL32!WaitForMultipleObjectsEx (FPO: [SEH])
USER32!RealMsgWaitForMultipleObjectsEx (FPO: [5,13,0])
ole32!CCliModalLoop::BlockFn (FPO: [3,0,4])
ole32!CoWaitForMultipleHandles (FPO: [5,20,4])
mscorwks!NT5WaitRoutine (FPO: [5,1,0])
mscorwks!MsgWaitHelper (FPO: [SEH])
mscorwks!Thread::DoAppropriateAptStateWait (FPO: [5,0,4])
mscorwks!Thread::DoAppropriateWaitWorker (FPO: [5,22,4])
mscorwks!Thread::DoAppropriateWait (FPO: [SEH])
mscorwks!CLREvent::WaitEx (FPO: [3,11,4])
mscorwks!CLREvent::Wait (FPO: [3,0,0])
mscorwks!CorExitProcess (FPO: [0,21,4])
mscorwks!WaitForEndOfShutdown (FPO: [0,0,0])
mscorwks!EEShutDown (FPO: [1,5,4])
mscorwks!DisableRuntime (FPO: [0,0,0])
mscoree!CorExitProcess (FPO: [1,1,0])
MSVCR71!__crtExitProcess (FPO: [1,0,0])
MSVCR71!doexit (FPO: [Non-Fpo])
MSVCR71!_exit (FPO: [1,0,0])
MSVCR71!raise (FPO: [Non-Fpo])
MSVCR71!abort (FPO: [0,0,0])
KERNEL32!UnhandledExceptionFilter (FPO: [SEH])
""".splitlines()


def test_kv_of_the_blocked_stack_reads_as_in_the_transcript(case):
    out, _ = case
    options = ("--tid", "2792", "--brief", "--kv", "--symbol-path", str(out / "pdb"))
    (thread,) = vol(out, "windows.stackwalk", *options).rows
    assert thread["FPO"] is None
    frames = [frame for frame in thread["__children"] if frame["Side"] == "x86"]
    shown = [f"{frame['Call Site'].partition('+')[0]} ({frame['FPO']})" for frame in frames]
    assert shown[: len(BLOCKED)] == BLOCKED
    handler = next(frame for frame in frames if frame["Call Site"].startswith("KERNEL32!_except_handler3+"))
    assert handler["FPO"] == "FPO: [Uses EBP] [3,0,7]"


def test_names_are_shown_raw_or_with_signatures_when_asked_for(case):
    out, _ = case
    path = ("--symbol-path", str(out / "pdb"))
    signatures = [row["Call Site"] for row in stack(out, *path, "--names", "signature").rows]
    assert signatures[2] == ("ftpsrvdata_pg!void __stdcall _com_raise_error(HRESULT hr, IErrorInfo * perrinfo)+0x32")
    assert signatures[4] == ("ftpsrvdata_pg!void __cdecl PrintProviderError(ADODB::_ConnectionPtr pConnection)+0x35")
    (thread,) = vol(out, "windows.stackwalk", "--tid", "2792", "--brief", *path, "--names", "raw").rows
    raw = {row["Call Site"] for row in thread["__children"]}
    assert "ole32!?BlockFn@CCliModalLoop@@QAEXXZ+0x7d" in raw
    assert "ole32!CCliModalLoop::BlockFn+0x7d" not in raw


def test_inlined_functions_have_rows_of_their_own(case, pdbs, tmp_path):
    """What was inlined at the call: List::push, and grow inside it."""
    out, frames = case
    header = r"d:\fts\inc\list.h"
    (printer,) = (function for function in pdbs[PDB].procedures if function.name == "PrintProviderError")
    at = 0x35 - 5
    printer.inlines = [
        Inline("List::push", header, 90, [(at, 5, 91)], [Inline("grow", header, 20, [(at, 5, 22)])]),
    ]
    write_pdbs(tmp_path, pdbs)
    rows = stack(out, "--symbol-path", str(tmp_path)).rows
    assert len(rows) == len(frames) + 2
    shown = [(row["Call Site"], row["Source"], row["Trust"], row["RetAddr"], row["Args"]) for row in rows[4:7]]
    # The frame's own line is that of the call that was inlined, which this PDB leaves at 860.
    assert shown == [
        ("ftpsrvdata_pg!grow", rf"[{header} @ 22]", "inline", None, None),
        ("ftpsrvdata_pg!List::push", rf"[{header} @ 91]", "inline", None, None),
        (
            "ftpsrvdata_pg!PrintProviderError+0x35",
            r"[d:\fts\ftpsrvdata_pg\src\idbcommand.cpp @ 860]",
            "cfi",
            frames[4]["RetAddr"],
            frames[4]["Args"],
        ),
    ]
    assert {row["Child-SP"] for row in rows[4:7]} == {frames[4]["Child-SP"]}


def other_guid(pdb: Pdb) -> Pdb:
    return replace(pdb, guid="00112233445566778899AABBCCDDEEFF")


def other_age(pdb: Pdb) -> Pdb:
    return replace(pdb, age=7)


@pytest.mark.parametrize(
    ("altered", "reason"), [(other_guid, "GUID 00112233445566778899AABBCCDDEEFF"), (other_age, "age 7")]
)
def test_the_wrong_pdb_is_refused_by_name(case, pdbs, tmp_path, altered, reason):
    out, frames = case
    (tmp_path / PDB).write_bytes(altered(pdbs[PDB]).to_bytes())
    done = stack(out, "--symbol-path", str(tmp_path))
    assert f"{tmp_path / PDB}: refused: {reason}, the image wants" in done.err
    assert only(done.rows, frames) == frames
    assert set(sources(done.rows)) == {None}
    assert tables(done.rows, "ftpsrvdata_pg") == {"isf"}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def scribbled(data: bytes) -> bytes:
    """The identity left as it is, most else overwritten."""
    return data[:0x5000] + b"\xff" * (len(data) - 0x5000)


@pytest.mark.parametrize("damage", [cut, scribbled, lambda _: b"", lambda _: b"<html>not found</html>"])
def test_a_damaged_pdb_costs_a_message_and_no_more(case, tmp_path, damage):
    out, frames = case
    shutil.copytree(out / "pdb", tmp_path / "pdb")
    path = stored(tmp_path / "pdb", PDB)
    path.write_bytes(damage(path.read_bytes()))
    done = stack(out, "--symbol-path", str(tmp_path / "pdb"), environment={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert str(path) in done.err
    assert "Traceback" not in done.err
    assert only(done.rows, frames) == frames
    assert tables(done.rows, "ftpsrvdata_pg") == {"isf"}
    assert tables(done.rows, "FTPParsers") == {"pdb"}


def without_user_modules(out: Path, target: Path) -> Path:
    """The symbol tables of the case but for the kernel's, left out."""
    for directory in (out / "isf" / "windows").glob(KERNEL_ISF):
        shutil.copytree(directory, target / "windows" / directory.name)
    assert len(list(target.glob("windows/*"))) == 1
    return target


def test_without_any_symbols_the_return_addresses_are_the_same(case, tmp_path):
    out, frames = case
    rows = stack(out, isf=without_user_modules(out, tmp_path)).rows
    assert [row["RetAddr"] for row in rows] == [frame["RetAddr"] for frame in frames]
    assert [row["Child-SP"] for row in rows] == [frame["Child-SP"] for frame in frames]
    assert {row["Symbols"] for row in rows} <= {"export", "export?", None}


def test_the_environment_gives_the_path_and_the_option_goes_before(case, tmp_path):
    out, _ = case
    environment = {"_NT_SYMBOL_PATH": f"{tmp_path / 'nothing'};{out / 'pdb'}"}
    assert sources(stack(out, environment=environment).rows) == SOURCES
    rows = stack(out, "--symbol-path", str(tmp_path), environment=environment).rows
    assert set(sources(rows)) == {None}


def test_the_settings_of_volatility_give_the_path(case, tmp_path):
    out, _ = case
    for directory in (".config", "AppData"):  # the latter on Windows
        settings = tmp_path / directory / "volatility3" / "vol.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"symbol_path": str(out / "pdb")}), encoding="utf-8")
    environment = {"HOME": str(tmp_path), "APPDATA": str(tmp_path / "AppData"), "_NT_SYMBOL_PATH": str(tmp_path)}
    assert sources(stack(out, environment=environment).rows) == SOURCES
