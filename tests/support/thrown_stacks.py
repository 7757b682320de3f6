# SPDX-License-Identifier: Apache-2.0
"""Stuck threads from a line of text: the names on their stack, innermost first, and the exceptions thrown there.

`app!Handler < KERNELBASE!UnhandledExceptionFilter < ntdll!KiUserExceptionDispatch < [0xC0000005] app!Parse`: the code
in brackets says that the function after it threw this exception, `[0xC0000409 7]` also with parameters. A `~` before
a name says that the frame is a guess, a `^` that it was found by a frame pointer, a `?` that the name is doubtful, and
a name may be missing (`app!`).
"""

from __future__ import annotations

import re

from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.names.function_extent import Certainty
from throwstack.names.symbols import Name, SymbolKind, Symbols
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.unwind.target import Target, ThreadStack
from throwstack.unwind.x64 import Unwinder as X64Unwinder

LIMIT = 0x10000
_FRAME = re.compile(r"(?:\[(0x\w+)((?: 0?x?\w+)*)\] )?([~^?]*)([^!]+)!(.*)")


class GivenNames(Symbols):
    """Names for the addresses of one stack."""

    def __init__(self, names: dict[int, Name]) -> None:
        super().__init__(ImageMap(memory_of({}), ModuleMap([])))
        self.given = names

    def frames_at(self, address: int, *, is_return_address: bool = False) -> tuple[Name, ...]:
        return (self.given[address],)


def thrown(text: str, arch: Arch = Arch.X64) -> tuple[StuckThread, Target]:
    """Return the thread that is described by `text`, its exceptions innermost first, and a process with these names."""
    frames, names, thrown_at = [], {}, []
    ip_name, sp_name = ("rip", "rsp") if arch is Arch.X64 else ("eip", "esp")
    for depth, label in enumerate(text.split(" < ")):
        code, parameters, marks, module, symbol = _FRAME.fullmatch(label).groups()
        ip, sp = 0x400000 + 0x100 * depth, LIMIT + 0x1000 * depth
        names[ip] = Name(
            ip,
            module,
            symbol,
            0x20,
            SymbolKind.PDB,
            certainty=Certainty.DOUBTFUL if "?" in marks else Certainty.CERTAIN,
            rva=ip & 0xFFFF,
        )
        trust = Trust.SCAN if "~" in marks else Trust.FRAME_POINTER if "^" in marks else Trust.CFI
        frames.append(Frame(Registers.named(arch, {ip_name: ip, sp_name: sp}), sp, None, None, trust))
        if code:
            words = tuple(int(word, 16) for word in parameters.split())
            thrown_at.append((depth, ExceptionRecord(int(code, 16), 0, ip, 0, words, sp - 0x100, len(words))))
    exceptions = tuple(
        SavedException(
            record,
            Context(arch, frames[depth].sp - 0x800, 0, frames[depth].registers, *(0,) * 7),
            (Route.DISPATCHER,),
            frames[depth].sp - 0x800,
        )
        for depth, record in thrown_at
    )
    walks = tuple(Walk(tuple(frames[depth:]), End.THREAD_START) for depth, _ in thrown_at)
    stack = ThreadStack(StackBounds(LIMIT, LIMIT + 0x1000 * len(frames)), frames[0].registers, "", None)
    stuck = StuckThread(stack, (), exceptions, walks, Walk(tuple(frames), End.THREAD_START), ())
    given = GivenNames(names)
    return stuck, Target(arch, given.images.memory, given.images, given, X64Unwinder(given.images))
