# SPDX-License-Identifier: Apache-2.0
"""The C runtime's helpers that x86 prologues call, and the frames of functions that handle exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.code import Emitter, dword, push_value
from tests.forge.functions_x86 import Shape, Word, allocate, pushes, saved_words
from tests.forge.images import ImageBuilder

NO_HANDLER = 0xFFFFFFFF


@dataclass(frozen=True)
class Runtime:
    """Addresses, in one image, of the compiler's helpers that prologues call."""

    seh_prolog: int
    seh_epilog: int
    seh_prolog4: int
    seh_epilog4: int
    chkstk: int
    handler: int
    cookie: int
    scope_table: int

    def seh_frame(self, locals_size: int, try_level: int = 0, scope_table: int | None = None) -> Shape:
        """Return the frame of a function with __try, as VC 7 wrote it: __SEH_prolog does the work."""
        scope_table = self.scope_table if scope_table is None else scope_table
        words: dict[int, Word] = {-4: "ebp", -8: try_level, -12: scope_table, -16: self.handler, -20: "seh"}
        words |= saved_words(("ebx", "esi", "edi"), 20 + locals_size)
        size = 32 + locals_size
        words[-28] = lambda ebp: ebp + 4 - size
        return Shape(
            size,
            words,
            lambda code: (
                code.emit(push_value(locals_size), b"\x68", dword(scope_table))
                .call(self.seh_prolog)
                .emit(b"\xc7\x45\xfc" + dword(try_level))
            ),
            lambda code: code.emit("c745fcffffffff").call(self.seh_epilog),
            ebp=-4,
            seh=-20,
        )

    def seh4_frame(self, locals_size: int, cookie: int, try_level: int = 0, *, ends_try: bool = True) -> Shape:
        """Return the same as VC 8 wrote it: the scope table encoded, and a cookie below the saved registers.

        `ends_try` False: the function returns without leaving its __try block first.
        """
        words: dict[int, Word] = {
            -4: "ebp",
            -8: try_level,
            -12: self.scope_table ^ cookie,
            -16: self.handler,
            -20: "seh",
            **saved_words(("ebx", "esi", "edi"), 20 + locals_size),
        }
        size = 36 + locals_size
        words[-size] = lambda ebp: ebp ^ cookie
        words[-28] = lambda ebp: ebp + 4 - size
        return Shape(
            size,
            words,
            lambda code: (
                code.emit(push_value(locals_size), b"\x68", dword(self.scope_table))
                .call(self.seh_prolog4)
                .emit(b"\xc7\x45\xfc" + dword(try_level))
            ),
            lambda code: code.emit("c745fcfeffffff" if ends_try else b"").call(self.seh_epilog4),
            ebp=-4,
            seh=-20,
        )

    def eh_frame(self, locals_size: int, handler: int, cookie: int | None = None, state: int = NO_HANDLER) -> Shape:
        """Return the frame of a C++ function with destructors or catch blocks, its registration made in line.

        With a cookie as VC 8 wrote it (registers and cookie below the locals), otherwise the registers come first and
        the locals are below them.
        """
        saved = ("ebx", "esi", "edi")
        words: dict[int, Word] = {-4: "ebp", -8: state, -12: handler, -16: "seh"}
        start = b"\x55\x8b\xec" + push_value(state) + b"\x68" + dword(handler) + bytes.fromhex("64a10000000050")
        finish = bytes.fromhex("8b4df464890d00000000")  # mov ecx,[ebp-0Ch]; mov fs:[0],ecx
        register = bytes.fromhex("8d45f464a300000000")  # lea eax,[ebp-0Ch]; mov fs:[0],eax

        def prologue(code: Emitter) -> None:
            code.emit(start)
            if cookie is None:
                allocate(code.emit(pushes(saved)), locals_size, self.chkstk)
            else:
                allocate(code, locals_size, self.chkstk)
                code.emit(pushes(saved), b"\xa1", dword(self.cookie), "33c550")
            code.emit(register)

        def epilogue(code: Emitter) -> None:
            code.emit(finish, "8d65e85f5e5bc9" if cookie is None else "595f5e5bc9")

        if cookie is None:
            return Shape(28 + locals_size, words | saved_words(saved, 16), prologue, epilogue, ebp=-4, seh=-16)
        size = 32 + locals_size
        words |= saved_words(saved, 16 + locals_size)
        words[-size] = lambda ebp: ebp ^ cookie
        return Shape(size, words, prologue, epilogue, ebp=-4, seh=-16)


_SEH_PROLOG = (
    "64a100000000508b442410896c24108d6c24102be05356578b45f88965e8508b45fcc745fcffffffff8945f88d45f064a300000000c3"
)
_SEH_PROLOG4 = (
    "64ff35000000008b442410896c24108d6c24102be0535657a1",
    "3145fc33c5508965e8ff75f88b45fcc745fcfeffffff8945f8",
)
_SEH_PROLOG4_END = "8d45f064a300000000c3"
_SEH_EPILOG = "8b4df064890d00000000595f5e5bc951c3"
_SEH_EPILOG4 = "8b4df064890d00000000595f5f5e5b8be55d51c3"
_CHKSTK = "513d001000008d4c2408721481e9001000002d0010000085013d0010000073ec2bc88bc485018be18b088b400450c3"
_HANDLER = "33c040c3"  # xor eax,eax; inc eax; ret: ExceptionContinueSearch


def add_runtime(image: ImageBuilder, cookie: int = 0xBB40E64E, handler: int | None = None) -> Runtime:
    """Put the compiler's helpers into `image`; `handler` is its SEH handler if it has a well-known one."""

    def put(name: str, *parts: str | bytes) -> int:
        data = bytes(Emitter(0).emit(*parts).data)
        return image.name_function(name, image.code(image.place_code(len(data)), data))

    at = image.place_data(dword(cookie), writable=True)
    if handler is None:
        handler = put("__except_handler", _HANDLER)
    scope_table = image.place_data(dword(NO_HANDLER) + dword(handler) + dword(handler))
    first, second = _SEH_PROLOG4
    return Runtime(
        put("__SEH_prolog", b"\x68", dword(handler), _SEH_PROLOG),
        put("__SEH_epilog", _SEH_EPILOG),
        put("__SEH_prolog4", b"\x68", dword(handler), first, dword(at), second, _SEH_PROLOG4_END),
        put("__SEH_epilog4", _SEH_EPILOG4),
        put("_chkstk", _CHKSTK),
        handler,
        at,
        scope_table,
    )
