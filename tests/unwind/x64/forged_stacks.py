# SPDX-License-Identifier: Apache-2.0
"""The stacks of forged x64 machines, with their truth, as the engine sees them: no dump is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.forge.cases import builders
from tests.forge.describe import Process, Thread
from tests.forge.truth import TruthFrame
from throwstack.core.frames import StackBounds, Walk
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import Unwinder

_USER_END = 1 << 47
CASES = ("service-x64", "nested", "decoys-x64", "shutdown-hang")


@dataclass(frozen=True)
class ForgedStack:
    """A thread's user stack: the memory of its process, its registers and bounds, and its frames as they were laid."""

    name: str
    process: Process
    thread: Thread
    frames: tuple[TruthFrame, ...]

    @property
    def bounds(self) -> StackBounds:
        return StackBounds(self.thread.stack_limit, self.thread.stack_base)

    def walk(self, changed: dict[int, bytes] | None = None) -> Walk:
        """Walk the stack; `changed` are bytes that are different from what was forged, by address."""
        patches = changed or {}
        source = SegmentSource({region.base: region.data for region in self.process.regions})

        class Changed:
            def page(self, address: int) -> bytes | None:
                page = source.page(address)
                for at, data in patches.items():
                    if page is not None and at & -0x1000 == address:
                        page = page[: at - address] + data + page[at - address + len(data) :]
                return page

        modules = ModuleMap([Module(one.name, one.path, one.base, one.size) for one in self.process.modules])
        registers = {name: value for name, value in self.thread.registers.items() if name != "eflags"}
        registers |= {name: value for name, value in self.frames[0].registers.items() if name not in registers}
        unwinder = Unwinder(ImageMap(Memory(Changed()), modules))
        return unwinder.walk(Registers.named(Arch.X64, registers), self.bounds)


@cache
def forged_stacks() -> tuple[ForgedStack, ...]:
    """Return the stacks of all threads whose truth the x64 cases give."""
    return tuple(stack for case in CASES for stack in _stacks_of(case))


def _stacks_of(case: str) -> Iterator[ForgedStack]:
    made = builders()[case][0]()
    truths = {(stuck.pid, stuck.tid): stuck.thread_stack for stuck in made.truth.stuck}
    truths |= {tuple(map(int, key.split(":"))): frames for key, frames in made.truth.stacks.items()}
    for process in made.machine.processes:
        for thread in process.threads:
            frames = tuple(frame for frame in truths.get((process.pid, thread.tid), ()) if frame.ip < _USER_END)
            if frames:
                yield ForgedStack(f"{case} {thread.tid:#x}", process, thread, frames)
