# SPDX-License-Identifier: Apache-2.0
"""Reads the truth that a captured program kept about itself (programs/truth.h) and writes it as `truth.json`.

The file has the keys of the forge's truth (addresses as hex strings; null where a live program cannot know), and
more: of a frame its `slot` and `function`, and `follows_gap` where frames of code that keeps no shadow stack may be
between it and the frame inside it. A frame of which only part is known may then be the same as the one before it: a
foreign function of which we know where it called us from, and where it was called from, with or without frames between.
`walked` has the stacks of threads that only wait, and of which there is no row in `windows.unhandled`.

    {"case", "arch", "pid", "process", "compiler",
     "stuck": [{"pid", "tid", "process", "arch", "code", "address", "record", "context", "sp", "blockers", "frames": [
                   {"ip", "child_sp", "return_address", "slot", "function", "module", "follows_gap", "line"}],
                "nested": [the same of the earlier exceptions in progress]}],
     "walked": [{"tid", "frames"}],
     "shutting_down": [tid], "quiet": [[pid, tid]], "roles": {tid: text}}
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.live.capture import Capture, CaptureError

MAGIC = b"throwstack-live\0"
ENTRIES, EXCEPTIONS, THREADS = 400, 8, 24
ENTRY, EXCEPTION, HEADER = 40, 64, 48
THREAD = HEADER + ENTRIES * ENTRY + EXCEPTIONS * EXCEPTION + 8
TRUTH = 32 + THREADS * THREAD
ROLES = {1: "waits", 2: "crashes", 3: "handled", 4: "holds-address", 5: "shuts-down", 6: "walked"}
MAX_NAME = 200
PROGRAM, FOREIGN, SWITCHED = 0, 1, 3
PROGRAMS_PATH = "\\live\\"
STACK_OVERFLOW = 0xC00000FD
DECOYS = frozenset({"waits", "handled", "holds-address"})
IP_IN_CONTEXT = {4: 0xB8, 8: 0xF8}


class TruthError(Exception):
    """The program's notes contradict its memory: the fixture is wrong."""


@dataclass(frozen=True)
class Entry:
    """A note of the shadow stack.

    `kind`: 0 the program's own function, 1 foreign, 2 foreign and direct, 3 the program's, and the first on its stack.
    """

    slot: int
    ret: int
    function: str
    line: int
    kind: int


@dataclass(frozen=True)
class Exceptional:
    """A noted exception. `depth` is how many notes the shadow stack had when it was raised."""

    code: int
    ip: int
    sp: int
    bp: int
    record: int
    context: int
    handled: bool
    depth: int


@dataclass(frozen=True)
class ThreadTruth:
    """What a thread noted. `waits_at` is where it waits, if that is a copy of a system call's stub."""

    tid: int
    role: str
    note: str
    entries: tuple[Entry, ...]
    exceptions: tuple[Exceptional, ...]
    waits_at: int = 0

    @property
    def addresses(self) -> set[int]:
        """Return the addresses on the thread's stacks, and in its code, that the notes speak of."""
        noted = {address for entry in self.entries for address in (entry.slot, entry.ret)}
        return noted | {address for raised in self.exceptions for address in (raised.sp, raised.ip)} | {self.waits_at}


def parse(data: bytes, text: Any) -> tuple[bool, list[ThreadTruth]]:
    """Decode `ts_truth`: whether the program is ready, and its threads. `text(address)` reads a name."""
    if not data.startswith(MAGIC):
        message = "no truth at ts_truth"
        raise TruthError(message)
    count, ready = struct.unpack_from("<2Q", data, 16)
    threads = [_thread(data, 32 + index * THREAD, text) for index in range(min(count, THREADS))]
    return bool(ready), threads


def _thread(data: bytes, offset: int, text: Any) -> ThreadTruth:
    depth, tid, role, note, exceptions, _ = struct.unpack_from("<6Q", data, offset)
    if depth > ENTRIES or exceptions > EXCEPTIONS:
        message = f"thread {tid}: notes overflow"
        raise TruthError(message)
    entries = []
    for index in range(depth):
        slot, ret, function, line, kind = struct.unpack_from("<5Q", data, offset + HEADER + index * ENTRY)
        entries.append(Entry(slot, ret, text(function), line, kind))
    start = offset + HEADER + ENTRIES * ENTRY
    noted = []
    for index in range(exceptions):
        code, ip, sp, bp, record, context, handled, at = struct.unpack_from("<8Q", data, start + index * EXCEPTION)
        noted.append(Exceptional(code, ip, sp, bp, record, context, bool(handled), at))
    waits_at = struct.unpack_from("<Q", data, start + EXCEPTIONS * EXCEPTION)[0]
    return ThreadTruth(tid, ROLES.get(role, "?"), text(note), tuple(entries), tuple(noted), waits_at)


def name_reader(read: Any) -> Any:
    """Return a reader of C strings over `read(address, size)`."""

    def text(address: int) -> str:
        if not address:
            return ""
        for size in (MAX_NAME, 64, 32):
            try:
                return read(address, size).split(b"\0")[0].decode("ascii")
            except CaptureError:
                continue
        return "?"

    return text


def live_entries(entries: tuple[Entry, ...]) -> list[Entry]:
    """Drop the notes of functions that left by a tail call: their slot is not above that of the note inside it.

    Of those on different stacks that cannot be said.
    """
    kept: list[Entry] = []
    for entry in entries:
        while kept and kept[-1].slot <= entry.slot and entry.kind != SWITCHED:
            kept.pop()
        if entry.slot and entry.ret:  # else its function was stopped while noting itself
            kept.append(entry)
    return kept


class StackTruth:
    """The expected frames of one exception, from the notes alone."""

    def __init__(self, capture: Capture, thread: ThreadTruth) -> None:
        """Take a thread's notes; checks them against the captured memory."""
        self.capture = capture
        self.thread = thread
        self.word = 8 if capture.arch == "x64" else 4
        for entry in live_entries(thread.entries):
            self._check(entry)

    def _check(self, entry: Entry) -> None:
        """A live return address is at its slot, in code, just after a call instruction."""
        at_slot = int.from_bytes(self.capture.read(entry.slot, self.word), "little")
        if at_slot != entry.ret:
            message = f"{entry.function}: {entry.slot:#x} holds {at_slot:#x}, noted was {entry.ret:#x}"
            raise TruthError(message)
        code = self.capture.read(entry.ret - 7, 7)
        # call rel32; call through a register or memory: FF /2 with its ModRM byte 2, 3, 6 or 7 bytes before the end.
        direct = code[2] == 0xE8
        indirect = any(code[7 - size] == 0xFF and code[8 - size] >> 3 & 7 == 2 for size in (2, 3, 4, 6, 7))
        if not direct and not indirect:
            message = f"{entry.function}: no call before {entry.ret:#x}"
            raise TruthError(message)

    def frames(self, index: int) -> list[dict[str, Any]]:
        """Return the frames of the thread's exception `index`, innermost first."""
        exceptions = self.thread.exceptions
        raised = exceptions[index]
        earlier = {e.depth: e for e in exceptions[:index] if not e.handled and e.depth < raised.depth}
        entries = live_entries(self.thread.entries[: raised.depth])
        begun = self._begun(entries, raised)
        if begun is None:
            return self._outward(entries, raised.ip, raised.sp, earlier)
        inner = [
            self._frame(raised.ip, raised.sp, None, follows_gap=False),
            self._frame(None, None, begun, follows_gap=True),
        ]
        return inner + self._outward(entries, begun.ret, begun.slot + self.word, earlier)

    def waiting_frames(self) -> list[dict[str, Any]]:
        """Return the frames of a thread that waits, innermost first.

        The system's functions in which it waits are not known, unless it waits in a copy of a system call's stub.
        """
        entries = live_entries(self.thread.entries)
        if self.thread.waits_at:
            return self._outward(entries, self.thread.waits_at, entries[-1].slot, {})
        return self._outward(entries, None, None, {})

    def _outward(
        self, entries: list[Entry], ip: int | None, sp: int | None, earlier: Mapping[int, Exceptional]
    ) -> list[dict[str, Any]]:
        """Return the frames from the innermost, of which `ip` and `sp` are known, to the outermost."""
        depth_of = {id(entry): depth for depth, entry in enumerate(self.thread.entries, 1)}
        frames: list[dict[str, Any]] = []
        follows_gap = ip is None
        for entry in reversed(entries):
            before = earlier.get(depth_of[id(entry)])
            is_cut = before is not None or (entry.kind == FOREIGN and bool(frames)) or not self._fits(entry, ip)
            if is_cut:
                if ip is not None:
                    frames.append(self._frame(ip, sp, None, follows_gap=follows_gap))
                # The frame that raised an earlier exception is known again; the dispatcher's frames are between.
                ip, sp, follows_gap = (None, None, True) if before is None else (before.ip, before.sp, True)
            frames.append(self._frame(ip, sp, entry, follows_gap=follows_gap))
            ip, sp, follows_gap = entry.ret, entry.slot + self.word, False
        frames.append(self._frame(ip, sp, None, follows_gap=False))
        return frames

    def _fits(self, entry: Entry, ip: int | None) -> bool:
        """Say whether `ip` can be in the function of a note: a program's function is in a program's module."""
        if entry.kind not in {PROGRAM, SWITCHED} or ip is None:
            return True
        module = self.capture.module_at(ip)
        return module is not None and PROGRAMS_PATH in module.path.lower()

    def _begun(self, entries: list[Entry], raised: Exceptional) -> Entry | None:
        """Return the note of a function that was stopped before it could note itself, in its prologue.

        Only stack overflow does that here, by recursion: the frames of one function have one size and one call site,
        so that the next note is known beforehand, and the sp at the fault tells whether that call had been made.
        """
        if raised.code != STACK_OVERFLOW or len(entries) < 3:
            return None
        last, second = entries[-1], entries[-2]
        slot = last.slot - (second.slot - last.slot)
        if raised.sp > slot:
            return None
        begun = Entry(slot, last.ret, last.function, 0, PROGRAM)
        self._check(begun)
        return begun

    def _frame(self, ip: int | None, sp: int | None, entry: Entry | None, *, follows_gap: bool) -> dict[str, Any]:
        chain_word = None if entry is None else entry.slot - 4
        child_sp = sp if self.word == 8 else chain_word
        module = None if ip is None else self.capture.module_at(ip)
        return {
            "ip": _hex(ip),
            "child_sp": _hex(child_sp),
            "return_address": None if entry is None else _hex(entry.ret),
            "slot": None if entry is None else _hex(entry.slot),
            "function": None if entry is None else entry.function,
            "module": None if module is None else module.name,
            "line": None if entry is None or not entry.line else entry.line,
            "is_program": entry is not None and entry.kind in {PROGRAM, SWITCHED},
            "follows_gap": follows_gap,
        }


def as_json(capture: Capture, threads: list[ThreadTruth], case: str, process: str, compiler: str) -> dict[str, Any]:
    """Build the contents of `truth.json`. Raises TruthError if notes and memory disagree."""
    known = {thread.tid for thread in capture.threads}
    stuck, quiet, leaving, walked = [], [], [], []
    for thread in threads:
        if thread.tid not in known:
            message = f"thread {thread.tid} is gone"
            raise TruthError(message)
        if thread.role == "crashes":
            stuck.append(_stuck(capture, thread, process))
        elif thread.role == "shuts-down":
            leaving.append(thread.tid)
        elif thread.role == "walked":
            walked.append({"tid": thread.tid, "frames": StackTruth(capture, thread).waiting_frames()})
            quiet.append([capture.pid, thread.tid])
        else:
            _check_decoy(capture, thread)
            quiet.append([capture.pid, thread.tid])
    missing = DECOYS - {thread.role for thread in threads}
    if missing:
        message = f"no thread that {', '.join(sorted(missing))}"
        raise TruthError(message)
    noted = {thread.tid for thread in threads}
    quiet += [[capture.pid, tid] for tid in sorted(known - noted)]
    return {
        "case": case,
        "arch": capture.arch,
        "pid": capture.pid,
        "process": process,
        "compiler": compiler,
        "stuck": stuck,
        "walked": walked,
        "shutting_down": leaving,
        "quiet": quiet,
        "roles": {str(thread.tid): thread.note for thread in threads},
    }


def _check_decoy(capture: Capture, thread: ThreadTruth) -> None:
    """Refuse a decoy that would deceive nobody: without the stale CONTEXT, or the address, that it is there for."""
    if bool(thread.exceptions) is not (thread.role == "handled") or not all(e.handled for e in thread.exceptions):
        message = f"thread {thread.tid} ({thread.note}) raised {thread.exceptions}"
        raise TruthError(message)
    word = StackTruth(capture, thread).word
    # The registers of a WoW64 thread are those of its 64-bit side; its program is one that runs on x86 too.
    registers = {} if capture.arch == "wow64" else next(t for t in capture.threads if t.tid == thread.tid).registers
    sp = registers.get("rsp", registers.get("esp", 0))
    for raised in thread.exceptions:
        if raised.context < sp:
            message = f"thread {thread.tid} ({thread.note}): its CONTEXT is below its stack pointer"
            raise TruthError(message)
        ip = int.from_bytes(capture.read(raised.context + IP_IN_CONTEXT[word], word), "little")
        if ip != raised.ip:
            message = f"thread {thread.tid} ({thread.note}): its CONTEXT is gone, {ip:#x} is in its place"
            raise TruthError(message)
    if bool(thread.entries) is not (thread.role == "holds-address"):
        message = f"thread {thread.tid} ({thread.note}) has {len(thread.entries)} notes"
        raise TruthError(message)


def _stuck(capture: Capture, thread: ThreadTruth, process: str) -> dict[str, Any]:
    unhandled = [index for index, raised in enumerate(thread.exceptions) if not raised.handled]
    if not unhandled:
        message = f"thread {thread.tid} raised nothing"
        raise TruthError(message)
    stack = StackTruth(capture, thread)
    described = [_exception(capture, thread, stack, index, process) for index in unhandled]
    return {**described[-1], "nested": described[:-1]}


def _exception(capture: Capture, thread: ThreadTruth, stack: StackTruth, index: int, process: str) -> dict[str, Any]:
    raised = thread.exceptions[index]
    return {
        "pid": capture.pid,
        "tid": thread.tid,
        "process": process,
        "arch": capture.arch,
        "code": _hex(raised.code),
        "address": _hex(raised.ip),
        "sp": _hex(raised.sp),
        "record": _hex(raised.record),
        "context": _hex(raised.context),
        "frames": stack.frames(index),
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
