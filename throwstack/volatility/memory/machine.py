# SPDX-License-Identifier: Apache-2.0
"""The machine in a dump: its memory, the offsets of its kernel's structures, its clock, and its processes."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from volatility3.framework import exceptions, interfaces
from volatility3.framework.layers import intel
from volatility3.plugins.windows import pslist

from throwstack.core.filetime import time_of
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.images.image import ImageCache
from throwstack.pages.page_tables import PagingMode
from throwstack.pages.resolver import ResolvedPages
from throwstack.volatility.memory import required
from throwstack.volatility.memory.layout import Layout, wow64_layout
from throwstack.volatility.memory.offsets import offset, take
from throwstack.volatility.memory.page_files import swap_layers
from throwstack.volatility.memory.page_setup import PageSetup
from throwstack.volatility.memory.read_faults import read_problems, watch_reads
from throwstack.volatility.opening.sources import Sources

log = logging.getLogger(__name__)

_PHYSICAL_PAGES = 16384
_KUSER_SHARED_DATA = {True: 0xFFFFF78000000000, False: 0xFFDF0000}
_TICK_WRAP = 1 << 32
_MAX_LIST = 1 << 16


class PhysicalPages:
    """Reads the physical pages of the dump through Volatility's layer for the file (or its stack of layers)."""

    def __init__(self, layer: interfaces.layers.DataLayerInterface) -> None:
        """Keep `layer`, the addresses of which are physical addresses."""
        self._layer = layer

    def page(self, address: int) -> bytes | None:
        """Return the physical page at `address`, or None if the dump does not hold it."""
        try:
            data: bytes = self._layer.read(address, PAGE_SIZE)
        except exceptions.InvalidAddressException:
            return None
        return data if len(data) == PAGE_SIZE else None


@dataclass(frozen=True, slots=True)
class _ClockOffsets:
    multiplier: int = offset("_KUSER_SHARED_DATA.TickCountMultiplier")
    ticks: int | None = offset("_KUSER_SHARED_DATA.TickCount", optional=True)
    older_ticks: int = offset("_KUSER_SHARED_DATA.TickCountLow", "_KUSER_SHARED_DATA.TickCountLowDeprecated")
    system_time: int = offset("_KUSER_SHARED_DATA.SystemTime")
    interrupt_time: int | None = offset("_KUSER_SHARED_DATA.InterruptTime", optional=True)


class Machine:
    """The machine whose memory is in a dump: its address spaces, its kernel's layout and symbols, its clock."""

    def __init__(
        self, context: interfaces.context.ContextInterface, kernel_name: str, config_path: str, sources: Sources
    ) -> None:
        """Open the machine in `context`.

        `kernel_name` is the name of the kernel's module in `context`. `config_path` is where Volatility keeps the
        configuration of tables that are added. `sources` are the symbol and image files at hand. Raises TypeError if
        the dump is not of an x86 or x64 system, and LookupError if the kernel's symbols lack a required member.
        """
        watch_reads(context)
        self.context = context
        self.kernel_name = kernel_name
        self._config_path = config_path
        self.kernel = context.modules[kernel_name]
        layer = context.layers[self.kernel.layer_name]
        if not isinstance(layer, intel.Intel):
            message = "this memory image is not of an x86 or x64 Windows system"
            raise TypeError(message)
        self.is_64bit = isinstance(layer, intel.Intel32e)
        self.arch = Arch.of(is_64bit=self.is_64bit)
        self.mode = _paging_mode(layer)
        self.physical = Memory(PhysicalPages(context.layers[layer.config["memory_layer"]]), capacity=_PHYSICAL_PAGES)
        self.layout = Layout(context, self.kernel.symbol_table_name)
        required.check(self.layout, has_list_head=self.kernel.has_symbol(required.LIST_HEAD))
        self.lost_routes = required.lost_routes(self.layout, is_64bit=self.is_64bit)
        for loss in self.lost_routes:
            log.warning("%s", loss)
        self._pages = PageSetup(
            self.physical,
            self.mode,
            self.layout,
            symbol=self.symbol,
            swap=swap_layers(context, layer),
            directory_base=layer.config["page_map_offset"],
        )
        self.memory = self._pages.kernel_memory
        self.images = ImageCache()
        self.sources = sources

    @property
    def pointer_size(self) -> int:
        """Return the size of a kernel pointer in bytes."""
        return self.arch.pointer_size

    @cached_property
    def wow64(self) -> Layout:
        """Return the layout of 32-bit structures in a 64-bit system."""
        return wow64_layout(self.context, self._config_path)

    @property
    def store_problems(self) -> tuple[str, ...]:
        """Return the reasons why pages of the compressed store could not be read so far; empty if all could."""
        return self._pages.stored.reasons

    @property
    def page_losses(self) -> tuple[str, ...]:
        """Return a sentence for each reason why pages of processes could not be read so far."""
        stored = (f"pages in the compressed store are missing: {reason}" for reason in self.store_problems)
        return (*self.lost_routes, *self._pages.losses.reasons, *stored)

    @property
    def read_problems(self) -> tuple[str, ...]:
        """Return a sentence for each image or page file that had failed reads so far."""
        return read_problems(self.context)

    def process_pages(self, directory_base: int, process: int) -> ResolvedPages:
        """Return the pages of the EPROCESS at `process`, whose page tables are at the physical `directory_base`."""
        return self._pages.process(directory_base, process)

    def symbol(self, name: str) -> int | None:
        """Return the address of a variable or function of the kernel, or None if its symbols have no such name."""
        if not self.kernel.has_symbol(name):
            return None
        return self.canonical(int(self.kernel.get_absolute_symbol_address(name)))

    def pointer(self, memory: Memory, address: int) -> int:
        """Return the kernel-sized pointer at `address`."""
        return memory.pointer(address, self.arch.pointer_size)

    def canonical(self, address: int) -> int:
        """Return `address` in canonical form, its upper 16 bits equal to bit 47.

        Volatility clears the upper bits of some addresses.
        """
        return address | 0xFFFF000000000000 if self.is_64bit and address >> 47 & 1 else address

    def processes(self) -> Iterator[interfaces.objects.ObjectInterface]:
        """Yield every EPROCESS on the kernel's list of active processes."""
        yield from pslist.PsList.list_processes(self.context, self.kernel_name, lambda _: False)

    @property
    def has_all_processes(self) -> bool:
        """Say whether the list of processes is whole: whether following its links leads back to its head."""
        head = self.symbol(required.LIST_HEAD)
        return head is not None and self.is_whole_list(head)

    def is_whole_list(self, head: int) -> bool:
        """Say whether following the forward links from the kernel's LIST_ENTRY at `head` leads back to `head`."""
        entry = head
        try:
            for _ in range(_MAX_LIST):
                entry = self.pointer(self.memory, entry)
                if entry == head:
                    return True
        except MemoryUnreadable:
            pass
        return False

    @property
    def shared_data(self) -> int:
        """Return the address of KUSER_SHARED_DATA in the kernel's address space."""
        return _KUSER_SHARED_DATA[self.is_64bit]

    @cached_property
    def clock(self) -> Clock | None:
        """Return the machine's clock, or None if the page that holds it cannot be read."""
        base, memory = self.shared_data, self.memory
        try:
            offsets = take(_ClockOffsets, self.layout)
            multiplier = memory.u32(base + offsets.multiplier)
            # Up to XP TickCountLow counts. Since Server 2003 TickCount does, and the older member is deprecated.
            count = 0 if offsets.ticks is None else memory.u32(base + offsets.ticks)
            count = count or memory.u32(base + offsets.older_ticks)
            system_time = memory.u64(base + offsets.system_time)
            interrupt_time = 0 if offsets.interrupt_time is None else memory.u64(base + offsets.interrupt_time)
        except (MemoryUnreadable, LookupError) as error:
            log.info("no clock: %s", error)
            return None
        return Clock(count, multiplier, system_time, interrupt_time)


class Clock:
    """The tick count and the system time at the moment of the dump."""

    def __init__(self, ticks: int, multiplier: int, system_time: int, interrupt_time: int = 0) -> None:
        """Keep values of KUSER_SHARED_DATA.

        `ticks` is TickCount, and `multiplier` is TickCountMultiplier (milliseconds per tick, times 2^24). `system_time`
        is SystemTime, in units of 100 ns since 1601. `interrupt_time` is InterruptTime, in units of 100 ns since boot,
        or 0 if it is not known.
        """
        self.ticks = ticks
        self.milliseconds_per_tick = multiplier / (1 << 24)
        self.system_time = system_time
        self.interrupt_time = interrupt_time

    @property
    def now(self) -> datetime.datetime | None:
        """Return the UTC time of the dump, or None if it can be no time."""
        return time_of(self.system_time) if self.system_time else None

    def ticks_since(self, tick: int) -> int | None:
        """Return how many ticks before the dump the 32-bit tick count `tick` was, or None if it was after the dump.

        The count wraps after 497 days (with ticks of 10 ms). So a difference of more than half its range means that
        `tick` was after the dump.
        """
        elapsed = (self.ticks - tick) % _TICK_WRAP
        return None if elapsed > _TICK_WRAP // 2 else elapsed

    def time_of_tick(self, tick: int) -> datetime.datetime | None:
        """Return the UTC time of the 32-bit tick count `tick`, or None if that is before 1601 or after the dump."""
        elapsed = self.ticks_since(tick)
        if elapsed is None:
            return None
        now = time_of(self.system_time)
        try:
            return None if now is None else now - datetime.timedelta(milliseconds=elapsed * self.milliseconds_per_tick)
        except OverflowError:
            return None


def _paging_mode(layer: intel.Intel) -> PagingMode:
    if isinstance(layer, intel.Intel32e):
        return PagingMode.X64
    return PagingMode.PAE if isinstance(layer, intel.IntelPAE) else PagingMode.X86
