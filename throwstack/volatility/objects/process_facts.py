# SPDX-License-Identifier: Apache-2.0
"""Reads what a process's EPROCESS, PEB and token say of it: its command line, start, session, user and parent.

A value is None or empty if the kernel's ISF table lacks the member, or if it cannot be read.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from throwstack.core.filetime import time_of
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.text import decode_wide
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import MissingMembers, member, offset, take

Value = TypeVar("Value")
_MAX_TEXT = 1 << 16
"""The most bytes that a UNICODE_STRING can have."""
_MAX_AUTHORITIES = 15
"""SID_MAX_SUB_AUTHORITIES (winnt.h)."""
_MAX_HANDLES = 1 << 24
_MAX_SESSION = 1 << 16


@dataclass(frozen=True, slots=True)
class _Parameters:
    parameters: int = offset("_PEB.ProcessParameters")
    command_line: int = offset("_RTL_USER_PROCESS_PARAMETERS.CommandLine")
    image_path: int = offset("_RTL_USER_PROCESS_PARAMETERS.ImagePathName")
    buffer: int = offset("_UNICODE_STRING.Buffer")


@dataclass(frozen=True, slots=True)
class _Members:
    created: int | None = offset("_EPROCESS.CreateTime", optional=True)
    parent: int | None = offset("_EPROCESS.InheritedFromUniqueProcessId", optional=True)
    directory_base: int | None = offset("_EPROCESS.Pcb.DirectoryTableBase", optional=True)
    token: int | None = offset("_EPROCESS.Token", optional=True)
    handles: int | None = offset("_EPROCESS.ObjectTable", optional=True)
    session: Member | None = member("_PEB.SessionId", optional=True)
    count: Member | None = member("_HANDLE_TABLE.HandleCount", optional=True)
    user: int | None = offset("_TOKEN.UserAndGroups", optional=True)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Facts about a process. `created` is a UTC time, and `user` is the SID of its token, `S-1-5-18`."""

    image_path: str = ""
    command_line: str = ""
    created: datetime.datetime | None = None
    session: int | None = None
    user: str = ""
    parent: int | None = None
    directory_base: int | None = None
    token: int | None = None
    handles: int | None = None


class ProcessFactsReader:
    """Reads the facts of a machine's processes."""

    def __init__(self, machine: Machine) -> None:
        """Look up the members to read in the symbols of `machine`."""
        self._machine = machine
        self._members = take(_Members, machine.layout)
        try:
            self._parameters: _Parameters | None = take(_Parameters, machine.layout)
        except MissingMembers:
            self._parameters = None

    def read(self, process: int, peb: int, memory: Memory) -> ProcessFacts:
        """Return the facts of the EPROCESS at `process`; `peb` is its PEB's address in `memory`, its own."""
        return ProcessFacts(
            image_path=self._text(peb, memory, "image_path"),
            command_line=self.command_line(peb, memory),
            created=self.created(process),
            session=_known(lambda: _limited(self._members.session, memory, peb, _MAX_SESSION)),
            user=self.user(process),
            parent=_known(lambda: self._kernel_pointer(process, self._members.parent)),
            directory_base=_known(lambda: self._kernel_pointer(process, self._members.directory_base)),
            token=_known(lambda: self._token(process)),
            handles=_known(lambda: self._handles(process)),
        )

    def created(self, process: int) -> datetime.datetime | None:
        """Return when the process of the EPROCESS at `process` was started, in UTC; None if it cannot be read."""
        return _known(lambda: _created(self._machine.memory, process, self._members.created))

    def user(self, process: int) -> str:
        """Return the SID of the user of the EPROCESS at `process`; "" if it cannot be read."""
        return _known(lambda: self._user(process)) or ""

    def command_line(self, peb: int, memory: Memory) -> str:
        """Return the command line in the process parameters of the PEB at `peb`; "" if it cannot be read."""
        return self._text(peb, memory, "command_line")

    def _text(self, peb: int, memory: Memory, which: str) -> str:
        offsets, machine = self._parameters, self._machine
        if offsets is None:
            return ""

        def read() -> str:
            text = machine.pointer(memory, peb + offsets.parameters) + getattr(offsets, which)
            buffer = machine.pointer(memory, text + offsets.buffer)
            return decode_wide(memory.read(buffer, min(memory.u16(text), _MAX_TEXT)))

        return _known(read) or ""

    def _kernel_pointer(self, process: int, at: int | None) -> int | None:
        return None if at is None else self._machine.pointer(self._machine.memory, process + at)

    def _handles(self, process: int) -> int | None:
        table = self._kernel_pointer(process, self._members.handles)
        return _limited(self._members.count, self._machine.memory, table, _MAX_HANDLES) if table else None

    def _token(self, process: int) -> int | None:
        """Return the address of the token. EPROCESS.Token is an EX_FAST_REF, whose low bits count references."""
        reference = self._kernel_pointer(process, self._members.token)
        return reference & -(2 * self._machine.pointer_size) if reference else None

    def _user(self, process: int) -> str:
        """Return the SID of the first SID_AND_ATTRIBUTES of the process's token, which is its user's."""
        machine, memory, token = self._machine, self._machine.memory, self._token(process)
        if token is None or self._members.user is None:
            return ""
        sid = machine.pointer(memory, machine.pointer(memory, token + self._members.user))
        revision, count = memory.u8(sid), memory.u8(sid + 1)
        if revision != 1 or not 0 < count <= _MAX_AUTHORITIES:
            return ""
        authority = int.from_bytes(memory.read(sid + 2, 6), "big")
        parts = (memory.u32(sid + 8 + 4 * index) for index in range(count))
        return "-".join(("S-1", str(authority), *map(str, parts)))


def _created(memory: Memory, process: int, at: int | None) -> datetime.datetime | None:
    value = 0 if at is None else memory.u64(process + at)
    return time_of(value) if value else None


def _limited(which: Member | None, memory: Memory, address: int, limit: int) -> int | None:
    value = None if which is None else which.read(memory, address)
    return value if value is not None and value < limit else None


def _known(read: Callable[[], Value]) -> Value | None:
    """Return what `read` returns, or None if it reads memory that the dump does not hold."""
    try:
        return read()
    except MemoryUnreadable:
        return None
