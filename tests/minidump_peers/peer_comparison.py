# SPDX-License-Identifier: Apache-2.0
"""Compares what readers say of a minidump with what we found in the dump that it was made from."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.minidump_peers.peer_readings import PeerReading
from tests.support.minidump_parts import Parts
from throwstack.core.registers import Arch
from throwstack.minidump.minidump_report import MinidumpReport
from throwstack.report.crash_report import CrashReport

READERS = ("lldb", "breakpad", "rust-minidump", "minidump", "udmp-parser")
"""Those that have to open every minidump; symbolic is a walker as well."""
WALKERS = ("lldb", "breakpad", "rust-minidump", "symbolic")
_GPR_AT = {Arch.X86: (0xB0, 0xAC, 0xA8, 0xA4, 0xC4, 0xB4, 0xA0, 0x9C), Arch.X64: tuple(range(0x78, 0xF8, 8))}


@dataclass(frozen=True)
class Opened:
    """A minidump, the crash that it is opened at (None without one), and what the readers say of it."""

    report: MinidumpReport
    crash: CrashReport | None
    readings: tuple[PeerReading, ...]

    @property
    def ips(self) -> tuple[int, ...]:
        """Return the instruction pointers of our throwing stack, innermost first."""
        if self.crash is None or self.crash.throwing is None:
            return ()
        return tuple(frame.ip for frame in self.crash.throwing.frames)

    def differences(self) -> Iterator[str]:
        """Yield what a reader cannot open, or says otherwise than we do."""
        assert self.report.path is not None
        parts = Parts.of(Path(self.report.path))
        arch = Arch(self.report.arch)
        modules = frozenset(_modules(parts))
        registers = _registers(parts, arch) if "exception" in parts.streams else {}
        exception = None if self.crash is None else self.crash.exception
        for reading in self.readings:
            for what in _of_reading(reading, modules, registers):
                yield f"{reading.reader}: {what}"
            if exception is None or "exception" not in parts.streams:
                continue
            assert self.crash is not None
            said = (("thread", reading.tid, self.crash.tid), ("code", reading.code, exception.code))
            for name, theirs, ours in (*said, ("address", reading.address, exception.address)):
                if theirs is not None and theirs != ours:
                    yield f"{reading.reader}: {name} {theirs:#x}, ours {ours:#x}"
            if reading.reader in WALKERS and self.ips and reading.frames[:1] != self.ips[:1]:
                yield f"{reading.reader}: frame 0 is {reading.frames[:1]}, ours {self.ips[0]:#x}"


def _of_reading(reading: PeerReading, modules: frozenset[int], registers: dict[str, int]) -> Iterator[str]:
    if reading.problem:
        yield reading.problem
        return
    if reading.modules != modules:
        yield f"{len(reading.modules - modules)} modules too many, {len(modules - reading.modules)} missing"
    for name, value in registers.items():
        theirs = reading.registers.get(name, value)
        if theirs != value:
            yield f"{name} is {theirs:#x}, ours {value:#x}"


def _modules(parts: Parts) -> Iterator[int]:
    stream = parts.streams["modules"]
    for at in range(4, len(stream), 108):
        yield struct.unpack_from("<Q", stream, at)[0]


def _registers(parts: Parts, arch: Arch) -> dict[str, int]:
    """Return the registers at the throw, from the CONTEXT of the stream Exception."""
    context = parts.part(*struct.unpack_from("<II", parts.streams["exception"], 160))
    size = arch.pointer_size
    places = {
        **dict(zip(arch.register_names, _GPR_AT[arch], strict=True)),
        arch.facts.ip_name: arch.facts.context_ip_at,
    }
    return {name: int.from_bytes(context[at : at + size], "little") for name, at in places.items()}
