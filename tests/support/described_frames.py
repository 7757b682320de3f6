# SPDX-License-Identifier: Apache-2.0
"""Frames of a function that a written PDB describes, with memory and registers that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.pdb_functions import GUID
from tests.support.pdb_model import X64, X86, Procedure
from tests.support.pdb_writer import Pdb
from tests.support.targets import GivenWalk
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.memory import Memory, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable
from throwstack.unwind.target import Target
from throwstack.variables.frame_values import frame_variables
from throwstack.variables.variable_value import VariableValue

BASE = 0x400000
FUNCTION = 0x1100
"""The RVA of the function that the frame is in."""


class Described:
    """A process with one image, whose PDB has one function, at `FUNCTION`."""

    def __init__(
        self,
        folder: Path,
        pdb: bytes,
        memory: Mapping[int, bytes],
        arch: Arch,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`say` is called with what the table of the PDB has to say."""
        path = folder / "app.pdb"
        path.write_bytes(pdb)
        table = PdbTable(PdbFile(path), say)
        self.arch = arch
        self.close = table.pdb.close
        self.memory: Memory = memory_of(memory)
        images = ImageMap(self.memory, ModuleMap([Module("app.exe", "app.exe", BASE, 0x200000)]))
        symbols = Symbols(images, lambda _: table)
        self.target = Target(self.arch, self.memory, images, symbols, GivenWalk(Walk((), End.THREAD_START)))

    def frame(
        self,
        distance: int = 0x20,
        *,
        slot: int | None = None,
        trust: Trust = Trust.CFI,
        is_interrupted: bool = False,
        **registers: int,
    ) -> Frame:
        """Return a frame whose ip is `distance` bytes into the function, with the registers that are named.

        `slot` is the stack address of its return address.
        """
        facts = self.arch.facts
        values = {facts.sp_name: 0x20000, **registers, facts.ip_name: BASE + FUNCTION + distance}
        given = Registers.named(self.arch, values)
        return Frame(given, given.sp, 0, slot, trust, is_interrupted=is_interrupted)

    def variables(
        self, frame: Frame, inner: Frame | None = None, *, is_doubtful: bool = False
    ) -> dict[str, VariableValue]:
        """Return the variables of the function at `frame` by name; those of inlined functions are left out."""
        scopes = frame_variables(self.target, frame, inner, 1, is_doubtful=is_doubtful)
        return {variable.name: variable for variable in scopes[-1]} if scopes else {}


def described(
    folder: Path,
    *items: object,
    memory: Mapping[int, bytes] | None = None,
    machine: int = X86,
    has_code: bool = True,
    say: Callable[[str], None] = lambda _: None,
    **more: object,
) -> Described:
    """Return a process whose function has the variables `items`. `more` are further fields of the procedure or PDB.

    If `memory` has no code of the function, it does nothing, or is absent if `has_code` is False.
    """
    of_pdb = {name: more.pop(name) for name in ("types", "frame_data", "fpo") if name in more}
    fields = {"parameters": (), **more}
    procedure = Procedure("f", FUNCTION, 0x40, items=items, **fields)
    given = memory or {}
    is_given = not has_code or any(BASE + FUNCTION <= at < BASE + FUNCTION + 0x40 for at in given)
    code = {} if is_given else {BASE + FUNCTION: b"\x90" * 0x60}
    pdb = Pdb(GUID, machine=machine, procedures=[procedure], **of_pdb).to_bytes()
    return Described(folder, pdb, {**code, **given}, Arch.X64 if machine == X64 else Arch.X86, say)
