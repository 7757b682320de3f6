# SPDX-License-Identifier: Apache-2.0
"""Lays out a chain of x64 calls on a stack, from the start of the thread inwards, and keeps the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.chains_x86 import Images
from tests.forge.functions_x64 import NONVOLATILE, Call, Function
from tests.forge.stacks import Stack, StackConflict
from tests.forge.truth import TruthFrame


@dataclass
class Placed:
    """A function's activation: where its return address is, and its nonvolatile registers at rip."""

    function: Function
    return_slot: int
    return_address: int
    registers: dict[str, int]


class Chain:
    """One chain of calls. `return_slot` is where the outermost function's return address is."""

    def __init__(self, stack: Stack, return_slot: int, return_address: int = 0, **registers: int) -> None:
        """Start before the outermost function."""
        self.stack = stack
        self.return_slot = return_slot
        self.return_address = return_address
        self.registers = {**dict.fromkeys(NONVOLATILE, 0), **registers}
        self.placed: list[Placed] = []

    def enter(self, function: Function, call: Call | None = None, *, ip: int | None = None, **sets: int) -> Chain:
        """Enter `function`, which goes on to `call` (by default its last), or is stopped at `ip` past its prologue.

        `sets` gives registers that the body loads with what it has at run time.
        """
        slot, frame, returns_to = self.return_slot, function.frame, self.return_address
        before = dict(self.registers)
        self.stack.at(slot).d64(returns_to)
        for name, offset in frame.homes.items():
            self.stack.at(slot + offset).d64(before[name])
        for index, name in enumerate(frame.pushes):
            self.stack.at(slot - 8 * (index + 1)).d64(before[name])
        rsp = slot - frame.size
        for name, offset in frame.saves.items():
            self.stack.at(rsp + offset).d64(before[name])
        for number, offset in frame.xmm.items():
            self.stack.at(rsp + offset).d64(number, 0)
        if frame.frame_register is not None:
            name, offset = frame.frame_register
            self.registers[name] = rsp + offset
        rsp -= frame.dynamic
        if ip is None:
            calls = (*function.calls, *(function.cold[1] if function.cold else ()))
            call = calls[-1] if call is None else call
            if rsp % 16:
                message = f"{function.name} calls with rsp {rsp:#x}"
                raise StackConflict(message)
            self.registers.update({**call.sets, **sets})
            if call.stack_args:
                self.stack.at(rsp + 0x20).d64(*call.stack_args)
            self.return_slot, self.return_address = rsp - 8, call.returns_to
            ip = call.returns_to
        self.placed.append(Placed(function, slot, returns_to, {**self.registers, "rsp": rsp, "rip": ip}))
        return self

    def interrupt(self, area: int, dispatcher: Function, returns_to: int) -> Chain:
        """Let the kernel enter `dispatcher` with rsp at `area`, for a fault in the function entered last."""
        rip = self.placed[-1].registers["rip"]
        self.placed.append(Placed(dispatcher, area + 0x590, rip, {**self.registers, "rsp": area, "rip": returns_to}))
        self.return_slot, self.return_address = area - 8, returns_to
        return self

    @property
    def rsp(self) -> int:
        """Return rsp in the function entered last."""
        return self.placed[-1].registers["rsp"]

    def frames(self, images: Images) -> tuple[TruthFrame, ...]:
        """Return the frames, innermost first."""
        return tuple(
            TruthFrame(
                placed.registers["rip"],
                placed.registers["rsp"],
                placed.return_address,
                None,
                images.name(placed.registers["rip"]),
                dict(placed.registers),
            )
            for placed in reversed(self.placed)
        )
