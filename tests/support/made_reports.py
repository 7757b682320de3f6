# SPDX-License-Identifier: Apache-2.0
"""Reports that no dump has: made by hand, also as an attacker would have them, and with deep stacks."""

from __future__ import annotations

import datetime
from dataclasses import replace

from throwstack.core.frames import End, Trust
from throwstack.core.sides import Side
from throwstack.dispatch.saved_exception import Route
from throwstack.exceptions.model import ExceptionKind
from throwstack.names.blockers import BlockerKind
from throwstack.report.crash_report import BlockerReport, CrashReport, ExceptionReport, InnerException, ProcessSummary
from throwstack.report.dump_report import (
    SCHEMA_VERSION,
    DumpReport,
    Examined,
    FileReport,
    MachineReport,
    ReportWarning,
    WantedFile,
    WarningCode,
)
from throwstack.report.frame_report import FrameReport, Variable, WalkReport
from throwstack.report.module_report import ModuleReport, NamesFrom, PdbReport
from throwstack.report.process_report import ProcessReport
from throwstack.report.stack_parts import StackExtent
from throwstack.report.thread_groups import ThreadGroup
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict, VerdictCode
from throwstack.stuck.signature import Signature

BASE = 0x100000
"""The base of the stacks."""
TIME = datetime.datetime(2026, 3, 14, 20, 26, 40, tzinfo=datetime.timezone.utc)
ATTACKS = (
    "<script>window.attacked = 1</script>",
    "</style></script></title></pre><script>window.attacked = 1</script>",
    "\"><img src='https://attacker.example/a.png' onerror='window.attacked = 1'>",
    "' onmouseover='window.attacked = 1' autofocus onfocus='window.attacked = 1",
    "<style>@import url(https://attacker.example/a.css)</style>",
    "javascript:window.attacked=1",
    "{{ 7 * 7 }}{% raw %}<!-- &lt;b&gt; -->",
    "exe.\u202etxt\u2066gpj\u200b\x1b[31m\x00\ud800\n\r",
    "\u05e9\u05dc\u05d5\u05dd !\u0645\u0631\u062d\u0628\u0627 +0x10",
    "N" * 5000,
    "std::vector<" * 300 + "int" + " >" * 300,
)
"""Names that nobody should meet: of HTML, of templates, of other scripts and directions, without an end."""


def frame(number: int, sp: int, name: str = "", trust: Trust = Trust.CFI, **fields: object) -> FrameReport:
    """Return a frame; without `name` it is `app!f<number>+0x10`."""
    name = name or f"app!f{number}+0x10"
    module, _, function = name.partition("!")
    values = {"module": module, "function": function.partition("+")[0], "symbols": "pdb", **fields}
    back = Hexadecimal(0x401010 + 16 * number)
    return FrameReport(number, Hexadecimal(0x401000 + 16 * number), Hexadecimal(sp), name, trust.value, back, **values)


def stack(count: int, size: int = 0x40, *, base: int = BASE, end: End = End.THREAD_START) -> WalkReport:
    """Return a stack of `count` frames of `size` bytes, the outermost of which ends at `base`."""
    frames = [frame(number, base - (count - number) * size) for number in range(count)]
    frames[0] = replace(frames[0], trust=Trust.CONTEXT.value)
    return WalkReport(tuple(frames), end)


def crash(pid: int = 2564, tid: int = 2792, **fields: object) -> CrashReport:
    """Return a stuck thread of 64-bit code: 4 frames that threw, and 4 more on which it waits.

    The last of these is the dispatcher's, and has the CONTEXT and the record.
    """
    throwing = stack(4)
    waits = (frame(number, BASE - 0xA00 + 0x40 * number, f"ntdll!Waits{number}+0x14") for number in range(4))
    blocked = WalkReport(
        (*waits, *(replace(each, number=each.number + 4) for each in throwing.frames)), End.THREAD_START
    )
    exception = ExceptionReport(
        Hexadecimal(0xE06D7363),
        Hexadecimal(0x401000),
        title="C++ app::Error",
        kind=ExceptionKind.CPP,
        type="app::Error",
        flags=1,
        parameters=(Hexadecimal(0x19930520), Hexadecimal(0xFFE80)),
        record_address=Hexadecimal(BASE - 0x300),
        context_address=Hexadecimal(BASE - 0x800),
        routes=(Route.FILTER_ARGUMENT, Route.DISPATCHER),
    )
    values = {
        "verdict": CrashVerdict(VerdictCode.CRASHED_IN_FILTER, VerdictCode.CRASHED_IN_FILTER.value),
        "blockers": (BlockerReport("KERNELBASE", "UnhandledExceptionFilter", BlockerKind.UNHANDLED_FILTER),),
        "exceptions": (exception,),
        "throwing": throwing,
        "blocked": blocked,
        "thrown_at": "app!f1+0x10",
        "signature": Signature("app!f2 | app!f3", "0badcafe"),
        "blocked_since": TIME - datetime.timedelta(seconds=15),
        "ethread": Hexadecimal(0xFFFFE00010001740),
        "eprocess": Hexadecimal(0xFFFFE00010000CC0),
        "stack_bounds": StackExtent(Hexadecimal(BASE), Hexadecimal(BASE - 0x2000)),
        **fields,
    }
    return CrashReport(ProcessSummary(pid, "app.exe"), tid, Side.NATIVE, "x64", **values)


def dump(*crashes: CrashReport, **fields: object) -> DumpReport:
    """Return the report on a dump with these stuck threads."""
    values = {
        "file": FileReport("MEMORY.DMP", 5 << 20, "crash-dump", "Windows crash dump, 64-bit: complete memory dump"),
        "machine": MachineReport("Windows 10", "x64", 19041, "", 4, TIME, 112.78),
        "examined": Examined(12, 345),
        "crashes": crashes,
        **fields,
    }
    return DumpReport(SCHEMA_VERSION, **values)


def two_of_one_pid() -> DumpReport:
    """Return a report on two processes with the same PID, a stuck thread in each; they are of the users ONE and TWO."""
    first, second = Hexadecimal(0xFFFFE00010000CC0), Hexadecimal(0xFFFFE00020000CC0)
    processes = (
        ProcessReport(2564, "app.exe", r"C:\1.exe", user="ONE", eprocess=first),
        ProcessReport(2564, "app.exe", r"C:\2.exe", user="TWO", eprocess=second),
    )
    return dump(crash(tid=4, eprocess=first), crash(tid=8, eprocess=second), processes=processes)


def hostile(text: str) -> DumpReport:
    """Return a report in which everything that is text, and that a dump or a file beside it decides, is `text`."""
    variable = Variable(text, text, None, text, text, text)
    walk = WalkReport(
        (
            frame(0, BASE - 0x100, text, Trust.CONTEXT, source=text, note=text, signature=text, symbols=text),
            frame(1, BASE - 0x80, text, Trust.SCAN, parameters=(variable,), locals=(variable,), source=text),
        ),
        End.UNREADABLE,
        text,
    )
    inner = InnerException(type=text, message=text, logical_stack=walk.frames)
    exception = replace(
        crash().exceptions[0],
        title=text,
        type=text,
        message=text,
        bases=(text,),
        details=(text,),
        inner=(inner,),
    )
    stuck = crash(
        exceptions=(exception,),
        throwing=walk,
        blocked=walk,
        thrown_at=text,
        box_text=text,
        signature=Signature(text, text),
        doubts=(text,),
        notes=(text,),
        blockers=(BlockerReport(text, text),),
    )
    stuck = replace(stuck, process=ProcessSummary(2564, text, (text,)))
    pdb = PdbReport(text, text)
    module = ModuleReport(text, Hexadecimal(0x400000), 0x1000, NamesFrom.NONE, text, text, pdb=pdb)
    group = ThreadGroup((1, 2), walk.frames, text, text, text, (text,))
    parts = {"modules": (module,), "other_threads": (group,), "services": (text,), "notes": (text,)}
    process = ProcessReport(2564, text, text, text, user=text, user_sid=text, parent_pid=4, parent_name=text, **parts)
    return dump(
        stuck,
        stuck,
        file=FileReport(text, 1, "raw", text),
        machine=MachineReport(text, "x64", service_pack=text),
        warnings=(ReportWarning(WarningCode.STACK, text, 2564),),
        symbols_wanted=(WantedFile(text, text, text),),
        processes=(process,),
    )
