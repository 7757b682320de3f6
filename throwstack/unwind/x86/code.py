# SPDX-License-Identifier: Apache-2.0
"""The code of one address space: instructions, targets of calls and jumps, starts of functions.

All analyses of the x86 unwinder share it, so that each instruction is decoded once. Code is in the executable sections
of images, and outside images: a just-in-time compiler generates functions in private memory, and a library that hooks
system calls copies their stubs there.
"""

from __future__ import annotations

from throwstack.core.budgets import BUDGETS
from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import MemoryUnreadable
from throwstack.images.image import ImageMap
from throwstack.names.symbols import SymbolKind, Symbols
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x86.decode import MASK, Decoder, Immediate, Indirect, Instruction, Opcode

_MAX_THUNKS = 4
_MAX_TABLE = 512


class WorkLimitError(ThrowstackError):
    """Raised when a walk would have to follow more instructions than its limit allows.

    The analyses that were under way are left incomplete, so that the objects that hold them must not be used again.
    """


class Code:
    """The code of one address space, with its instructions, pointers to code, and starts of functions."""

    __slots__ = (
        *("_is_code", "_outside", "_work_limit"),
        *("decoder", "images", "memory", "symbols", "work_done"),
    )

    def __init__(self, images: ImageMap, symbols: Symbols, outside: CodeOutside | None = None) -> None:
        """`images` are the loaded images, whose code is read; `symbols` give the starts of functions.

        `outside` is what is known of code outside the images, and is None if nothing is.
        """
        self.images = images
        self._outside = CodeOutside(images) if outside is None else outside
        self.memory = images.memory
        self.symbols = symbols
        self.decoder = Decoder(images.memory)
        self._is_code: dict[int, bool] = {}
        self._work_limit = BUDGETS.code.thread
        self.work_done = 0
        """How many instructions the current walk has followed."""

    def begin_walk(self, work_limit: int) -> None:
        """Count the followed instructions from zero again, for a walk that may follow at most `work_limit` of them."""
        self._work_limit = work_limit
        self.work_done = 0

    def work(self) -> None:
        """Count one followed instruction, and raise `WorkLimitError` if the walk has followed more than its limit."""
        self.work_done += 1
        if self.work_done > self._work_limit:
            raise WorkLimitError

    def is_code(self, address: int) -> bool:
        """Say whether `address` can be code: in an executable section of an image, or in memory outside the images.

        Outside the images, all memory that can be read counts. A protection that forbids to run code is not believed:
        32-bit processes run without Data Execution Prevention unless they ask for it, and then code runs anywhere.
        """
        known = self._is_code.get(address)
        if known is None:
            if len(self._is_code) > 1 << 18:
                self._is_code.clear()
            is_outside = self.is_outside(address)
            is_code = self.memory.is_readable(address) if is_outside else self.images.is_code(address)
            known = self._is_code[address] = is_code
        return known

    def is_outside(self, address: int) -> bool:
        """Say whether `address` is in no image."""
        return self.images.find(address) is None

    def is_certainly_code(self, address: int) -> bool:
        """Say whether `address` is in an executable section of an image, or where code is known to be outside them."""
        return self.images.is_code(address) or (self.is_code(address) and self._outside.is_known_code(address))

    def is_certainly_no_code(self, address: int) -> bool:
        """Say whether no code can be at `address`: it cannot be read, or its region forbids to run code."""
        return not self.is_code(address) or (self.is_outside(address) and self._outside.is_code(address) is False)

    def at(self, address: int) -> Instruction | None:
        """Return the instruction at `address`, or None if it is not in code or cannot be decoded."""
        return self.decoder.at(address) if self.is_code(address) else None

    def is_function_start(self, address: int) -> bool:
        """Say whether a symbol begins at `address`."""
        return self.symbols.function_start(address) == address

    def function_start(self, address: int, *, is_return_address: bool) -> int | None:
        """Return the start of the function that contains `address`, or None if symbols do not tell.

        They do not if no symbol is at `address`, or if the image has only its exports as symbols and no precompiled
        method of .NET is there. Outside the images, a source of functions may tell.
        `is_return_address` says that `address` follows a call, so that the function that contains the call is meant.
        """
        image = self.images.find(address)
        if image is None:
            known = self._outside.function(address - 1 if is_return_address else address)
            return None if known is None else known.start or None
        if self.symbols.table(image).kind is SymbolKind.EXPORT:
            return self.symbols.method_start(address - 1 if is_return_address else address)
        return self.symbols.function_start(address, is_return_address=is_return_address)

    def pointer(self, address: int) -> int | None:
        """Return the word at `address` if it is an address of code, or None."""
        try:
            target = self.memory.u32(address)
        except MemoryUnreadable:
            return None
        return target if self.is_code(target) else None

    def target(self, instruction: Instruction) -> int | None:
        """Return the target of a call or jump, or None if it is not known.

        The target is known if the instruction contains it, or the fixed address of a pointer to it (`call [address]`).
        It must be in code.
        """
        operand = instruction.operand(0)
        if isinstance(operand, Immediate):
            return operand.value if self.is_code(operand.value) else None
        absolute = operand.absolute if isinstance(operand, Indirect) else None
        return self.pointer(absolute) if absolute is not None else None

    def table(self, instruction: Instruction) -> list[int]:
        """Return the targets of a jump through a table (`jmp [eax*4+table]`); empty for any other jump.

        The length of a table is not recorded. Its end is taken to be the first word that does not point into code of
        the same image.
        """
        operand = instruction.operand(0)
        if not isinstance(operand, Indirect) or operand.index is None or operand.scale != 4 or operand.base is not None:
            return []
        targets: dict[int, None] = {}
        image = self.images.find(instruction.address)
        for index in range(_MAX_TABLE):
            target = self.pointer((operand.displacement + 4 * index) & MASK)
            if target is None or self.images.find(target) is not image:
                break
            targets[target] = None
        return list(targets)

    def after_thunks(self, address: int) -> int:
        """Return the address that a call of `address` reaches when the jumps there (thunks) are followed.

        If there is no jump at `address`, the result is `address`. Calls of imports and calls in incrementally linked
        images go to a thunk, which is a single `jmp` to the function. Up to four of them in a row are followed.
        """
        for _ in range(_MAX_THUNKS):
            instruction = self.at(address)
            if instruction is None or instruction.op is not Opcode.JUMP:
                break
            target = self.target(instruction)
            if target is None:
                break
            address = target
        return address
