# SPDX-License-Identifier: Apache-2.0
"""The registers of a frame at the instruction for which its variables are looked up, and the base of the frame.

That instruction is the one at which the CPU stopped, or the call that the frame has made. For a call:

- A register that a callee may change is not known any more. Even where a rule of the unwinder knows its value after the
  return, that is not its value before the call.
- The stack pointer is the one before the call pushed the return address. On x86 it is lower than the one after the
  return, by the arguments that the callee removes.

The base of a frame is a register that S_FRAMEPROC names. For x86 code it can also be VFRAME. That is the value of $T0
after the FrameData program of the code has run. With `$T0 .raSearch =` it is the address of the return address, with
`$T0 $ebp =` it is ebp. In a function that aligns its stack the program aligns $T0, so nothing but running it will do.
S_BPREL32 counts from there, too, and not from ebp: Visual C++ 8 has the first parameter of a function without a frame
pointer at +4, and that of one with a frame pointer at +8.
"""

from __future__ import annotations

from collections.abc import Mapping

from throwstack.core.frames import Frame
from throwstack.core.memory import Memory
from throwstack.core.registers import BP, SP, Arch
from throwstack.names.frame_records import FrameData
from throwstack.pdb.register_numbers import EBP, VFRAME, general_register, register_name
from throwstack.unwind.x86.frame_data import ProgramError, run_program
from throwstack.variables.variable_value import NotShown

_BASES = {
    Arch.X64: {1: 335, 2: 334, 3: 341},  # rsp, rbp, r13
    Arch.X86: {1: VFRAME, 2: EBP, 3: 20},  # ebx
}
_NO_BASE = "ebp is not the base of the frame here"
_NO_FRAME_DATA = "the symbols have no frame data for this code"


class FrameRegisters:
    """The registers of one frame. Every method raises `NotShown` for a value that the walk does not vouch for."""

    def __init__(  # noqa: PLR0917 - all that the registers depend on
        self,
        arch: Arch,
        memory: Memory,
        frame: Frame,
        inner: Frame | None,
        frame_data: FrameData | None,
        changing: frozenset[int],
        *,
        is_handler: bool = False,
    ) -> None:
        """`inner` is the frame that `frame` has called, or None. `frame_data` is the record of the code in `frame`.

        `changing` are the registers that the instruction where `frame` was interrupted may have changed. `is_handler`
        says that the frame is that of a part of an x64 function which the runtime calls, say a catch block. Only rbp is
        then as in the function: the part loads it first. A PDB does not say that the others are not.
        """
        self._arch = arch
        self._memory = memory
        self._frame = frame
        self._inner = inner
        self._frame_data = frame_data
        self._changing = changing
        self._is_handler = is_handler

    def bytes_of(self, number: int) -> bytes:
        """Return the bytes of the register with CodeView's `number`."""
        part = general_register(self._arch, number)
        if part is None:
            reason = f"in {register_name(self._arch, number)}, which a walk does not follow"
            raise NotShown(reason)
        value = self._general(part.gpr, part.name)
        size = self._arch.pointer_size
        return value.to_bytes(size, "little")[part.shift : part.shift + part.size]

    def address_in(self, number: int) -> int:
        """Return the address in the register `number`, which may be VFRAME."""
        if number == VFRAME:
            return self._virtual_frame()
        part = general_register(self._arch, number)
        if part is None or part.size != self._arch.pointer_size:
            reason = f"at a distance from {register_name(self._arch, number)}"
            raise NotShown(reason)
        return self._general(part.gpr, part.name)

    def frame_base(self, number: int) -> int:
        """Return the address in the register `number`, from which the places in the frame count.

        ebp has it only while the function has a frame. clang builds the frame of an x86 function in the branch
        that needs one; in the others, and after `pop ebp`, ebp is that of the caller, which is above the return
        address. A function that aligns its stack has a copy of the return address above the saved ebp.
        """
        base, slot = self.address_in(number), self._frame.return_slot
        if number == EBP and (slot is None or (base + 4 != slot and not self._is_copy(base + 4, slot))):
            raise NotShown(_NO_BASE)
        return base

    def to_slot(self, address: int) -> int | None:
        """Return how far `address` is above that of the function's return address; None if that is not known."""
        slot = self._frame.return_slot
        return None if slot is None or self._is_handler else address - slot

    def frame_pointer(self, *, has_ebp: bool) -> int:
        """Return the address from which S_BPREL32 counts: the virtual frame if there is frame data for the code.

        Else it is ebp, if `has_ebp` says that ebp is the function's frame pointer, and if it points just below the
        return address as it should. Where FPO_DATA says that the function has no frame pointer, it is the address of
        the return address: link-time code generation of Visual C++ 8 leaves only that for all code of a program.
        """
        data, slot = self._frame_data, self._frame.return_slot
        if data is not None and data.program:
            found = self._virtual_frame()
            if has_ebp and found == slot:  # the first instructions of a function that will have a frame pointer
                reason = "the function was still being entered"
                raise NotShown(reason)
            return found
        if has_ebp:
            value = self._frame.registers.bp
            if value is None or slot is None or value + 4 != slot:
                raise NotShown(_NO_BASE)
            return value
        if data is None or slot is None:
            raise NotShown(_NO_FRAME_DATA)
        return slot

    def base_number(self, base: int) -> int:
        """Return CodeView's number of the register that S_FRAMEPROC names by `base`, 1 to 3."""
        number = _BASES[self._arch].get(base)
        if number is None:
            reason = "the symbols do not say what the base of the frame is"
            raise NotShown(reason)
        return number

    def is_argument(self, address: int) -> bool:
        """Say whether `address` is among the arguments that an x86 function was called with."""
        slot = self._frame.return_slot
        return self._arch is Arch.X86 and slot is not None and address > slot

    def _is_copy(self, address: int, slot: int) -> bool:
        """Say whether the word at `address`, below the return address at `slot`, is the same."""
        if not self._frame.sp < address < slot:
            return False
        words = [self._memory.read_available(at, 4) for at in (address, slot)]
        return words[0] == words[1] and len(words[0]) == 4

    def _general(self, gpr: int, name: str) -> int:
        if self._is_handler and gpr != BP:
            reason = f"in {name}, which is not that of the function in its handler"
            raise NotShown(reason)
        if gpr == SP:
            return self._stack_pointer()
        if not self._frame.is_interrupted and gpr not in self._arch.facts.nonvolatile:
            reason = f"was in {name}, which the called function may have changed"
            raise NotShown(reason)
        if gpr in self._changing:
            reason = f"was in {name}, which the interrupted instruction was changing"
            raise NotShown(reason)
        value = self._frame.registers.gpr[gpr]
        if value is None:
            reason = f"in {name}, which is not known here"
            raise NotShown(reason)
        return value

    def _stack_pointer(self) -> int:
        if self._frame.is_interrupted:
            return self._frame.sp
        if self._inner is None or self._inner.return_slot is None:  # the walk began at this return address
            if self._arch is Arch.X64:
                return self._frame.sp
            reason = "the stack pointer before the call is not known"
            raise NotShown(reason)
        return self._inner.return_slot + self._arch.pointer_size

    def _virtual_frame(self) -> int:
        data, slot = self._frame_data, self._frame.return_slot
        if self._arch is not Arch.X86 or data is None or not data.program:
            raise NotShown(_NO_FRAME_DATA)
        found = run_program(data.program, self._variables(data, slot), self._memory)
        if isinstance(found, ProgramError) or "$T0" not in found:
            reason = f"frame data: {found.value if isinstance(found, ProgramError) else 'no $T0'}"
            raise NotShown(reason)
        if "$esp" in found and slot is not None and found["$esp"] - 4 != slot:  # by an ebp that is the caller's
            reason = "the frame data are not those of the frame here"
            raise NotShown(reason)
        return found["$T0"]

    def _variables(self, data: FrameData, slot: int | None) -> Mapping[str, int]:
        """Return the variables of the program of `data`; `slot` is the stack address of the return address."""
        gpr, nonvolatile = self._frame.registers.gpr, self._arch.facts.nonvolatile
        known = {
            f"${name}": gpr[number] for number, name in enumerate(self._arch.register_names) if number in nonvolatile
        }
        return {
            **{name: value for name, value in known.items() if value is not None},
            **({} if slot is None else {".raSearch": slot, ".raSearchStart": slot}),
            ".cbLocals": data.locals_size,
            ".cbParams": data.parameters_size,
            ".cbSavedRegs": data.saved_registers_size,
            "$eip": self._frame.ip,
        }
