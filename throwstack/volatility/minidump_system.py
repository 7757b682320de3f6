# SPDX-License-Identifier: Apache-2.0
"""What a minidump says of the machine and of the process: from KUSER_SHARED_DATA, the first KPRCB and the EPROCESS.

Facts that cannot be read are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedSystem, XStateLayout
from throwstack.report.dump_report import MachineReport
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import member, offset, take

_FEATURES = 64
"""How many bytes ProcessorFeatures has, one for each PF_ constant of winnt.h; a minidump has a bit for each."""
_MAX_BUILD_LAB = 128
_MAX_XSTATE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Offsets:
    major: Member | None = member("_KUSER_SHARED_DATA.NtMajorVersion", optional=True)
    minor: Member | None = member("_KUSER_SHARED_DATA.NtMinorVersion", optional=True)
    product: Member | None = member("_KUSER_SHARED_DATA.NtProductType", optional=True)
    suite: Member | None = member("_KUSER_SHARED_DATA.SuiteMask", optional=True)
    features: int | None = offset("_KUSER_SHARED_DATA.ProcessorFeatures", optional=True)
    xstate: int | None = offset("_KUSER_SHARED_DATA.XState", optional=True)
    xstate_size: int | None = offset("_XSTATE_CONFIGURATION.Size", optional=True)
    xstate_features: int | None = offset("_XSTATE_CONFIGURATION.Features", optional=True)
    cpu_type: Member | None = member("_KPRCB.CpuType", optional=True)
    cpu_step: Member | None = member("_KPRCB.CpuStep", optional=True)
    vendor: int | None = offset("_KPRCB.VendorString", optional=True)
    created: int | None = offset("_EPROCESS.CreateTime", optional=True)
    kernel_time: Member | None = member("_EPROCESS.Pcb.KernelTime", optional=True)
    user_time: Member | None = member("_EPROCESS.Pcb.UserTime", optional=True)


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """When a process was started (FILETIME) and how long it ran, in units of 100 ns; 0 if it is not known."""

    created: int
    kernel: int
    user: int


class SystemFacts:
    """Reads facts about one machine and its processes."""

    def __init__(self, machine: Machine, report: MachineReport) -> None:
        """`report` has what is known of the machine already."""
        self._machine = machine
        self._report = report
        self._offsets = take(_Offsets, machine.layout)

    def system(self, arch: Arch) -> DumpedSystem:
        """Return the machine as code of `arch` sees it: 32-bit code on 64-bit Windows sees an x86 machine."""
        offsets, report = self._offsets, self._report
        prcb = self._first_prcb()
        return DumpedSystem(
            arch,
            processors=report.processors or 0,
            level=self._member(prcb, offsets.cpu_type),
            revision=self._member(prcb, offsets.cpu_step),
            product_type=self._shared(offsets.product),
            version=(self._shared(offsets.major), self._shared(offsets.minor), report.build or 0),
            service_pack=report.service_pack,
            suite_mask=self._shared(offsets.suite),
            vendor=self._bytes(prcb, offsets.vendor, 12),
            features=self._features(),
            build_string=self._build_lab(),
        )

    def xstate(self) -> XStateLayout | None:
        """Return the layout of XSAVE areas, None if the machine has none or it cannot be read."""
        offsets, memory = self._offsets, self._machine.memory
        if offsets.xstate is None or offsets.xstate_size is None or offsets.xstate_features is None:
            return None
        at = self._machine.shared_data + offsets.xstate
        try:
            enabled, size = memory.u64(at), memory.u32(at + offsets.xstate_size)
            parts = [memory.u64(at + offsets.xstate_features + 8 * index) for index in range(64)]
        except MemoryUnreadable:
            return None
        if not enabled or not 0 < size <= _MAX_XSTATE:
            return None
        return XStateLayout(enabled, size, tuple((part & 0xFFFFFFFF, part >> 32) for part in parts))

    def times(self, process: int) -> ProcessTimes:
        """Return the times of the EPROCESS at `process`."""
        offsets = self._offsets
        created = int.from_bytes(self._bytes(process, offsets.created, 8), "little")
        ticks = (self._member(process, one) for one in (offsets.kernel_time, offsets.user_time))
        return ProcessTimes(created, *(self.duration(count) for count in ticks))

    def duration(self, ticks: int | None) -> int:
        """Return a number of clock ticks in units of 100 ns."""
        clock = self._machine.clock
        return 0 if clock is None or ticks is None else int(ticks * clock.milliseconds_per_tick * 10_000)

    @property
    def now(self) -> int:
        """Return when the image was taken, as a FILETIME; 0 if it is not known."""
        clock = self._machine.clock
        return 0 if clock is None else clock.system_time

    def _features(self) -> tuple[int, int]:
        data = self._bytes(self._machine.shared_data, self._offsets.features, _FEATURES)
        bits = sum(1 << index for index, value in enumerate(data) if value)
        return bits, 0

    def _build_lab(self) -> str:
        address = self._machine.symbol("NtBuildLab")
        if address is None:
            return ""
        data = self._machine.memory.read_available(address, _MAX_BUILD_LAB).split(b"\0", 1)[0]
        text = data.decode("ascii", "replace")
        return text if text.isprintable() else ""

    def _first_prcb(self) -> int:
        table = self._machine.symbol("KiProcessorBlock")
        try:
            return 0 if table is None else self._machine.pointer(self._machine.memory, table)
        except MemoryUnreadable:
            return 0

    def _shared(self, wanted: Member | None) -> int:
        return self._member(self._machine.shared_data, wanted)

    def _member(self, address: int, wanted: Member | None) -> int:
        try:
            return 0 if wanted is None or not address else wanted.read(self._machine.memory, address)
        except MemoryUnreadable:
            return 0

    def _bytes(self, address: int, at: int | None, size: int) -> bytes:
        if at is None or not address:
            return b""
        data = self._machine.memory.read_available(address + at, size)
        return data if len(data) == size else b""
