# SPDX-License-Identifier: Apache-2.0
"""What a minidump is made from: values that whoever knows the process has gathered.

Texts are escaped already. A value that is not known is None, 0 or empty, as each field says; times are FILETIMEs (units
of 100 ns since 1601), durations are in units of 100 ns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import StackBounds
from throwstack.core.registers import Arch, Registers


class Span(NamedTuple):
    """A range of addresses, `start` <= address < `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DumpedSystem:
    """The machine. `features` are the two words ProcessorFeatures of x64; on x86 `vendor`, `signature`, `feature_bits`.

    `signature` is EAX of CPUID function 1.
    """

    arch: Arch
    processors: int = 0
    level: int = 0
    revision: int = 0
    product_type: int = 0
    version: tuple[int, int, int] = (0, 0, 0)
    service_pack: str = ""
    suite_mask: int = 0
    vendor: bytes = b""
    signature: int = 0
    feature_bits: int = 0
    features: tuple[int, int] = (0, 0)
    build_string: str = ""


@dataclass(frozen=True, slots=True)
class XStateLayout:
    """Where the parts of an XSAVE area are: `enabled` features, the area's size, (offset, size) of each feature."""

    enabled: int
    size: int
    features: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class MadeContext:
    """The bytes of a CONTEXT. `unknown` names the registers whose bytes are zero because their values are not known.

    `extended` is where the process's memory has the extended state (AVX) that belongs to it, None if it has none.
    """

    data: bytes
    unknown: tuple[str, ...] = ()
    extended: Span | None = None


@dataclass(frozen=True, slots=True)
class DumpedThread:
    """A thread. `stack` are the bounds of its stack, None if they are not known; `registers` those of its context."""

    tid: int
    teb: int = 0
    context: MadeContext | None = None
    registers: Registers | None = None
    stack: StackBounds | None = None
    suspend_count: int = 0
    priority: int = 0
    priority_class: int = 0
    name: str = ""
    exit_status: int = 0
    created: int = 0
    exited: int = 0
    kernel_time: int = 0
    user_time: int = 0
    start: int = 0
    affinity: int = 0
    problem: str = ""
    """Why the thread has no registers, or not all of them; "" if it has."""


@dataclass(frozen=True, slots=True)
class DumpedModule:
    """A module. `version` is a VS_FIXEDFILEINFO of 52 bytes, `codeview` an RSDS record; empty if not known."""

    path: str
    base: int
    size: int
    checksum: int = 0
    timestamp: int = 0
    version: bytes = b""
    codeview: bytes = b""


@dataclass(frozen=True, slots=True)
class DumpedUnloaded:
    """A module that was unloaded."""

    name: str
    base: int
    size: int
    checksum: int = 0
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class DumpedRegion:
    """A region of memory. `protection` is a PAGE_ constant; `state` (commit, reserve) and `kind` are MEM_ constants.

    `base` is the begin of the allocation that it is a part of, and `allocated_as` the protection of that.
    """

    span: Span
    base: int
    allocated_as: int
    state: int
    protection: int
    kind: int


@dataclass(frozen=True, slots=True)
class DumpedHandle:
    """A handle of the process."""

    value: int
    type: str
    name: str = ""
    attributes: int = 0
    access: int = 0
    handles: int = 0
    pointers: int = 0


@dataclass(frozen=True, slots=True)
class DumpedException:
    """The exception that the dump is opened at: its thread, its record, and the CONTEXT that goes with it."""

    tid: int
    record: ExceptionRecord
    context: MadeContext | None


@dataclass(frozen=True, slots=True)
class DumpedProcess:
    """A process as code of `system.arch` sees it, without its memory. `time` is when the image was taken (FILETIME).

    `page` returns the page at a page-aligned address, or None. `comment` says what the reader has to know.
    """

    pid: int
    system: DumpedSystem
    page: Callable[[int], bytes | None]
    time: int = 0
    created: int = 0
    kernel_time: int = 0
    user_time: int = 0
    xstate: XStateLayout | None = None
    threads: tuple[DumpedThread, ...] = ()
    modules: tuple[DumpedModule, ...] = ()
    unloaded: tuple[DumpedUnloaded, ...] = ()
    regions: tuple[DumpedRegion, ...] = ()
    handles: tuple[DumpedHandle, ...] = ()
    exception: DumpedException | None = None
    comment: str = ""
