# SPDX-License-Identifier: Apache-2.0
"""Notes where the forge puts things while it writes a dump: structures, page tables, sections, the compressed store.

The forge knows the place of everything it writes; here that is kept, so that mutations hit what they are meant to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from tests.forge.compressed_store import StoreWriter
from tests.forge.kernel_memory import KernelMemory
from tests.forge.kernel_processes import ProcessWriter
from tests.forge.paging import AddressSpace
from tests.forge.physical import PhysicalMemory
from tests.forge.sections import Section
from tests.forge.structures import Structure
from tests.forge.user_space import UserSpace

_OF_SECTIONS = frozenset({"_CONTROL_AREA", "_SEGMENT", "_SUBSECTION", "_FILE_OBJECT", "_SECTION_OBJECT_POINTERS"})


@dataclass
class WrittenProcess:
    """A process as it was written: its EPROCESS, its page tables, and the structures in its own half."""

    pid: int
    name: str
    block: Structure
    space: AddressSpace
    kernel: list[Structure] = field(default_factory=list)
    """Structures that are this process's alone: ETHREADs, trap frames, VADs."""
    user: list[Structure] = field(default_factory=list)


@dataclass
class Recording:
    """What one forging wrote, and where."""

    physical: PhysicalMemory | None = None
    kernel: KernelMemory | None = None
    processes: list[WrittenProcess] = field(default_factory=list)
    shared: list[Structure] = field(default_factory=list)
    """Structures of the kernel that belong to no process alone."""
    tags: list[int] = field(default_factory=list)
    """Addresses after pool headers."""
    sections: list[Section] = field(default_factory=list)
    store: list[tuple[int, int]] = field(default_factory=list)
    """Address and size of what the compressed store has in the kernel."""


def _after(owner: type, name: str, then: Callable[..., None]) -> Any:
    """Return a patch after which `then(result, *arguments)` is called whenever the method was."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        then(result, *arguments)
        return result

    return mock.patch.object(owner, name, wrapped)


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Record what is forged inside the `with` block."""
    record = Recording()
    writing: list[WrittenProcess] = []
    storing: list[bool] = []
    write, write_store = ProcessWriter.write, StoreWriter.write

    def write_process(self: ProcessWriter, process: Any, space: AddressSpace) -> Structure:
        made = WrittenProcess(process.pid, process.name, Structure.__new__(Structure), space)
        writing.append(made)
        block = write(self, process, space)
        writing.pop()
        made.block = block
        record.processes.append(made)
        return block

    def write_pages(self: StoreWriter, *arguments: Any) -> None:
        storing.append(True)
        write_store(self, *arguments)
        storing.clear()

    def structure(_: None, self: Structure, memory: object, *__: object) -> None:
        if not writing or self.name in _OF_SECTIONS:
            record.shared.append(self)
        elif isinstance(memory, UserSpace):
            writing[-1].user.append(self)
        else:
            writing[-1].kernel.append(self)

    def allocated(address: int, _: KernelMemory, size: int, *__: object, **___: object) -> None:
        if storing and not writing:
            record.store.append((address, size))

    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.object(ProcessWriter, "write", write_process),
            mock.patch.object(StoreWriter, "write", write_pages),
            _after(Structure, "__init__", structure),
            _after(PhysicalMemory, "__init__", lambda _, self: setattr(record, "physical", self)),
            _after(KernelMemory, "__init__", lambda _, self, *__: setattr(record, "kernel", self)),
            _after(KernelMemory, "allocate_struct", lambda address, *_, **__: record.tags.append(address)),
            _after(Section, "__init__", lambda _, self, *__: record.sections.append(self)),
            _after(KernelMemory, "allocate", allocated),
        ):
            stack.enter_context(patch)
        yield record
