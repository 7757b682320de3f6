# SPDX-License-Identifier: Apache-2.0
"""A C runtime that is linked into a program is found by the program's PDB, if that is in a directory at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forge.stacks import Stack
from tests.support.app_pdb import GUID, Place
from tests.support.pdb_writer import Pdb, Public
from tests.support.triage_stacks import (
    BASE,
    IN_WAIT,
    LIMIT,
    NTDLL,
    OUTERMOST,
    SP,
    WAITING,
    Walks,
    frame,
    stack_of,
    walk,
)
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap, PdbIdentity
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import Target

PURE_CALL, DRAW = 0x1000, 0x1100
PROGRAM = Module("app.exe", r"C:\app\app.exe", 0x00400000, 0x10000)
PUBLICS = [Public("__purecall", PURE_CALL), Public("_draw", DRAW)]


def triage(place: Place, program: Module, function: int) -> Triage:
    """A thread waits in `function` of a program; nothing else on its stack is of interest."""
    stack, at = Stack(LIMIT, BASE), SP + 0x20
    stack.at(at).d32(program.base + function + 0x20)
    images = ImageMap(memory_of({LIMIT: stack.data()}), ModuleMap([program, NTDLL]))
    app = images.find(program.base)
    assert app is not None
    app._pdb, app._pdb_parsed = PdbIdentity("app.pdb", GUID, 3), True
    pdbs = place.symbols()
    called = frame(program.base + function + 0x20, at + 4, at + 0x30)
    walks = Walks({IN_WAIT: walk(WAITING, called, OUTERMOST)})
    return Triage(Target(Arch.X86, images.memory, images, Symbols(images, pdbs, at_hand=pdbs.at_hand), walks))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_thread_that_waits_in_a_linked_in_function_that_reports_a_failure_is_stuck(place: Place):
    place.put(Pdb(GUID, 3, publics=PUBLICS))
    stuck = triage(place, PROGRAM, PURE_CALL).examine(stack_of()).stuck
    assert stuck is not None
    assert stuck.blocked_in == (("app", "_purecall"),)


def test_a_thread_in_the_function_after_it_is_not_even_walked(place: Place):
    place.put(Pdb(GUID, 3, publics=PUBLICS))
    assert not triage(place, PROGRAM, DRAW).look_at(stack_of()).is_suspect


def test_without_the_pdb_nothing_tells(place: Place):
    assert not triage(place, PROGRAM, PURE_CALL).look_at(stack_of()).is_suspect
    assert place.said == []


def test_pdbs_of_windows_own_modules_are_not_looked_for(place: Place):
    place.put(Pdb(GUID, 3, publics=PUBLICS))
    of_windows = Module("app.exe", r"C:\Windows\System32\app.exe", PROGRAM.base, PROGRAM.size)
    assert not triage(place, of_windows, PURE_CALL).look_at(stack_of()).is_suspect
