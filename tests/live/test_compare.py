# SPDX-License-Identifier: Apache-2.0
"""The comparison that the measuring rod rests on: what counts as equal, missing and wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.live.capture import Capture, CapturedModule, CapturedRegion, CapturedThread
from tests.live.compare import compare, compare_stack, function_of, report, split_stacks
from tests.live.truth import Entry, Exceptional, StackTruth, ThreadTruth, TruthError, as_json, live_entries

STACK = 0x10000
CODE = 0x400000


def frame(function: str, ip: int | None, child_sp: int | None, ret: int | None, **more: Any) -> dict[str, Any]:
    """Make a frame of a truth."""
    known = {"ip": ip, "child_sp": child_sp, "return_address": ret}
    shown = {key: None if value is None else hex(value) for key, value in known.items()}
    given = {"follows_gap": False, "is_program": True, "module": "crash.exe", "function": function}
    return {**shown, **given, **more}


def row(index: int, ip: int, child_sp: int, ret: int | None, site: str = "crash!f+0x1", **more: Any) -> dict[str, Any]:
    """Make a row of windows.cxrstack."""
    values = {"TID": 8, "Frame": index, "IP": ip, "Child-SP": child_sp, "RetAddr": ret, "Call Site": site}
    return {**values, "Trust": "cfi", "Notes": "", **more}


INNER = frame("inner", 0x401000, 0x1000, 0x402000)
OUTER = frame("outer", 0x402000, 0x1100, 0x7B000000)
START = frame("", 0x7B000000, 0x1200, None, is_program=False, module="kernel32.dll")
ROWS = [
    row(0, 0x401000, 0x1000, 0x402000),
    row(1, 0x402000, 0x1100, 0x7B000000),
    row(2, 0x7B000000, 0x1200, 0x7C000000),
]


def test_all_frames_equal_and_what_lies_beyond_the_truth_is_not_judged():
    result = compare_stack("", [INNER, OUTER, START], [*ROWS, row(3, 1, 2, 3)], has_names=False)
    assert (result.equal, result.missing, result.wrong) == (3, [], [])


@pytest.mark.parametrize("column", ["IP", "Child-SP", "RetAddr"])
def test_a_frame_that_differs_in_one_figure_is_both_missing_and_wrong(column):
    rows = [ROWS[0], {**ROWS[1], column: 0x1234}, ROWS[2]]
    result = compare_stack("", [INNER, OUTER, START], rows, has_names=False)
    assert (result.equal, result.missing, result.wrong) == (2, [OUTER], [rows[1]])


def test_a_bogus_frame_between_right_ones_is_wrong():
    bogus = row(1, 0x403000, 0x1080, 0x402000)
    result = compare_stack("", [INNER, OUTER, START], [ROWS[0], bogus, *ROWS[1:]], has_names=False)
    assert (result.equal, result.wrong) == (3, [bogus])


def test_a_stack_that_ends_early_misses_frames_and_says_why():
    rows = [{**ROWS[0], "Notes": "stack ends here: no return address found"}]
    result = compare_stack("", [INNER, OUTER, START], rows, has_names=False)
    assert (result.missing, result.wrong, result.ends) == ([OUTER, START], [], "no return address found")


def test_frames_of_foreign_code_in_a_gap_are_nobodys_but_frames_of_the_program_are():
    after = frame("outer", 0x402000, 0x1100, 0x7B000000, follows_gap=True)
    foreign, own = row(1, 0x7C000000, 0x1040, 0x7C000100, "msvcrt!qsort+0x5"), row(2, 0x401500, 0x1080, 0x402000)
    result = compare_stack("", [INNER, after, START], [ROWS[0], foreign, own, *ROWS[1:]], has_names=False)
    assert (result.equal, result.wrong) == (3, [own])


def test_what_is_known_in_part_before_and_behind_a_gap_may_be_one_frame():
    inner_part = frame("", 0x402000, 0x1100, None, is_program=False, module="msvcrt.dll")
    outer_part = frame("bsearch", None, None, 0x7B000000, follows_gap=True)
    result = compare_stack("", [INNER, inner_part, outer_part, START], ROWS, has_names=False)
    assert (result.equal, result.wrong) == (4, [])


def test_names_are_compared_without_their_scopes():
    assert function_of("throw!store::Shelf::take+0x31") == "take"
    rows = [{**ROWS[0], "Call Site": "crash!inner+0x4"}, {**ROWS[1], "Call Site": "crash!other+0x4"}, ROWS[2]]
    result = compare_stack("", [INNER, OUTER, START], rows, has_names=True)
    assert (result.names, len(result.wrong_names)) == (2, 1)
    assert "this is outer" in result.wrong_names[0]


def test_lines_are_compared_but_for_the_frame_that_faulted():
    frames = [{**INNER, "line": 7}, {**OUTER, "line": 9}, START]
    sources = [{**ROWS[0], "Trust": "context", "Source": "[a.c @ 8]"}, {**ROWS[1], "Source": r"[d:\src\a.c @ 9]"}]
    right = compare_stack("", frames, [*sources, ROWS[2]], has_names=True)
    assert (right.lines, right.wrong_lines) == (1, [])
    wrong = compare_stack("", frames, [sources[0], {**ROWS[1], "Source": None}, ROWS[2]], has_names=True)
    assert len(wrong.wrong_lines) == 1


STUCK = {
    "pid": 4,
    "tid": 8,
    "process": "crash.exe",
    "arch": "x64",
    "code": "0xc0000005",
    "address": "0x401000",
    "record": "0x900",
    "context": "0x800",
    "nested": [],
    "frames": [INNER, OUTER, START],
}
TRUTH = {
    "case": "c",
    "arch": "x64",
    "stuck": [STUCK],
    "walked": [],
    "shutting_down": [],
    "quiet": [[4, 12]],
    "roles": {"12": "waits"},
}
FOUND = {
    "PID": 4,
    "Process": "crash.exe",
    "TID": 8,
    "Arch": "x64",
    "Blocked In": "KERNELBASE!UnhandledExceptionFilter",
    "Code": 0xC0000005,
    "Address": 0x401000,
    "Record": 0x900,
    "Context": 0x800,
}
STACK_ROWS = [{**ROWS[0], "Notes": "0xc0000005, context 0x800 (scan)"}, *ROWS[1:]]


def test_a_right_dump_has_no_problem():
    result = compare(TRUTH, [FOUND], STACK_ROWS, has_names=False)
    assert (result.contexts_found, result.problems, result.false_rows, result.equal) == (1, [], [], 3)


def test_a_crash_row_for_a_thread_that_only_waits_counts_as_false():
    result = compare(TRUTH, [FOUND, {**FOUND, "TID": 12}], STACK_ROWS, has_names=False)
    assert len(result.false_rows) == 1
    assert "waits" in result.false_rows[0]


def test_a_fault_in_the_top_filter_leaves_the_row_to_the_exception_that_the_filter_was_called_for():
    original = {**STUCK, "address": "0x402000", "record": "0xb00", "context": "0xa00", "frames": [OUTER, START]}
    in_filter = {**STUCK, "nested": [original], "frames": [{**INNER, "function": "fault_in_top_filter"}, OUTER, START]}
    truth = {**TRUTH, "stuck": [in_filter]}
    led = {**FOUND, "Address": 0x402000, "Record": 0xB00, "Context": 0xA00}
    assert compare(truth, [led], STACK_ROWS, has_names=False).problems == ["thread 8: context 0xa00 was not found"]
    assert len(compare(truth, [FOUND], STACK_ROWS, has_names=False).problems) == 4


def test_the_blocked_stack_of_a_thread_in_shutdown_is_no_false_row_but_of_another_thread_it_is():
    truth = {**TRUTH, "shutting_down": [16]}
    exits = {**FOUND, "TID": 16, "Blocked In": "mscoree!CorExitProcess", "Code": None}
    for tid, false_rows in ((16, 0), (12, 1)):
        blocked = [{**line, "TID": tid, "Notes": "blocked stack: no exception"} for line in ROWS[:1]]
        result = compare(truth, [FOUND, exits], [*STACK_ROWS, *blocked], has_names=False)
        assert (len(result.false_rows), result.problems) == (false_rows, [])


def test_a_stack_from_another_context_is_false():
    other = [{**line, "Notes": "0xc0000005, context 0x666 (scan)"} for line in ROWS[:1]]
    assert compare(TRUTH, [FOUND], [*STACK_ROWS, *other], has_names=False).false_rows


def test_a_right_context_on_another_thread_and_one_shown_twice_count_as_false_rows():
    moved = [{**line, "TID": 12} for line in STACK_ROWS]
    result = compare(TRUTH, [FOUND], moved, has_names=False)
    assert (result.contexts_found, len(result.false_rows)) == (0, 1)
    assert len(compare(TRUTH, [FOUND], [*STACK_ROWS, *STACK_ROWS], has_names=False).false_rows) == 1


def test_a_wrong_name_and_a_wrong_line_are_reported():
    frames = [INNER, {**OUTER, "line": 9}, START]
    truth = {**TRUTH, "stuck": [{**STUCK, "frames": frames}]}
    rows = [
        {**STACK_ROWS[0], "Call Site": "crash!other+0x4", "Trust": "context"},
        {**ROWS[1], "Call Site": "crash!outer+0x4", "Source": "[a.c @ 8]"},
        ROWS[2],
    ]
    lines = report([compare(truth, [FOUND], rows, has_names=True)])
    assert len(lines) == 2
    assert "this is inner" in lines[0]
    assert "line 8, not 9" in lines[1]


@pytest.mark.parametrize("column", ["Code", "Address", "Record", "Context", "Arch"])
def test_a_wrong_figure_of_a_row_is_a_problem(column):
    assert compare(TRUTH, [{**FOUND, column: 1}], STACK_ROWS, has_names=False).problems


def test_a_missing_row_and_a_missing_stack_are_problems():
    result = compare(TRUTH, [], [], has_names=False)
    assert len(result.problems) == 2
    assert result.equal == 0


def test_an_exception_invented_for_a_shutdown_is_a_problem():
    truth = {**TRUTH, "stuck": [], "shutting_down": [8]}
    right = {**FOUND, "Blocked In": "mscoree!CorExitProcess", "Code": None}
    assert compare(truth, [right], [], has_names=False).problems == []
    assert compare(truth, [{**right, "Code": 0xC0000005}], [], has_names=False).problems


def test_the_stack_of_a_thread_that_only_waits_is_compared_with_its_user_frames():
    kernel = row(0, 0xFFFFF80000000000, 0xFFFFD00000000000, None, Side="kernel")
    ntdll = row(1, 0x7C000000, 0xF00, 0x401000, site="ntdll!NtDelayExecution+0x14", Side="native")
    called = [{**line, "Side": "native"} for line in ROWS]
    inside = frame("Sleep", None, None, 0x401000, is_program=False, module=None, follows_gap=True)
    truth = {**TRUTH, "walked": [{"tid": 12, "frames": [inside, INNER, OUTER, START]}]}
    walk = [{"TID": 12, "__children": [kernel, ntdll, *called]}, {"TID": 16, "__children": [ntdll]}]
    assert report([compare(truth, [FOUND], STACK_ROWS, walk, has_names=False)]) == []
    shorter = [{"TID": 12, "__children": [kernel, ntdll, *called[:2]]}]
    assert len(compare(truth, [FOUND], STACK_ROWS, shorter, has_names=False).stacks[1].missing) == 1
    assert report([compare(truth, [FOUND], STACK_ROWS, has_names=False)])


def test_wrong_rows_are_reported_unless_their_label_is_tolerated():
    guessed = row(1, 0x403000, 0x1080, 0x402000, Trust="scan")
    result = compare(TRUTH, [FOUND], [STACK_ROWS[0], guessed, *ROWS[1:]], has_names=False)
    assert len(report([result])) == 1
    assert report([result], tolerated={"scan"}) == []
    assert len(report([result], tolerated={"prologue"})) == 1


def test_rows_are_split_where_frames_start_anew_and_inline_frames_left_out():
    inline = row(1, 0x402000, 0x1100, None, Trust="inline")
    stacks = split_stacks([STACK_ROWS[0], inline, *ROWS[1:], *STACK_ROWS])
    assert [(tid, context, len(rows)) for tid, context, rows in stacks] == [(8, 0x800, 3), (8, 0x800, 3)]


def memory(words: dict[int, int], calls: tuple[int, ...]) -> Capture:
    """Make a captured x86 process: a page of stack with words at addresses, and code with a call before addresses."""
    stack, code = bytearray(0x1000), bytearray(b"\x90" * 0x1000)
    for address, word in words.items():
        stack[address - STACK : address - STACK + 4] = word.to_bytes(4, "little")
    for address in calls:
        code[address - CODE - 5] = 0xE8
    module = CapturedModule("crash.exe", "c:\\live\\x86\\crash.exe", CODE, 0x1000, CODE, 0)
    regions = [CapturedRegion(STACK, bytes(stack)), CapturedRegion(CODE, bytes(code), module)]
    return Capture("x86", 4, 0, None, [module], [], [], regions)


RAISED = Exceptional(0xC0000005, CODE + 0x10, STACK + 0x100, 0, 0, 0, False, 2)
NOTES = (Entry(STACK + 0x300, CODE + 0x200, "outer", 1, 0), Entry(STACK + 0x200, CODE + 0x100, "inner", 2, 0))


def test_frames_follow_from_the_notes():
    words = {entry.slot: entry.ret for entry in NOTES}
    thread = ThreadTruth(8, "crashes", "", NOTES, (RAISED,))
    frames = StackTruth(memory(words, (CODE + 0x100, CODE + 0x200)), thread).frames(0)
    assert [(f["function"], f["ip"], f["child_sp"], f["return_address"]) for f in frames] == [
        ("inner", "0x400010", "0x101fc", "0x400100"),
        ("outer", "0x400100", "0x102fc", "0x400200"),
        (None, "0x400200", None, None),
    ]


def test_notes_that_memory_contradicts_are_an_error_of_the_fixture():
    thread = ThreadTruth(8, "crashes", "", NOTES, (RAISED,))
    with pytest.raises(TruthError, match="holds"):
        StackTruth(memory({}, (CODE + 0x100, CODE + 0x200)), thread)
    with pytest.raises(TruthError, match="no call"):
        StackTruth(memory({entry.slot: entry.ret for entry in NOTES}, (CODE + 0x100,)), thread)


def test_a_function_that_left_by_a_tail_call_is_not_expected():
    left = Entry(STACK + 0x200, CODE + 0x100, "left", 1, 0)
    assert live_entries((NOTES[0], left, NOTES[1])) == list(NOTES)


def test_a_first_function_on_another_stack_leaves_the_notes_of_the_stack_before():
    switched = Entry(STACK + 0x800, CODE + 0x300, "first on its stack", 1, 3)
    assert live_entries((*NOTES, switched)) == [*NOTES, switched]
    assert live_entries((*NOTES, replace(switched, kind=0))) == [replace(switched, kind=0)]


def test_a_thread_that_waits_begins_in_a_gap_or_in_the_copy_of_a_stub():
    words = {entry.slot: entry.ret for entry in NOTES}
    thread = ThreadTruth(8, "walked", "", (NOTES[0], replace(NOTES[1], kind=1)), ())
    capture = memory(words, (CODE + 0x100, CODE + 0x200))
    frames = StackTruth(capture, thread).waiting_frames()
    assert [(f["function"], f["ip"], f["follows_gap"]) for f in frames] == [
        ("inner", None, True),
        ("outer", "0x400100", False),
        (None, "0x400200", False),
    ]
    in_stub = replace(thread, entries=(NOTES[0], replace(NOTES[1], kind=2)), waits_at=0x30000)
    assert [f["ip"] for f in StackTruth(capture, in_stub).waiting_frames()] == ["0x30000", "0x400100", "0x400200"]


CONTEXT_AT = STACK + 0x400
WAITING_SP = STACK + 0x380


def surviving(context_ip: int, sp: int, held: int = 0) -> Capture:
    """Make a process whose one thread handled an exception, of which a CONTEXT with this ip is left."""
    found = memory({CONTEXT_AT + 0xB8: context_ip, CONTEXT_AT: held}, (CODE + 0x100,))
    return replace(found, threads=[CapturedThread(8, 0, STACK + 0x1000, STACK, {"esp": sp})])


def decoys() -> list[ThreadTruth]:
    handled = replace(RAISED, context=CONTEXT_AT, handled=True)
    return [
        ThreadTruth(8, "handled", "survived", (), (handled,)),
        ThreadTruth(8, "waits", "waits", (), ()),
        ThreadTruth(8, "holds-address", "holds", (Entry(CONTEXT_AT, CODE + 0x100, "held", 0, 0),), ()),
    ]


def test_decoys_that_deceive_are_listed_as_quiet():
    capture = surviving(RAISED.ip, WAITING_SP, held=CODE + 0x100)
    assert as_json(capture, decoys(), "c", "crash.exe", "gcc")["quiet"] == [[4, 8]] * 3


@pytest.mark.parametrize(
    ("capture", "threads", "complaint"),
    [
        (surviving(0, WAITING_SP), decoys()[:1], "is gone"),
        (surviving(RAISED.ip, CONTEXT_AT + 4), decoys()[:1], "below its stack pointer"),
        (surviving(RAISED.ip, WAITING_SP), decoys()[:2], "no thread that holds-address"),
        (surviving(RAISED.ip, WAITING_SP), decoys()[2:], "noted was"),
        (surviving(RAISED.ip, WAITING_SP), [replace(decoys()[2], entries=())], "has 0 notes"),
        (surviving(RAISED.ip, WAITING_SP), [replace(decoys()[0], exceptions=())], "raised"),
    ],
)
def test_a_decoy_that_would_deceive_nobody_is_an_error_of_the_fixture(capture, threads, complaint):
    with pytest.raises(TruthError, match=complaint):
        as_json(capture, threads, "c", "crash.exe", "gcc")
