# SPDX-License-Identifier: Apache-2.0
"""The kernel as processes of two sessions see it: the same kernel, and each session's own drivers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.images.image import ImageCache, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.volatility.kernel_stack.kernel_target import KernelTargets

NT = Module("ntoskrnl.exe", "", 0x80800000, 0x200000)
WIN32K = Module("win32k.sys", "", 0xBF800000, 0x3000)
KERNEL_PAGE, LIE = b"k" * PAGE_SIZE, b"x" * PAGE_SIZE


class Pages:
    """A process's pages, and the page tables that map its session's drivers."""

    def __init__(self, tables: tuple[int | None, ...], pages: dict[int, bytes]) -> None:
        self._tables, self._pages = tables, pages

    def tables(self, first: int, last: int) -> tuple[int | None, ...]:
        assert (first, last) == (WIN32K.base, WIN32K.base + WIN32K.size - 1)
        return self._tables

    def page(self, address: int) -> bytes | None:
        return self._pages.get(address)


def targets() -> KernelTargets:
    """Return the targets of a machine whose own page tables have no win32k."""
    memory = memory_of({NT.base: KERNEL_PAGE})
    machine: Any = SimpleNamespace(
        memory=memory,
        images=ImageCache(),
        is_64bit=False,
        kernel=SimpleNamespace(offset=NT.base),
        canonical=lambda address: address,
        sources=SimpleNamespace(symbols=lambda _: None, exports_on_disk=None, frame_data=None),
    )
    stacks: Any = SimpleNamespace(images=ImageMap(memory, ModuleMap([NT, WIN32K])))
    return KernelTargets(machine, stacks)


def session(table: int, first: bytes) -> Any:
    return Pages((table,), {NT.base: LIE, WIN32K.base: first * PAGE_SIZE})


def start(memory: Memory, module: Module) -> bytes:
    return memory.read(module.base, 4)


def test_each_session_has_its_drivers_and_all_have_one_kernel():
    made = targets()
    first, second = made.target(session(0x1000, b"1")), made.target(session(0x2000, b"2"))
    assert (start(first.memory, WIN32K), start(second.memory, WIN32K)) == (b"1111", b"2222")
    assert (start(first.memory, NT), start(second.memory, NT)) == (b"kkkk", b"kkkk")


def test_processes_with_the_same_tables_share_a_target():
    made = targets()
    assert made.target(session(0x1000, b"1")) is made.target(session(0x1000, b"1"))


def test_a_process_whose_tables_are_gone_sees_the_kernel_and_costs_no_other_its_session():
    """One byte of an EPROCESS: its DirectoryTableBase leads nowhere."""
    made = targets()
    broken = made.target(Pages((None,), {}))
    assert start(broken.memory, NT) == b"kkkk"
    assert broken is made.target(None)
    assert start(made.target(session(0x1000, b"1")).memory, WIN32K) == b"1111"


def test_a_dump_full_of_sessions_keeps_few_targets():
    made = targets()
    for table in range(1, 200):
        made.target(session(table << 12, b"s"))
    assert len(made._targets) <= 64
