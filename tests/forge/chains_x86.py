# SPDX-License-Identifier: Apache-2.0
"""Lays out a chain of x86 calls on a stack, from the start of the thread inwards, and keeps the truth about it.

Going inwards is what the program did: each function gets its return address, its prologue's words, and the arguments
it pushes for the next call. Nothing here unwinds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.functions_x86 import Call, Function
from tests.forge.runtime_x86 import NO_HANDLER
from tests.forge.stacks import Stack
from tests.forge.truth import TruthFrame


@dataclass
class Placed:
    """A function's activation: where its return address is and the registers it had at `registers["eip"]`."""

    function: Function
    return_slot: int
    return_address: int
    registers: dict[str, int]
    seh: int
    """fs:[0] at entry."""


class Chain:
    """One chain of calls. `return_slot` is where the outermost function's return address is."""

    def __init__(self, stack: Stack, return_slot: int, return_address: int = 0, **registers: int) -> None:
        """Start before the outermost function, with the nonvolatile registers it is entered with."""
        self.stack = stack
        self.return_slot = return_slot
        self.return_address = return_address
        self.registers = {"ebx": 0, "esi": 0, "edi": 0, "ebp": 0, **registers}
        self.seh = NO_HANDLER
        self.placed: list[Placed] = []

    def enter(self, function: Function, call: Call | None = None, *, ip: int | None = None, args: tuple = ()) -> Chain:
        """Enter `function`, which goes on to `call` (by default its last), or is stopped at `ip` past its prologue.

        `args` stands in for the call's own arguments where code passes on what it has at run time: words, or
        functions of the frame's ebp.
        """
        slot, shape = self.return_slot, function.shape
        before = {**self.registers, "seh": self.seh}
        self.stack.at(slot).d32(self.return_address)
        if shape.ebp is not None:
            self.registers["ebp"] = slot + shape.ebp
        for offset, word in shape.words.items():
            value = before[word] if isinstance(word, str) else word(slot + shape.ebp) if callable(word) else word
            self.stack.at(slot + offset).d32(value)
        if shape.seh is not None:
            self.seh = slot + shape.seh
        esp = slot - shape.size
        returns_to = self.return_address
        if ip is None:
            call = function.calls[-1] if call is None else call
            self.registers.update(call.sets)
            words = [word(self.registers["ebp"]) if callable(word) else word for word in args or call.args]
            esp -= 4 * len(words)
            self.stack.at(esp).d32(*words)
            self.return_slot, self.return_address = esp - 4, call.returns_to
            esp += call.pops
            ip = call.returns_to
        self.placed.append(Placed(function, slot, returns_to, {**self.registers, "esp": esp, "eip": ip}, before["seh"]))
        return self

    def interrupt(self, dispatcher: Function, call: Call, slot: int, esp: int, args: tuple[int, ...]) -> Chain:
        """Let the kernel enter `dispatcher` for a fault in the function entered last; it goes on to `call`.

        `slot` is where the fault's eip is, in the CONTEXT. `args` are the words at `esp`, the arguments of the call.
        """
        eip = self.placed[-1].registers["eip"]
        self.stack.at(esp).d32(*args)
        self.return_slot, self.return_address = esp - 4, call.returns_to
        registers = {**self.registers, "esp": esp + call.pops, "eip": call.returns_to}
        self.placed.append(Placed(dispatcher, slot, eip, registers, self.seh))
        return self

    def frames(self, images: Images) -> tuple[TruthFrame, ...]:
        """Return the frames, innermost first, once everything is on the stack."""
        return tuple(
            TruthFrame(
                placed.registers["eip"],
                placed.return_slot - 4,
                placed.return_address,
                tuple(self.stack.word(placed.return_slot + 4 * index) or 0 for index in (1, 2, 3)),
                images.name(placed.registers["eip"]),
                dict(placed.registers),
            )
            for placed in reversed(self.placed)
        )


class Images:
    """The images of a process as far as naming an address goes."""

    def __init__(self, images: list) -> None:
        """Take `ImageBuilder`s."""
        self.images = images

    def name(self, address: int) -> str:
        """Return `module!symbol+0x..` of a return address or instruction."""
        for image in self.images:
            if image.base <= address < image.unwind_start:
                return image.nearest(address)
        return f"{address:#x}"
