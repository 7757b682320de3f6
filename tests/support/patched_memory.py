# SPDX-License-Identifier: Apache-2.0
"""A dump's kernel memory with changes, for tests of what damaged or hostile structures lead to."""

from __future__ import annotations

from tests.support.volatility_session import Session
from throwstack.core.memory import Memory
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.opening.sources import Sources


class Patches:
    """A page source: changes laid over the memory of an opened machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._source = machine.memory
        self._pages: dict[int, bytearray] = {}

    def page(self, address: int) -> bytes | None:
        """Return a page, changed or not."""
        patched = self._pages.get(address)
        return self._source.page(address) if patched is None else bytes(patched)

    def write(self, address: int, data: bytes) -> None:
        """Change bytes; a page that is not there comes into being."""
        for at, byte in enumerate(data, address):
            page = self._pages.setdefault(at & -0x1000, bytearray(self._source.page(at & -0x1000) or bytes(0x1000)))
            page[at & 0xFFF] = byte

    def pointer(self, address: int, value: int) -> None:
        """Change a pointer."""
        self.write(address, value.to_bytes(self.machine.pointer_size, "little"))

    def put(self, address: int, path: str, value: int) -> None:
        """Change a member that is no bit field."""
        member = self.machine.layout.member(path)
        assert member is not None
        self.write(address + member.offset, value.to_bytes(member.size, "little"))

    def apply(self) -> Machine:
        """Let the machine see the changes."""
        self.machine.memory = Memory(self)
        return self.machine


def opened(session: Session) -> Machine:
    """Return the machine of a session, as the plugins open it."""
    return Machine(session.context, session.kernel_name, "tests", Sources("", ""))
