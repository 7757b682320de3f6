# SPDX-License-Identifier: Apache-2.0
"""A thread inside a dispatch, of which `throwstack.dispatch.taken` says whether a handler has taken the exception."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.support.given_names import GivenNames
from tests.support.targets import GivenWalk
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.target import Target

NTDLL = Module("ntdll.dll", r"C:\Windows\System32\ntdll.dll", 0x77000000, 0x100000)
APP = Module("app.exe", r"C:\app.exe", 0x00400000, 0x100000)
RUNTIME = Module("msvcr100.dll", r"C:\Windows\System32\msvcr100.dll", 0x78000000, 0x100000)
LOW, RECORD, CONTEXT, SIZE = 0x10000, 0x10800, 0x10900, 0x1000
OF_BLOCK = LOW + 0x700
"""Where what runs a catch block has its exception registration: {next, handler in the C++ runtime}."""
DISPATCHER, SEARCHER = "KiUserExceptionDispatcher", "RtlDispatchException"
HANDLED = ("waits", "ExecuteHandler2", SEARCHER, DISPATCHER)


def scene(
    arch: Arch,
    *names: str,
    guessed: int | None = None,
    arguments: tuple[int, ...] = (),
    at: int = LOW + 0x100,
    outside: tuple[str, ...] = (),
    more: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Target, list[Frame]]:
    """A thread in `names`, innermost first, below the CONTEXT; `outside` are the frames above it.

    The frame with the index `guessed` was found by a scan. `arguments` are words on the stack from `at` on, `more` are
    others by their addresses.
    """
    frames, of = [], {}
    for index, symbol in enumerate((*names, *outside)):
        ip = NTDLL.base + 0x1000 * (index + 1)
        sp = LOW + 0x40 * (index + 1) if index < len(names) else CONTEXT + 0x300 + 0x40 * index
        of[ip] = symbol
        trust = Trust.SCAN if index == guessed else Trust.PROLOGUE
        registers = Registers(ip, tuple(sp if n == 4 else None for n in range(len(arch.register_names))))
        frames.append(Frame(registers, sp, 0, sp, trust))
    data = bytearray(SIZE)
    data[OF_BLOCK - LOW + 4 : OF_BLOCK - LOW + 8] = (RUNTIME.base + 0x1000).to_bytes(4, "little")
    words = b"".join(word.to_bytes(4, "little") for word in arguments)
    data[at - LOW : at - LOW + len(words)] = words
    for address, word in more.items():
        data[address - LOW : address - LOW + 4] = word.to_bytes(4, "little")
    memory = memory_of({LOW: bytes(data)})
    images = ImageMap(memory, ModuleMap([NTDLL, APP, RUNTIME]))
    return Target(
        arch, memory, images, GivenNames(images, of), GivenWalk(Walk(tuple(frames), End.THREAD_START))
    ), frames


def thrown(arch: Arch, *, flags: int = 0, route: Route = Route.DISPATCHER, ip: int = 0x401000) -> SavedException:
    registers = Registers(ip, tuple(CONTEXT + 0x400 if n == 4 else None for n in range(len(arch.register_names))))
    record = ExceptionRecord(0xC0000005, flags, ip, 0, (), RECORD, 0)
    return SavedException(record, Context(arch, CONTEXT, 0, registers, *[0] * 7), (route,), LOW + 0x200)
