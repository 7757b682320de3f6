# SPDX-License-Identifier: Apache-2.0
"""The machine that a forged dump shows: systems, processes, threads, modules, memory, and where each page is.

A case makes one `Machine`; the writers turn it into a dump. Nothing here knows kernel structures, page tables or
file formats, and nothing here comes from an unwinder: expected frames are built by whoever lays out the stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Paging(Enum):
    """How addresses are translated."""

    X86 = "x86"
    PAE = "pae"
    X64 = "x64"

    @property
    def is_64bit(self) -> bool:
        """Say whether it is a 64-bit system."""
        return self is Paging.X64


class Residency(Enum):
    """What the page tables say of a page."""

    VALID = "valid"
    TRANSITION = "transition"
    """In memory, its PTE not valid but in transition (Volatility reads these)."""
    PROTOTYPE = "prototype"
    """In memory, reachable only through the section's prototype PTE that the page's own PTE points to."""
    PROTOTYPE_BY_VAD = "prototype-by-vad"
    """In memory, reachable only through a prototype PTE that has to be looked up in the VAD: the page's own PTE says
    no more than that, as it mostly does for images."""
    UNTOUCHED = "untouched"
    """No page-table entry: the section's page in memory, or a page of zeros where memory is private."""
    IN_FILE = "in its file"
    """The prototype PTE says that the page is in the mapped file; the dump does not hold it."""
    IN_PAGE_FILE = "in the page file"
    """In page file 0, which is written beside the dump."""
    IN_STORE = "in the compressed store"
    """Windows 10: compressed in the memory of a process of its own, which is written into the dump."""
    DEMAND_ZERO = "demand-zero"
    PAGED_OUT = "paged-out"
    """In a page file that is not part of the dump."""
    ABSENT = "absent"
    """No page-table entry, no data."""


class Protection(Enum):
    """A region's protection, as the VAD and the PTEs record it."""

    READ = "r"
    READ_WRITE = "rw"
    EXECUTE_READ = "rx"
    EXECUTE_READ_WRITE = "rwx"
    EXECUTE_WRITE_COPY = "rwxc"
    """What the VAD of an image says."""


@dataclass
class Region:
    """A range of a process's memory: contents, protection, and what backs it.

    `data` starts at the page-aligned `base` and is padded with zeros to whole pages. `file` is the mapped file's
    path (`\\WINDOWS\\system32\\ntdll.dll`) for an image, else None. `residency` gives, by page index, the pages
    that are not valid.
    """

    base: int
    data: bytes
    protection: Protection = Protection.READ_WRITE
    file: str | None = None
    is_image: bool = False
    residency: dict[int, Residency] = field(default_factory=dict)
    reserve: int = 0
    """Bytes that the VAD spans beyond `data` (a stack's uncommitted part is before: give it a region of its own)."""


@dataclass
class LoadedModule:
    """An entry of a process's loader lists. The image itself is a `Region` at the same base."""

    name: str
    path: str
    base: int
    size: int
    entry: int = 0
    timestamp: int = 0


class ThreadState(Enum):
    """KTHREAD.State."""

    INITIALIZED = 0
    READY = 1
    RUNNING = 2
    STANDBY = 3
    TERMINATED = 4
    WAITING = 5


@dataclass
class WaitObject:
    """A dispatcher object that threads wait for: its KOBJECTS type and what its kind records.

    Several threads that wait for one object have it in their lists. `owner` is the id of the thread that holds a
    mutex; `waited_for` that of the process or thread whose own object it is. A timer's `due` is in units of 100 ns
    since boot. `is_timeout` stands for the waiting thread's own timer. One with a name has an OBJECT_HEADER.
    """

    type: int
    address: int | None = None
    name: str = ""
    signal: int = 0
    limit: int = 0
    owner: int | None = None
    waited_for: int | None = None
    due: int = 0
    is_timeout: bool = False


@dataclass
class Thread:
    """A thread: identity, user stack, the user registers its trap frame holds, and how it waits.

    `registers` are named as in the CPU (`eip`, `esp`, `ebp`, `eflags`, `cs`, … or `rip`, `rsp`, …). On x64 the trap
    frame of a system call holds rip, rsp, rbp, rbx, rsi, rdi (r12 to r15 are on the kernel stack: `kernel_stack`).
    Times are in clock ticks since boot. Addresses that are None are chosen by the writer.
    """

    tid: int
    teb: int
    stack_base: int
    stack_limit: int
    registers: dict[str, int]
    start_address: int = 0
    win32_start_address: int = 0
    state: ThreadState = ThreadState.WAITING
    wait_reason: int = 6
    """KWAIT_REASON; 6 is UserRequest."""
    wait_mode: int = 1
    """KPROCESSOR_MODE; 1 is UserMode."""
    alertable: bool = False
    wait_ticks: int = 0
    """KTHREAD.WaitTime: the tick count at which the wait began."""
    wait_objects: list[WaitObject] = field(default_factory=list)
    waits_for_all: bool = False
    kthread: dict[str, int] = field(default_factory=dict)
    """More members of the KTHREAD, by name, where the layout has them."""
    priority: int = 8
    base_priority: int = 8
    address: int | None = None
    """Address of the ETHREAD."""
    kernel_stack_base: int | None = None
    """InitialStack/StackBase of the kernel stack."""
    kernel_stack_limit: int | None = None
    kernel_stack_pointer: int | None = None
    """KTHREAD.KernelStack."""
    kernel_stack: dict[int, bytes] = field(default_factory=dict)
    """Contents of the kernel stack by address, laid over what the writer puts there (zeros and the trap frame)."""
    has_trap_frame: bool = True
    exception_active: int = 2
    """KTRAP_FRAME.ExceptionActive of x64: 0 after an interrupt, 1 after a fault, 2 in a system call."""
    trap_frame: int | None = None
    win32_thread: int = 0
    teb32: int | None = None
    """WoW64: address of the 32-bit TEB: the case's to write in one of the process's regions, the writer's elsewhere."""
    stack32_base: int = 0
    """WoW64: bounds of the 32-bit stack, for a 32-bit TEB that the writer writes."""
    stack32_limit: int = 0


@dataclass
class Process:
    """A process: identity, memory, loader lists, threads.

    The writer writes PEB, TEBs (NT_TIB bounds, self pointer, client id, PEB pointer) and loader data at `peb`,
    `Thread.teb` and `loader_base` from the ISF's layouts, unless `writes_loader_data` is False (a live capture brings
    its own pages). The WoW64 half (TEB32, PEB32, 32-bit loader lists) is written when `modules32` is given.
    """

    pid: int
    name: str
    ppid: int = 4
    peb: int = 0x7FFDF000
    modules: list[LoadedModule] = field(default_factory=list)
    modules32: list[LoadedModule] | None = None
    peb32: int | None = None
    regions: list[Region] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    image_path: str = ""
    command_line: str = ""
    environment: tuple[str, ...] = ()
    """`NAME=value`; without any the process has no environment."""
    address: int | None = None
    """Address of the EPROCESS."""
    directory_base: int | None = None
    """Physical address of the top page table (for PAE, of the 32-byte PDPT)."""
    session: int = 0
    user_sid: str = ""
    """The SID of the account in the token, `S-1-5-18`; without one the process has no token."""
    token: int | None = None
    """Address of the token."""
    debug_port: int = 0
    """The object of the debugger that is attached; 0 if there is none."""
    create_seconds: int = 100
    """Seconds after boot."""
    loader_base: int | None = None
    writes_loader_data: bool = True
    loader_residency: Residency = Residency.VALID
    """Residency of the pages with PEB and loader data."""
    teb_residency: Residency = Residency.VALID
    pages_out_tables: bool = False
    """Page tables none of whose pages are in memory are in the page file themselves."""


@dataclass
class Machine:
    """A whole system. `version` is (major, minor, build); times are what KUSER_SHARED_DATA gives."""

    paging: Paging
    version: tuple[int, int, int]
    processes: list[Process]
    tick_count: int = 7218
    tick_multiplier: int = 0x0FA00000
    """TickCountMultiplier: milliseconds a tick, times 2^24 (0x0FA00000 is 15.625 ms)."""
    system_time: int = 128_500_000_000_000_000
    """FILETIME: 100 ns since 1601, UTC."""
    processors: int = 1
    bug_check: tuple[int, int, int, int, int] = (0xE2, 0, 0, 0, 0)
    kernel_base: int | None = None
    kernel_size: int | None = None
    kernel_image: bytes | None = None
    """The kernel's image as mapped, if the case wants more than the minimal one (kernel functions with .pdata)."""
    kernel_symbols: dict[str, int] = field(default_factory=dict)
    """RVA by name, added to the kernel's ISF."""
    invalid_pte_mask: int = 0
    """MiState.Hardware.InvalidPteMask: what Windows 10 and later add to PTEs that are not valid."""
    pads_pointer_tables: bool = True
    """PAE: the page after one with pointer tables is in the dump. Volatility reads a pointer table of 32 bytes as a
    whole page's worth, and takes a process for unreadable where the next page is absent."""

    @property
    def has_compressed_store(self) -> bool:
        """Say whether a page is in the compressed store."""
        return any(
            Residency.IN_STORE in {one.loader_residency, one.teb_residency, *region.residency.values()}
            for one in self.processes
            for region in [Region(0, b""), *one.regions]
        )
