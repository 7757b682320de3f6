# SPDX-License-Identifier: Apache-2.0
"""Synthesises x86 functions whose code tells the truth about the stack that is laid out for them.

A `Shape` is a kind of frame: the prologue and epilogue that compilers of the time wrote for it, and the words that
they leave between the return address and the stack pointer. A `Function` is a shape with calls whose return addresses
are given; its code pushes exactly what is on the stack, and running on from any return address leads to its `ret`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.forge.code import REGISTERS_32, Emitter, dword, push_value, rel32, set_register_32

Word = int | str | Callable[[int], int]
"""A constant; a register or `seh` as at entry; or a function of the frame's own ebp."""


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
    """Where the exception registration is, if the function makes one."""
    alignment: int | None = None
    """What the stack pointer is rounded down to below the saved ebp, if the function does that."""


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


def pushes(names: tuple[str, ...]) -> bytes:
    return bytes(0x50 | REGISTERS_32.index(name) for name in names)


def _pops(names: tuple[str, ...]) -> bytes:
    return bytes(0x58 | REGISTERS_32.index(name) for name in reversed(names))


def allocate(code: Emitter, size: int, chkstk: int | None) -> None:
    if size >= 0x1000:
        assert chkstk is not None, "a frame of a page or more needs a stack probe"
        code.emit(b"\xb8", dword(size)).call(chkstk)
    elif size == 4:
        code.emit("51")  # push ecx, as compilers do for one word
    elif size:
        code.emit(b"\x83\xec" + bytes((size,)) if size < 0x80 else b"\x81\xec" + dword(size))


def saved_words(names: tuple[str, ...], below: int) -> dict[int, Word]:
    return {-below - 4 * (index + 1): name for index, name in enumerate(names)}


def ebp_frame(locals_size: int = 0, saved: tuple[str, ...] = (), chkstk: int | None = None) -> Shape:
    """Push ebp; mov ebp,esp; locals; saved registers."""

    def prologue(code: Emitter) -> None:
        allocate(code.emit("558bec"), locals_size, chkstk)
        code.emit(pushes(saved))

    def epilogue(code: Emitter) -> None:
        code.emit(_pops(saved), "c9" if locals_size else "5d")

    words: dict[int, Word] = {-4: "ebp", **saved_words(saved, 4 + locals_size)}
    return Shape(4 + locals_size + 4 * len(saved), words, prologue, epilogue, ebp=-4)


def aligned_frame(locals_size: int, padding: int, alignment: int = 16) -> Shape:
    """Push ebp; mov ebp,esp; and esp,-alignment; locals. `padding` is what the rounding costs where the frame is."""

    def prologue(code: Emitter) -> None:
        allocate(code.emit("558bec", b"\x83\xe4" + bytes((0x100 - alignment,))), locals_size, None)

    def epilogue(code: Emitter) -> None:
        code.emit("8be55d")

    return Shape(4 + padding + locals_size, {-4: "ebp"}, prologue, epilogue, ebp=-4, alignment=alignment)


def frameless(locals_size: int = 0, saved: tuple[str, ...] = (), chkstk: int | None = None) -> Shape:
    """Locals, then saved registers, addressed through esp; ebp stays what it is."""

    def prologue(code: Emitter) -> None:
        allocate(code, locals_size, chkstk)
        code.emit(pushes(saved))

    def epilogue(code: Emitter) -> None:
        code.emit(_pops(saved))
        if locals_size:
            code.emit(b"\x83\xc4" + bytes((locals_size,)) if locals_size < 0x80 else b"\x81\xc4" + dword(locals_size))

    return Shape(locals_size + 4 * len(saved), saved_words(saved, locals_size), prologue, epilogue)
