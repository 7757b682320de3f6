# SPDX-License-Identifier: Apache-2.0
"""Message boxes: their title and text, and which of them a runtime shows because a program has failed."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.forge.stacks import Stack
from tests.support.targets import make_target
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.images.modules import Module
from throwstack.names.blockers import BlockerKind
from throwstack.stuck.error_box import SEARCHED, BoxText, box_text, crash_box, unknown_box
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import Target, ThreadStack

LIMIT, BASE = 0x0012E000, 0x00130000
SP, STEP = 0x0012F000, 0x80
TEXT, TITLE = 0x00141000, 0x00142000
RUNTIME_ERROR = "Runtime Error!\n\nProgram: C:\\svc.exe\n\nR6025\n- pure virtual function call\n"
LIBRARY = "Microsoft Visual C++ Runtime Library"
QUESTION = "Save the changes?"
MODAL = ("ntdll!KiFastSystemCallRet", "USER32!NtUserWaitMessage", "USER32!InternalDialogBox")
BOX = (*MODAL, "USER32!SoftModalMessageBox", "USER32!MessageBoxWorker", "USER32!MessageBoxTimeoutW")


def wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


class Stuck:
    """A thread with a frame of 0x80 bytes for each function, innermost first; `module!` has no name."""

    def __init__(self, arch: Arch, *functions: str, strings: dict[int, bytes] | None = None) -> None:
        self.arch, self.functions, self.strings = arch, functions, strings or {}
        self.stack = Stack(LIMIT, BASE)

    def at(self, function: str) -> int:
        """Return where the return address of the frame of `function` is."""
        index = next(index for index, name in enumerate(self.functions) if name.endswith(f"!{function}"))
        return SP + STEP * index + STEP - self.arch.pointer_size

    def called(self, function: str, *arguments: int) -> Stuck:
        """Put the arguments of a 32-bit call after the return address."""
        self.stack.at(self.at(function) + 4).d32(*arguments)
        return self

    def spilled(self, function: str, *words: int) -> Stuck:
        """Put 64-bit words among the locals of a function."""
        self.stack.at(self.at(function) - 8 * len(words)).d64(*words)
        return self

    def target(self) -> tuple[Target, Walk]:
        modules: dict[str, Module] = {}
        symbols: dict[str, dict[str, int]] = {}
        frames = []
        for index, function in enumerate(self.functions):
            label, _, name = function.partition("!")
            module = modules.setdefault(label, Module(f"{label}.dll", "", 0x10000000 * (len(modules) + 1), 0x100000))
            rva = 0x1000 + 0x100 * index
            if name:
                symbols.setdefault(module.name, {})[name] = rva
            ip, sp = ("eip", "esp") if self.arch is Arch.X86 else ("rip", "rsp")
            registers = Registers.named(self.arch, {ip: module.base + rva + 0x10, sp: SP + STEP * index})
            slot = SP + STEP * index + STEP - self.arch.pointer_size
            frames.append(Frame(registers, slot - 4, 0, slot, Trust.CFI))
        walk = Walk(tuple(frames), End.THREAD_START)
        memory = {LIMIT: self.stack.data(), **self.strings}
        return make_target(self.arch, list(modules.values()), memory, symbols, walk), walk

    def text(self) -> str:
        return box_text(*self.target())

    def crash(self) -> BoxText | None:
        return crash_box(*self.target())


@pytest.mark.parametrize("symbol", ["MessageBoxW", "MessageBoxExW", "MessageBoxTimeoutW"])
def test_the_text_of_a_wide_message_box_is_its_second_argument(symbol: str):
    box = Stuck(Arch.X86, f"USER32!{symbol}", strings={TEXT: wide("Runtime Error!\n\nProgram: svc")})
    assert box.called(symbol, 0, TEXT, 0, 0).text() == r"Runtime Error!\n\nProgram: svc"


def test_the_text_of_an_ansi_message_box_is_its_second_argument():
    box = Stuck(Arch.X86, "USER32!MessageBoxA", strings={TEXT: b"Assertion failed: p != NULL\0"})
    assert box.called("MessageBoxA", 0, TEXT, 0, 0).text() == "Assertion failed: p != NULL"


@pytest.mark.parametrize("symbol", ["MessageBoxIndirectA", "MessageBoxIndirectW", "SoftModalMessageBox"])
def test_an_indirect_message_box_is_given_its_parameters_in_a_structure(symbol: str):
    """MSGBOXPARAMS {size, owner, instance, text, caption, …}."""
    encode = wide if symbol[-1] != "A" else lambda text: text.encode() + b"\0"
    parameters = struct.pack("<5I", 0x28, 0, 0, TEXT, TITLE)
    strings = {0x00140000: parameters, TEXT: encode(QUESTION), TITLE: encode("Editor")}
    box = Stuck(Arch.X86, f"USER32!{symbol}", "app!main", strings=strings).called(symbol, 0x00140000)
    assert box.text() == QUESTION


@pytest.mark.parametrize(
    ("symbol", "text"), [("FatalAppExitA", QUESTION.encode() + b"\0"), ("FatalAppExitW", wide(QUESTION))]
)
def test_the_text_of_fatalappexit_is_its_second_argument(symbol: str, text: bytes):
    """NtRaiseHardError has csrss show it."""
    box = Stuck(Arch.X86, "ntdll!NtRaiseHardError", f"kernel32!{symbol}", strings={TEXT: text})
    assert box.called(symbol, 0, TEXT).text() == QUESTION


def test_there_is_no_text_without_a_message_box_or_where_its_text_is_not_in_memory():
    assert Stuck(Arch.X86, "USER32!MessageBoxW").called("MessageBoxW", 0, TEXT, 0, 0).text() == ""
    dispatch = Stuck(Arch.X86, "USER32!DispatchMessageW", strings={TEXT: b"x\0\0\0"})
    assert dispatch.called("DispatchMessageW", 0, TEXT).text() == ""
    assert Stuck(Arch.X64, "USER32!MessageBoxW", "app!main", strings={TEXT: b"x\0\0\0"}).text() == ""


def parameters64(text: int, title: int) -> tuple[int, ...]:
    return (0x50, 0, 0, text, title, 0x12010)


def test_on_x64_the_strings_are_found_by_the_parameters_that_user32_keeps_in_a_frame():
    box = Stuck(Arch.X64, *BOX, "USER32!MessageBoxW", "app!OnClose", strings={TEXT: wide(QUESTION), TITLE: wide("Ed")})
    box.spilled("MessageBoxTimeoutW", *parameters64(TEXT, TITLE))
    assert box.text() == QUESTION
    assert box.crash() is None  # a program's own box


def test_of_two_boxes_that_left_parameters_the_outer_one_is_shown():
    strings = {TEXT: wide(QUESTION), TITLE: wide(LIBRARY), TITLE + 0x100: wide("Ed")}
    box = Stuck(Arch.X64, *BOX, "USER32!MessageBoxW", "app!OnClose", strings=strings)
    box.spilled("InternalDialogBox", *parameters64(TITLE, TITLE))
    assert box.spilled("MessageBoxTimeoutW", *parameters64(TEXT, TITLE + 0x100)).crash() is None


def test_on_x64_a_text_that_a_runtime_uses_is_found_by_a_pointer_in_a_frame_of_its_caller():
    """A C runtime that is linked into the program and has no names."""
    box = Stuck(Arch.X64, *BOX, "app!", "app!", strings={TEXT: wide(RUNTIME_ERROR), TITLE: wide(LIBRARY)})
    box.spilled("MessageBoxTimeoutW", 1, TITLE, 2, TEXT)
    assert box.crash() == BoxText(RUNTIME_ERROR.replace("\n", r"\n"), LIBRARY, is_searched=True)


@pytest.mark.parametrize(
    ("title", "text"),
    [
        (LIBRARY, "anything"),
        ("Microsoft Visual C++ Debug Library", "anything"),
        ("x", RUNTIME_ERROR),
        ("x", "Debug Assertion Failed!\n\nProgram: C:\\svc.exe\nFile: svc.cpp\nLine: 7"),
        ("x", "Assertion failed!\n\nProgram: svc.exe\nFile: svc.c, Line 7\n\nExpression: p"),
        ("x", "Buffer overrun detected!\n\nProgram: svc.exe"),
        ("x", "R6034\r\n- no manifest"),
        ("x", "abnormal program termination"),
        ("svc", "Abnormal program termination\r\n"),
        ("svc", "Pure virtual function called"),
        ("svc", "Run-time error '91':\n\nObject variable or With block variable not set"),
        ("svc", "Run-time error '-2147467259 (80004005)':\n\nAutomation error"),
        ("Error", "Runtime error 216 at 00403B2A"),
        ("Error", "Runtime error 216 at $00403B2A"),
        ("Error", "An unhandled exception occurred at $00403B2A:\r\nEConvertError: x"),
        ("Application Error", "Exception EAccessViolation in module svc.exe at 00052F51.\nAccess violation"),
        ("svc.exe - Common Language Runtime Debugging Services", "Application has generated an exception"),
        ("Assertion Failed: Abort=Quit, Retry=Debug, Ignore=Continue", "at Svc.Main()"),
    ],
)
def test_titles_and_texts_that_runtimes_use(title: str, text: str):
    box = Stuck(
        Arch.X86, "USER32!MessageBoxA", "app!", strings={TEXT: text.encode() + b"\0", TITLE: title.encode() + b"\0"}
    )
    found = box.called("MessageBoxA", 0, TEXT, TITLE, 0x12010).crash()
    assert found is not None
    assert not found.is_searched


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Error", QUESTION),
        ("Application Error", "The file could not be opened."),
        ("Editor", "A Runtime Error! has been found in your macro"),
        ("Editor", "Exception while saving"),
        ("Scheduler", "Abnormal program termination detected in job 4. Restart?"),
        ("Editor", "Pure virtual function called Draw: generate a body?"),
        ("Setup of Microsoft Visual C++ Runtime Library", "Install?"),
        ("Microsoft Visual C++ Runtime Library Setup", "Install?"),
        ("", ""),
    ],
)
def test_a_box_of_the_program_itself_is_none_of_a_failure(title: str, text: str):
    box = Stuck(
        Arch.X86, "USER32!MessageBoxA", "app!", strings={TEXT: text.encode() + b"\0", TITLE: title.encode() + b"\0"}
    )
    assert box.called("MessageBoxA", 0, TEXT, TITLE, 0).crash() is None


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("caller", ["app!__crtMessageBoxA", "app!_NMSG_WRITE", "MSVCR71!abort", "app!_CrtDbgReportW"])
def test_a_box_counts_if_a_function_that_reports_failures_called_it(arch: Arch, caller: str):
    assert Stuck(arch, *BOX, "app!common", caller, "app!main").crash() == BoxText()
    assert Stuck(arch, *BOX, *["app!Work"] * 8, caller, "app!main").crash() is None  # too far out to be its box


def examined(box: Stuck) -> tuple[tuple[str, ...], tuple[str, ...], tuple[BlockerKind, ...]]:
    """Return blocking functions, notes and kinds of the thread; all empty if it is not stuck and nobody doubts it."""
    target, walk = box.target()
    for frame in walk.frames:
        box.stack.at(frame.return_slot - STEP).raw(frame.ip.to_bytes(box.arch.pointer_size, "little"))
    target, walk = box.target()
    examination = Triage(target).examine(ThreadStack(StackBounds(LIMIT, BASE), walk.frames[0].registers))
    assert examination.doubts == ()
    stuck = examination.stuck
    return ((), (), ()) if stuck is None else (tuple(map("!".join, stuck.blocked_in)), stuck.notes, stuck.kinds)


OUTERMOST = ("app!",) * 20


def test_a_thread_is_stuck_in_a_box_that_is_one_of_a_failure():
    strings = {TEXT: wide(RUNTIME_ERROR), TITLE: wide(LIBRARY)}
    box = Stuck(Arch.X64, *BOX, "app!", *OUTERMOST, strings=strings).spilled("MessageBoxTimeoutW", TEXT, TITLE)
    assert examined(box) == (("USER32!SoftModalMessageBox",), (SEARCHED,), (BlockerKind.MESSAGE_BOX,))


def test_a_thread_that_shows_a_box_of_its_own_is_neither_stuck_nor_doubted():
    strings = {TEXT: wide(QUESTION), TITLE: wide("Editor")}
    box = Stuck(Arch.X64, *BOX, "app!OnClose", *OUTERMOST, strings=strings)
    assert examined(box.spilled("MessageBoxTimeoutW", *parameters64(TEXT, TITLE))) == ((), (), ())


def test_a_box_of_a_thread_that_is_stuck_otherwise_is_named_beside_that():
    box = Stuck(Arch.X64, *BOX, "app!OnExit", "KERNEL32!ExitProcess", *OUTERMOST)
    assert examined(box)[0] == ("USER32!SoftModalMessageBox", "KERNEL32!ExitProcess")


@pytest.mark.parametrize(
    ("end", "callers", "strings", "is_doubt"),
    [
        (End.LOST_RETURN_ADDRESS, ("app!",), {}, True),
        (End.UNREADABLE, (), {}, True),
        (End.THREAD_START, ("app!",), {}, False),
        (End.LOST_RETURN_ADDRESS, ("app!",) * 8, {}, False),
        (End.LOST_RETURN_ADDRESS, ("app!",), {TEXT: wide(QUESTION)}, False),
    ],
    ids=["caller lost", "no caller", "whole walk", "enough callers", "text known"],
)
def test_a_box_of_which_nothing_is_known_is_a_doubt(
    end: End, callers: tuple[str, ...], strings: dict[int, bytes], is_doubt: bool
):
    box = Stuck(Arch.X86, "USER32!MessageBoxW", *callers, strings=strings).called("MessageBoxW", 0, TEXT, 0, 0)
    target, walk = box.target()
    assert bool(unknown_box(target, replace(walk, end=end))) is is_doubt
