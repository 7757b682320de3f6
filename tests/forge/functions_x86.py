# SPDX-License-Identifier: Apache-2.0
"""Synthesises x86 functions whose code tells the truth about the stack that is laid out for them.

A `Shape` is a kind of frame: the prologue and epilogue that compilers of the time wrote for it, and the words that
they leave between the return address and the stack pointer. A `Function` is a shape with calls whose return addresses
are given; its code pushes exactly what lies on the stack, and running on from any return address leads to its `ret`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.forge.code import REGISTERS_32, Emitter, dword, push_value, rel32, set_register_32
from tests.forge.images import ImageBuilder

NO_HANDLER = 0xFFFFFFFF
Word = int | str | Callable[[int], int]
"""A constant; a register or `seh` as at entry; or a function of the frame's own ebp."""

ENTRY_NAMES = ("ebx", "esi", "edi", "ebp")


@dataclass(frozen=True)
class Shape:
    """A kind of frame. Offsets are from the return address's slot, so those of the frame are negative."""

    size: int
    """Bytes from the return address's slot down to the stack pointer after the prologue."""
    words: dict[int, Word]
    prologue: Callable[[Emitter], object]
    epilogue: Callable[[Emitter], object]
    """Everything between the body and `ret`."""
    ebp: int | None = None
    """Where ebp points after the prologue; None: it stays the caller's."""
    seh: int | None = None
    """Where the exception registration lies, if the function makes one."""


@dataclass(frozen=True)
class Call:
    """A call in a function's body. `args` are the words pushed for it, first argument (lowest address) first.

    `via` is `direct`, a register's name, the address of a slot that holds the target, or the bytes of the call
    instruction itself. `pops` is how many bytes the callee removes. `sets` loads registers before the pushes. `code`
    replaces the generated instructions before the call itself; it has to push `args` and set what `sets` says.
    `after` replaces the generated removal of the arguments that the callee leaves.
    """

    returns_to: int
    target: int
    args: tuple[int, ...] = ()
    pops: int = 0
    via: str | int | bytes = "direct"
    sets: dict[str, int] = field(default_factory=dict)
    code: bytes | None = None
    after: bytes | None = None

    def emit(self, code: Emitter) -> None:
        """Append the call, so that it ends at `returns_to`, and the removal of what the callee leaves."""
        if self.code is not None:
            body = self.code
        else:
            body = b"".join(set_register_32(name, value) for name, value in self.sets.items())
            body += b"".join(push_value(value) for value in reversed(self.args))
            if isinstance(self.via, str) and self.via != "direct":
                body += set_register_32(self.via, self.target)
        if self.via == "direct":
            call = b"\xe8" + rel32(self.returns_to, self.target)
        elif isinstance(self.via, bytes):
            call = self.via
        elif isinstance(self.via, str):
            call = bytes((0xFF, 0xD0 | REGISTERS_32.index(self.via)))
        else:
            call = b"\xff\x15" + dword(self.via)
        code.pad_to(self.returns_to - len(call) - len(body)).emit(body, call)
        left = 4 * len(self.args) - self.pops
        if self.after is not None:
            code.emit(self.after)
        elif left:
            code.emit(b"\x59" if left == 4 else b"\x83\xc4" + left.to_bytes(1, "little"))


@dataclass(frozen=True)
class Function:
    """A function of an image. `pops` is the `n` of its `ret n`."""

    name: str
    start: int
    shape: Shape
    calls: tuple[Call, ...] = ()
    pops: int = 0

    def emit(self) -> bytes:
        """Return the function's code."""
        code = Emitter(self.start)
        self.shape.prologue(code)
        for call in self.calls:
            call.emit(code)
        self.shape.epilogue(code)
        emit_return(code, self.pops)
        return bytes(code.data)


def raw(size: int, words: dict[int, Word], prologue: str, epilogue: str, **where: int) -> Shape:
    """Return a shape that is given as code in hex: hand-written assembly."""
    return Shape(size, words, lambda code: code.emit(prologue), lambda code: code.emit(epilogue), **where)


def emit_return(code: Emitter, pops: int) -> None:
    """Append `ret` or `ret n`."""
    code.emit(b"\xc2" + pops.to_bytes(2, "little") if pops else b"\xc3")


def _pushes(names: tuple[str, ...]) -> bytes:
    return bytes(0x50 | REGISTERS_32.index(name) for name in names)


def _pops(names: tuple[str, ...]) -> bytes:
    return bytes(0x58 | REGISTERS_32.index(name) for name in reversed(names))


def _allocate(code: Emitter, size: int, chkstk: int | None) -> None:
    if size >= 0x1000:
        assert chkstk is not None, "a frame of a page or more needs a stack probe"
        code.emit(b"\xb8", dword(size)).call(chkstk)
    elif size == 4:
        code.emit("51")  # push ecx, as compilers do for one word
    elif size:
        code.emit(b"\x83\xec" + bytes((size,)) if size < 0x80 else b"\x81\xec" + dword(size))


def _saved(names: tuple[str, ...], below: int) -> dict[int, Word]:
    return {-below - 4 * (index + 1): name for index, name in enumerate(names)}


def ebp_frame(locals_size: int = 0, saved: tuple[str, ...] = (), chkstk: int | None = None) -> Shape:
    """Push ebp; mov ebp,esp; locals; saved registers."""

    def prologue(code: Emitter) -> None:
        _allocate(code.emit("558bec"), locals_size, chkstk)
        code.emit(_pushes(saved))

    def epilogue(code: Emitter) -> None:
        code.emit(_pops(saved), "c9" if locals_size else "5d")

    words: dict[int, Word] = {-4: "ebp", **_saved(saved, 4 + locals_size)}
    return Shape(4 + locals_size + 4 * len(saved), words, prologue, epilogue, ebp=-4)


def frameless(locals_size: int = 0, saved: tuple[str, ...] = (), chkstk: int | None = None) -> Shape:
    """Locals, then saved registers, addressed through esp; ebp stays what it is."""

    def prologue(code: Emitter) -> None:
        _allocate(code, locals_size, chkstk)
        code.emit(_pushes(saved))

    def epilogue(code: Emitter) -> None:
        code.emit(_pops(saved))
        if locals_size:
            code.emit(b"\x83\xc4" + bytes((locals_size,)) if locals_size < 0x80 else b"\x81\xc4" + dword(locals_size))

    return Shape(locals_size + 4 * len(saved), _saved(saved, locals_size), prologue, epilogue)


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
        words |= _saved(("ebx", "esi", "edi"), 20 + locals_size)
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
            **{-4: "ebp", -8: try_level, -12: self.scope_table ^ cookie, -16: self.handler, -20: "seh"},
            **_saved(("ebx", "esi", "edi"), 20 + locals_size),
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
        the locals lie below them.
        """
        saved = ("ebx", "esi", "edi")
        words: dict[int, Word] = {-4: "ebp", -8: state, -12: handler, -16: "seh"}
        start = b"\x55\x8b\xec" + push_value(state) + b"\x68" + dword(handler) + bytes.fromhex("64a10000000050")
        finish = bytes.fromhex("8b4df464890d00000000")  # mov ecx,[ebp-0Ch]; mov fs:[0],ecx
        register = bytes.fromhex("8d45f464a300000000")  # lea eax,[ebp-0Ch]; mov fs:[0],eax

        def prologue(code: Emitter) -> None:
            code.emit(start)
            if cookie is None:
                _allocate(code.emit(_pushes(saved)), locals_size, self.chkstk)
            else:
                _allocate(code, locals_size, self.chkstk)
                code.emit(_pushes(saved), b"\xa1", dword(self.cookie), "33c550")
            code.emit(register)

        def epilogue(code: Emitter) -> None:
            code.emit(finish, "8d65e85f5e5bc9" if cookie is None else "595f5e5bc9")

        if cookie is None:
            return Shape(28 + locals_size, words | _saved(saved, 16), prologue, epilogue, ebp=-4, seh=-16)
        size = 32 + locals_size
        words |= _saved(saved, 16 + locals_size)
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
