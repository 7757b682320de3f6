# SPDX-License-Identifier: Apache-2.0
"""What the exceptions of a published stack are about: codes, parameters, and C++ objects in a memory of their own."""

from __future__ import annotations

from tests.exceptions.layout import BASE, Layout, Ptr, throw
from tests.stacks.published import PublishedStack, Raised
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Arch

_FAULT = Raised(0xC0000005, (0, 0x18))
_RUST_PANIC = "rust_panic"
"""What Rust throws for a panic: a type descriptor with this name, undecorated."""


class RaisedObjects:
    """Gives the records of a stack's exceptions, the outermost one first, as frames are laid out."""

    def __init__(self, stack: PublishedStack) -> None:
        """Take the exceptions of `stack`, which its file gives innermost first."""
        self._left = list(stack.raised)
        self._arch = stack.arch
        self.layouts: list[Layout] = []

    def next(self, default: int) -> tuple[int, tuple[int, ...]]:
        """Return code and parameters of the next exception inwards; `default` is its code if the file gives none."""
        unsaid = _FAULT if default == _FAULT.code else Raised(default)
        raised = self._left.pop() if self._left else unsaid
        if not raised.cpp_type:
            return raised.code, raised.parameters
        layout = Layout(self._arch, _next=BASE + PAGE_SIZE * (1 + len(self.layouts)))
        self.layouts.append(layout)
        *scope, name = raised.cpp_type.split("::")
        decorated = "@".join((name, *reversed(scope))) + "@@"
        is_pointer = name.endswith("*")
        size = 8 * self._arch.pointer_size
        layout.place("text", raised.message.encode() + b"\0")
        layout.place("object", Ptr("", BASE), Ptr("text"), b"\1" + b"\0" * 31)
        own = name if name == _RUST_PANIC else (".PAV" if is_pointer else ".?AV") + decorated.replace("*", "")
        types = [(own, size)]
        if raised.message:
            types.append((".?AVexception@std@@", size))
        throw(layout, *types)
        base = (BASE,) if self._arch is Arch.X64 else ()
        return 0xE06D7363, (0x19930520, layout.labels["object"], layout.labels["info"], *base)

    def segments(self) -> dict[int, bytes]:
        """Return the memory that the objects are in, by address."""
        found = {}
        for number, layout in enumerate(self.layouts):
            address = BASE + PAGE_SIZE * (1 + number)
            found[address] = layout.memory().page(address) or b""
        return found
