# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of code for which there is no unwind data, or for which it cannot be read.

Such code was generated at run time, is hand-written, or is in an image whose headers are not in the dump. Or there is
no code at all, because the thread has jumped or returned through a bad pointer. What can be tried, best first:

- The code can be read: a system call's stub is recognized, other code is followed to its return.
- rbp is a frame pointer: the word above the saved rbp is a return address after a call.
- The next word on the stack that can be a return address is taken for the return address.

Every frame that is found so says how. The latter two may leave out frames. For example, a detour of a hook library has
no frame pointer, and rbp is that of a function further out:

    app!Main (rbp) -> app!Middle -> detour -> hook!Wait        ; a step by rbp goes from the detour to Main's caller

So a walk with such a step is not complete, unless the code shows that it keeps rbp as a frame pointer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Registers
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.thread_start import led_nowhere
from throwstack.unwind.walk import Step
from throwstack.unwind.x64.apply_plan import apply_plan
from throwstack.unwind.x64.bad_jump import has_just_arrived
from throwstack.unwind.x64.follow_to_return import Ahead, Way, ahead_of
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.guessed_caller import by_frame_pointer, by_scan
from throwstack.unwind.x64.kept_frame_pointer import keeps_frame_pointer
from throwstack.unwind.x64.unwind_plan import LEAF

_STUB = re.compile(
    rb"\x4c\x8b\xd1\xb8.{4}(?:\xf6\x04\x25\x08\x03\xfe\x7f\x01\x75\x03)?\x0f\x05\xc3(?:\xcd\x2e\xc3)?", re.DOTALL
)
"""A system call's stub: `mov r10,rcx; mov eax,number; syscall; ret`. Since Windows 10 it is followed by `int 2Eh; ret`,
and `test byte [7FFE0308h],1; jne` before `syscall` chooses between the two."""
_LONGEST_STUB = 24
_MAX_KNOWN = 1 << 12
_LOWEST = 0x10000
"""No memory is allocated in the first 64 KiB of a process."""


@dataclass(frozen=True, slots=True)
class WithoutUnwindData:
    """Finds callers without unwind data in one address space."""

    images: ImageMap
    outside: CodeOutside
    functions: Functions
    _ahead: dict[tuple[int, bool], Ahead] = field(default_factory=dict)
    _kept: dict[int, bool] = field(default_factory=dict)

    def caller(self, registers: Registers, bounds: StackBounds, *, is_interrupted: bool, why: str) -> Step | Stop:
        """Return the caller of the frame with `registers`, or the reason why none is found.

        `bounds` are those of the frame's stack. The code was interrupted, or it has made a call. `why` says why there
        is no unwind data for it, for the notes of frames.
        """
        ip = registers.ip
        is_outside = self.images.find(ip if is_interrupted else ip - 1) is None
        if is_interrupted and (is_outside or not self.images.is_code(ip)):
            if self._is_stub(ip):
                step = self._checked(apply_plan(LEAF, registers, bounds, self.images.memory))
                if step is not None:
                    return replace(step, trust=Trust.PROLOGUE, note="system call's stub outside the images")
            if not self._can_run(ip) or has_just_arrived(self.images, registers):
                return self._after_bad_jump(registers, bounds)
        known = self.outside.function(ip if is_interrupted else ip - 1) if is_outside else None
        why = why if known is None else known.source
        step = self._by_code_or_frame_pointer(
            registers, bounds, why, is_interrupted=is_interrupted, is_kept=known is not None and known.has_frame_pointer
        )
        if step is not None:
            return step
        found = self.scan(registers.sp, bounds, accepts_unknown=is_outside)
        if found is None:
            return Stop(End.NO_RETURN_ADDRESS, f"no unwind data covers {ip:#x}")
        return replace(found, note=why, gap=_gap(ip))

    def _can_run(self, ip: int) -> bool:
        """Say whether code can run at `ip`: its region allows it, or the region is not known and it can be read."""
        region = self.outside.region(ip)
        return self.images.memory.is_readable(ip) if region is None else region.is_executable

    def is_return_address(self, address: int, *, accepts_unknown: bool = True) -> bool:
        """Say whether `address` can be a return address: of a call in an image, or in code outside the images.

        Memory of which only is known that it can be read counts as code if `accepts_unknown` is True.
        """
        image = self.images.find(address - 1)
        if image is not None:
            return image.is_code(address - 1) and bool(is_after_call(self.images.memory, address))
        if address < _LOWEST or not is_after_call(self.images.memory, address):
            return False
        is_code = self.outside.is_code(address - 1)
        return is_code or (is_code is None and accepts_unknown)

    def may_be_return_address(self, address: int) -> bool:
        """Say whether `address` can be a return address, also if the code before it cannot be read.

        This is asked of a word in the very place of a return address, where less doubt is needed than for any word.
        """
        is_code = self.images.is_code(address - 1) or self.outside.is_code(address - 1) is not False
        return is_code and is_after_call(self.images.memory, address) is not False

    def scan(self, start: int, bounds: StackBounds, *, accepts_unknown: bool = False) -> Step | None:
        """Return the caller whose return address is the next possible one on the stack from `start` on, or None."""

        def is_return_address(address: int) -> bool:
            return self.is_return_address(address, accepts_unknown=accepts_unknown)

        guess = by_scan(start, bounds, self.images.memory, is_return_address)
        return None if guess is None else Step(guess.registers, guess.slot, Trust.SCAN)

    def returned_to(self, registers: Registers, bounds: StackBounds, *, is_interrupted: bool) -> Step | Stop | None:
        """Return where the code at `registers.ip` will return to if it is followed; None if it leads to no return.

        The code was interrupted there, or it has made a call. A return address that is found after a call or a jump can
        be one. Another is not checked, if none is found that can be one.
        """
        unchecked: Step | Stop | None = None
        for way, plan in self._code_ahead(registers.ip, is_interrupted=is_interrupted).ways:
            step = apply_plan(plan, registers, bounds, self.images.memory)
            can_be_one = self.is_return_address if way is Way.JUMP else self.may_be_return_address
            if isinstance(step, Step) and can_be_one(step.registers.ip):
                return step
            if way is Way.RETURN:
                unchecked = unchecked or step
        return unchecked

    def _code_ahead(self, ip: int, *, is_interrupted: bool) -> Ahead:
        key = ip, is_interrupted
        known = self._ahead.get(key)
        if known is None:
            if len(self._ahead) >= _MAX_KNOWN:
                self._ahead.clear()
            known = self._ahead[key] = ahead_of(self.functions, ip, is_interrupted=is_interrupted)
        return known

    def _keeps_frame_pointer(self, ip: int, *, is_interrupted: bool) -> bool:
        """Say whether the code at `ip` is seen to keep rbp as a frame pointer, by what is ahead or before."""
        if self._code_ahead(ip, is_interrupted=is_interrupted).uses_frame_pointer:
            return True
        known = self._kept.get(ip)
        if known is None:
            if len(self._kept) >= _MAX_KNOWN:
                self._kept.clear()
            known = self._kept[ip] = keeps_frame_pointer(self.functions, ip)
        return known

    def _by_code_or_frame_pointer(
        self, registers: Registers, bounds: StackBounds, why: str, *, is_interrupted: bool, is_kept: bool
    ) -> Step | None:
        """Return the caller by rbp first if it `is_kept` as a frame pointer, else by the code first."""
        step = self._by_frame_pointer(registers, bounds, why) if is_kept else None
        step = step or self._by_code(registers, bounds, why, is_interrupted=is_interrupted)
        if step is not None or is_kept:
            return step
        step = self._by_frame_pointer(registers, bounds, why)
        if step is None or self._keeps_frame_pointer(registers.ip, is_interrupted=is_interrupted):
            return step
        return replace(step, gap=_gap(registers.ip))

    def _by_code(self, registers: Registers, bounds: StackBounds, why: str, *, is_interrupted: bool) -> Step | None:
        step = self._checked(self.returned_to(registers, bounds, is_interrupted=is_interrupted))
        return None if step is None else replace(step, trust=Trust.PROLOGUE, note=why)

    def _by_frame_pointer(self, registers: Registers, bounds: StackBounds, why: str) -> Step | None:
        guess = by_frame_pointer(registers, bounds, self.images.memory, self.is_return_address)
        return None if guess is None else Step(guess.registers, guess.slot, Trust.FRAME_POINTER, note=why)

    def _checked(self, step: Step | Stop | None) -> Step | None:
        return step if isinstance(step, Step) and self.may_be_return_address(step.registers.ip) else None

    def _is_stub(self, ip: int) -> bool:
        """Say whether `ip` is in a system call's stub. Hook libraries copy stubs into private memory."""
        memory = self.images.memory
        start = ip - _LONGEST_STUB
        if not memory.is_readable(start):
            start = ip & -PAGE_SIZE
        code = memory.read_available(start, ip + _LONGEST_STUB - start)
        return any(found.start() <= ip - start < found.end() for found in _STUB.finditer(code))

    def _after_bad_jump(self, registers: Registers, bounds: StackBounds) -> Step | Stop:
        """Find the caller after a jump to an address that is not code.

        If a call led there, it has only pushed its return address, and no instruction has run since. So the return
        address is on top of the stack, and every nonvolatile register has the caller's value. If a `ret` led there,
        because the return address was overwritten or its DLL was unloaded, nothing on the stack says who the caller
        was.
        """
        memory, ip = self.images.memory, registers.ip
        step = apply_plan(LEAF, registers, bounds, memory)
        if isinstance(step, Stop):
            return step
        if self.is_return_address(step.registers.ip):
            note = "call through a bad pointer: return address from the top of the stack"
            return replace(step, trust=Trust.SCAN, note=note)
        found = self.scan(registers.sp, bounds)
        if found is None:
            return Stop(End.NO_RETURN_ADDRESS, f"{ip:#x} is not code, and {step.registers.ip:#x} is not after a call")
        return replace(found, note="jump or return through a bad pointer", gap=led_nowhere(ip))


def _gap(ip: int) -> str:
    """Say that frames may have been left out after the frame at `ip`, of which nothing says how it is unwound."""
    return f"frames may be missing: no unwind data covers {ip:#x}, and its code does not say where it returns"
