# SPDX-License-Identifier: Apache-2.0
"""Names for addresses outside every loaded module, in the reference case's machine: of files, of what was unloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.support.volatility_session import open_dump
from throwstack.core.frames import StackBounds
from throwstack.pages.vad_views import VadViews
from throwstack.unwind.target import Target
from throwstack.volatility.kernel_stack.kernel_target import KernelTargets
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.outside_images import region_of
from throwstack.volatility.opening.sources import Sources
from throwstack.volatility.processes import Process, ProcessReader

PID = 2564


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Target]]:
    """The FTP service, its loader's list without a DLL that is mapped all the same; and the kernel."""
    out: Path = tmp_path_factory.mktemp("elsewhere")
    case = builders()["ftp-2003"][0]()
    service = next(process for process in case.machine.processes if process.pid == PID)
    service.modules = [module for module in service.modules if module.name != "FTPParsers.dll"]
    forge(case, out)
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        opened = Machine(session.context, session.kernel_name, "test", Sources("", ""))
        reader = ProcessReader(opened)
        process = reader.open(session.processes()[PID])
        assert process is not None
        yield process, KernelTargets(opened, reader.kernel).target(process.pages)


def test_an_address_in_a_mapped_file_is_named_after_the_file(machine):
    process, _ = machine
    assert str(process.program.symbols.name(0x00D66A6A)) == "<Mapped_FTPParsers.dll>+0x6a6a"


def test_an_address_in_an_unloaded_dll_is_named_after_the_dll(machine):
    process, _ = machine
    assert str(process.program.symbols.name(0x02E01234)) == "<Unloaded_ftpdiag.dll>+0x1234"
    assert str(process.program.symbols.name(0x02DFF000)) == "<Unloaded_older.dll>+0x1000"


def test_an_address_in_an_unloaded_driver_is_named_after_the_driver(machine):
    _, kernel = machine
    assert str(kernel.symbols.name(0xF7A10042)) == "<Unloaded_i8042prt.sys>+0x42"


def test_an_address_outside_all_known_memory_stays_bare(machine):
    process, kernel = machine
    assert str(process.program.symbols.name(0x00000042)) == "0x42"
    assert str(kernel.symbols.name(0xF0000042)) == "0xf0000042"


def test_modules_have_the_loaders_time_stamp(machine):
    process, _ = machine
    stamps = {module.timestamp for module in process.program.images.modules}
    assert stamps == {0x45D6CBE2}


def test_memory_outside_every_module_is_named_by_what_it_is(machine):
    process, _ = machine
    views, symbols = process.pages.views, process.program.symbols
    bounds = StackBounds(0x045B6000, 0x045C0000)

    def region(address: int) -> str:
        return region_of(address, symbols, views, bounds)

    stack = views.find(bounds.limit)
    assert region(bounds.limit + 8) == f"the thread's stack, {stack.start:#x} to {stack.end - 1:#x}"
    heap = next(view for view in views if view.is_private and view is not stack)
    assert region(heap.start) == f"private memory, {heap.start:#x} to {heap.end - 1:#x}"
    assert region(0x00D66A6A) == "<Mapped_FTPParsers.dll>+0x6a6a"
    assert region(0x20) == "no memory is allocated there"
    assert region_of(0x20, symbols, VadViews(()), bounds) == ""
