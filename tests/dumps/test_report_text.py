# SPDX-License-Identifier: Apache-2.0
"""`throwstack report` on whole dumps: the text holds what WinDbg shows by hand, and fits a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

import throwstack
from tests.conftest import Forge
from tests.support.reference_transcript import THREAD, THROWING, expected
from throwstack.report.text.report_text import lines_of
from throwstack.report.text.text_lines import TextStyle


def text_of(out: Path, style: TextStyle | None = None, **selection: bool) -> list[str]:
    """Return the report on the dump in `out` as lines."""
    pdbs = out / "pdb"
    path = str(pdbs) if pdbs.is_dir() else ""
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path=path, offline=True) as dump:
        return list(lines_of(dump.report(**selection), style))


@pytest.fixture(scope="module")
def ftp(forged: Forge) -> str:
    return "\n".join(text_of(forged("ftp-2003")[0]))


def test_the_stacks_are_those_of_the_transcript(ftp: str):
    """Every frame of both stacks, with ChildEBP, RetAddr and Args to Child. A ? before a name marks a guess."""
    shown = ftp.replace("?", "")
    assert [row for row in (*expected(THROWING), *expected(THREAD)) if row not in shown] == []


@pytest.mark.parametrize(
    "figures",
    [
        # !process and !thread
        *("iftpsvc.exe", "0xa04", "EPROCESS 8948fa08", "PEB 7ffde000", "(444 = 0x1bc)", "DirBase 7f404520"),
        *("Token e267fbf0", "0xae8", "ETHREAD 89e3d418", "TEB 7ffad000", "Win32Thread e26a6508"),
        *("UserMode Alertable", "8948fcb0 NotificationEvent", "898f1b88 SynchronizationEvent"),
        *("89e3d490 NotificationTimer", "20 ticks (0.312 s)", "24 context switches", "priority 10 (base 8)"),
        *("_endthreadex", "(781329e1)", "KERNEL32!BaseThreadStartThunk (77e617ec)"),
        "Init b8fdf000 Current b8fde900 Base b8fdf000 Limit b8fdb000",
        # .exr and .cxr
        *("045bab68: code e06d7363", "045ba888", "3 parameters 19930520 045bac00 03440a54"),
        "eax=045bab68 ebx=033f97fe ecx=00000000 edx=045bac00 esi=045babf0 edi=00000000",
        "eip=77e4bee7 esp=045bab64 ebp=045babb8 iopl=0         nv up ei pl nz na pe nc",
        "cs=001b  ss=0023  ds=0023  es=0023  fs=003b  gs=0000             efl=00000206",
        "KERNEL32!RaiseException+0x53:\n  001b:77e4bee7 5e              pop     esi",
        # sources, and what is said of the functions
        *(r"f:\sp\vctools\compiler\cxxfe\sl\vccom\comraise.cpp @ 18", r"comsupp.cpp @ 40"),
        *(r"d:\fts\ftpsrvdata_pg\src\idbcommand.cpp @ 860", r"d:\fts\ftpsrvdata_pg\src\idbcommand.cpp @ 610"),
        *(r"d:\fts\ftpsrvdata_pg\src\ftpsystemstats_impl.cpp @ 288", r"d:\fts\ftpparsers\ftpstats.cpp @ 413"),
        *(r"f:\vs70builds\3052\vc\crtbld\crt\src\crt0dat.c @ 463", r"crt\src\winsig.c @ 508"),
        "void __cdecl PrintProviderError(ADODB::_ConnectionPtr pConnection = 0)",
        "void __stdcall _com_raise_error(HRESULT hr = 0x80004003 E_POINTER, IErrorInfo * perrinfo = 0)",
        "C++ _com_error, HRESULT 0x80004003 E_POINTER (Invalid pointer)",
        # how to go on
        ".process /r /p 8948fa08; .thread 89e3d418; .cxr 045ba888; kb",
    ],
)
def test_the_report_holds_what_the_transcript_shows(ftp: str, figures: str):
    assert figures in ftp


def test_the_first_lines_say_what_machine_it_was(ftp: str):
    assert ftp.splitlines()[:4] == [
        "MEMORY.DMP    Windows Server 2003 x86 (PAE), build 3790, Service Pack 2, 2 processors",
        "              Windows crash dump, 32-bit: complete memory dump (type 1), 5.1 MiB",
        "              taken 2008-03-14 20:26:40 UTC, up 0:01:52, MANUALLY_INITIATED_CRASH (bug check e2)",
        "              4 processes and 10 threads examined: 1 stuck",
    ]


def test_the_headline_and_the_user(ftp: str):
    assert "\n== iftpsvc.exe (2564 = 0xa04), thread 2792 = 0xae8: crashed inside shutdown ====" in ftp
    assert r"started 2008-03-14 20:25:37, session 0, user NT AUTHORITY\SYSTEM, parent services.exe" in ftp


def test_threads_that_are_not_stuck_are_told_once_a_stack(forged: Forge, ftp: str):
    assert "\n  2568, 2576: Waiting UserRequest, in iftpsvc+0x1388\n" in ftp
    whole = "\n".join(text_of(forged("ftp-2003")[0], TextStyle(all_threads=True)))
    assert "KERNEL32!WaitForSingleObjectEx+0xac" not in ftp
    assert "KERNEL32!WaitForSingleObjectEx+0xac" in whole


@pytest.mark.parametrize("case", ["ftp-2003", "service-x64", "nested", "wow64-service", "deadlock", "handlers-x64"])
def test_no_line_has_more_than_120_columns(forged: Forge, case: str):
    lines = text_of(forged(case)[0], TextStyle(all_threads=True), handled=True)
    assert max(map(cell_len, lines)) <= 120


def test_a_machine_on_which_nobody_is_stuck(forged: Forge):
    """It says how much was looked at, and nothing else."""
    lines = text_of(forged("quiet")[0])
    assert lines[3:] == ["              3 processes and 10 threads examined: none is stuck on an unhandled exception"]


def test_deadlocks_are_told_where_nobody_is_stuck(forged: Forge):
    text = "\n".join(text_of(forged("deadlock")[0]))
    assert "5 threads wait in 2 deadlocks" in text
    assert "ledgerd.exe (1500), thread 1504 waits for critical section 0x407020 ledgerd!g_accounts" in text
    assert 'thread 1520 waits for 8a002aa0 Mutant "LedgerSettled" owned by 1776:1780' in text


def test_the_exception_that_was_being_handled_comes_after_the_one_that_led_to_the_end(forged: Forge):
    lines = text_of(forged("nested")[0])
    heads = [line for line in lines if line.startswith("  It was ") or "The stack that threw" in line]
    assert heads[0] == "  The stack that threw"
    assert any(line.startswith("  It was raised while another exception was being handled") for line in heads)


def test_both_sides_of_wow64_have_their_own_columns(forged: Forge):
    lines = text_of(forged("wow64-service")[0])
    waits = lines[lines.index("  Where it waits, kernel to user") :]
    heads = [line.split()[1] for line in waits if line.startswith("   # ")]
    assert heads == ["Child-SP", "ChildEBP"]
    assert any(".thread /w " in line and line.endswith("; kb") for line in lines)
