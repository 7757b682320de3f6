# SPDX-License-Identifier: Apache-2.0
"""A .NET process in a whole dump, whose JIT code and images are where a plain look at its page tables finds nothing.

From .NET 7 on, the runtime makes JIT code through two views of a section that the page file backs, one writable and one
executable (W^X). Types and methods of the program are in such a section too. The process's own page-table entries lead
to the section's prototype PTEs, and only these to the pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import throwstack
from tests.forge.build import build
from tests.forge.describe import LoadedModule, Machine, Paging, Process, Protection, Region, Residency, Thread
from tests.support.managed_code import CODE, HEADER, compile_method
from tests.support.managed_heap import APP, STACK, STRUCTURES, ForgedRuntime
from throwstack.core.sides import Side
from throwstack.pages.page_origin import PageOrigin
from throwstack.volatility.dump import Dump
from throwstack.volatility.survey import Selection, Survey

PID, TID, TEB = 0x300, 0x304, 0x7FFD0000
PAGE, STACK_SIZE, TIMESTAMP = 0x1000, 0x4000, 0x4D00
RUN_AT, MAIN_AT = 0x10, 0x24
"""Offsets in the methods: where the thread was stopped, and where its call returns to."""
RUN = "shop!Shop.Program.Run(String name, Int32 count)+0x10"
MAIN = "shop!Shop.Program.Main(String name, Int32 count)+0x24"
PROGRAMS_OWN = (CODE, HEADER, STRUCTURES)


class Scene:
    """A thread that was stopped in Run, which Main has called."""

    def __init__(self) -> None:
        self.runtime = runtime = ForgedRuntime()
        runtime.thread(TID)
        methods = runtime.types["Shop.Program"].methods
        self.run = compile_method(runtime, methods["Run"])
        self.main = compile_method(runtime, methods["Main"], 1)
        self.sp = STACK + STACK_SIZE - 0x100
        runtime.place(STACK, bytes(STACK_SIZE))
        # Each method has pushed rbx; Main's caller is none.
        runtime.word(self.sp + 8, self.main + MAIN_AT)
        runtime.place(self.main + MAIN_AT - 2, b"\xff\xd0")

    def _residency(self, base: int, lost: Collection[int]) -> Residency:
        if base in lost:
            return Residency.PAGED_OUT
        return Residency.PROTOTYPE if base >> 24 in {area >> 24 for area in PROGRAMS_OWN} else Residency.VALID

    def machine(self, lost: Collection[int]) -> Machine:
        """Describe the machine; `lost` are the addresses of pages that are not in the dump."""
        process = Process(PID, "shop.exe", image_path="C:\\shop\\shop.exe")
        for image in self.runtime.images:
            module = image.module
            data = self.runtime.memory.read_available(module.base, module.size)
            states = {
                index: Residency.IN_FILE for index in range(len(data) // PAGE) if module.base + index * PAGE in lost
            }
            process.modules.append(
                LoadedModule(module.name, module.path, module.base, module.size, timestamp=TIMESTAMP)
            )
            region = Region(module.base, data, Protection.EXECUTE_WRITE_COPY, module.path[2:], is_image=True)
            region.residency = states
            process.regions.append(region)
        for first, end in self._runs():
            data = self.runtime.memory.read(first, end - first)
            is_code = first >> 24 == CODE >> 24
            region = Region(first, data, Protection.EXECUTE_READ if is_code else Protection.READ_WRITE)
            region.residency = {
                index: self._residency(first + index * PAGE, lost) for index in range(len(data) // PAGE)
            }
            process.regions.append(region)
        registers = {"rip": self.run + RUN_AT, "rsp": self.sp, "rbp": 0, "rbx": 0, "rsi": 0, "rdi": 0}
        process.threads.append(Thread(TID, TEB, STACK + STACK_SIZE, STACK, registers))
        return Machine(Paging.X64, (10, 0, 19041), [process])

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of pages outside the images."""
        bases = {image.base >> 28 for image in self.runtime.images}
        pages = [page for page in self.runtime.pages if page >> 28 not in bases]
        for start in (page for page in pages if page - PAGE not in pages):
            end = start
            while end in pages:
                end += PAGE
            yield start, end


@contextmanager
def opened(out: Path, scene: Scene, lost: Collection[int] = (), image_path: str = "") -> Iterator[Dump]:
    built = build(scene.machine(lost), out)
    with throwstack.open(
        built.dump, symbols=[out / "isf", "symbols"], symbol_path="", image_path=image_path, offline=True
    ) as dump:
        yield dump


def named(dump: Dump) -> list[tuple[str, str]]:
    """Return the names and the notes of the thread's frames in user mode."""
    (thread,) = dump.threads(pids=[PID])
    return [(frame.name, frame.note) for part, frame in thread.frames if part.side is Side.NATIVE]


def test_managed_frames_are_named_by_pages_that_only_prototype_ptes_lead_to(tmp_path: Path) -> None:
    scene = Scene()
    with opened(tmp_path, scene) as dump:
        assert named(dump) == [(RUN, ""), (MAIN, "")]
        (process,) = Survey(dump._machine, Selection(pids={PID})).processes()
        for area in PROGRAMS_OWN:
            assert process.pages.origin(area) is PageOrigin.PROTOTYPE


TYPE = ForgedRuntime().types["Shop.Program"].method_table & -PAGE


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (HEADER, f"no managed method is known here: what may tell of it, at {HEADER:#x}, is not in the dump"),
        (TYPE, "managed method, name not readable: its MethodDesc, or what that leads to, is absent or damaged"),
        (APP, f"managed method, name not readable: the headers of the image at {APP:#x} are not readable at 0x"),
    ],
)
def test_what_is_not_in_the_dump_costs_the_name_and_is_the_reason(tmp_path: Path, lost: int, reason: str) -> None:
    scene = Scene()
    with opened(tmp_path, scene, {lost}) as dump:
        (name, note), *_ = named(dump)
    assert name == f"{scene.run + RUN_AT:#x}"
    assert note.startswith(reason)


def test_metadata_that_are_not_in_the_dump_are_read_from_the_image_path(tmp_path: Path) -> None:
    """The program's DLL has its headers alone in memory, as after a long time without an exception."""
    scene = Scene()
    lost = set(range(APP + PAGE, APP + 0x8000, PAGE))
    files = tmp_path / "images"
    files.mkdir()
    (files / "shop.dll").write_bytes(scene.runtime.files[APP])
    with opened(tmp_path, scene, lost) as dump:
        assert [name for name, _ in named(dump)] == [f"{scene.run + RUN_AT:#x}", f"{scene.main + MAIN_AT:#x}"]
    with opened(tmp_path, scene, lost, str(files)) as dump:
        assert [name for name, _ in named(dump)] == [RUN, MAIN]
