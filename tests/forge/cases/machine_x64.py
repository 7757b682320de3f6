# SPDX-License-Identifier: Apache-2.0
"""A Windows 10 x64 machine with services that all run the same program, put together process by process."""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases.kernel_x64 import Kernel
from tests.forge.cases.service_code import Program
from tests.forge.cases.threads_x64 import Crash, Threads, Waiting
from tests.forge.cases.windows_x64 import System
from tests.forge.chains_x86 import Images
from tests.forge.describe import Machine, Paging, Process, Region
from tests.forge.truth import Truth

SERVICES, HEAP = 0x2D4, 0x1F4A2C00000
VERSION = (10, 0, 19041)
_STACKS, _TEBS, _PEB = 0xE3B4000000, 0xE3B3F42000, 0xE3B3F40000
_NAME = "ledgersvc.exe"


class Site:
    """The machine under construction. Images are built once: processes share their pages."""

    def __init__(self, case: str, *, with_stacks: bool = True, stubs_are_listed: bool = False) -> None:
        """Build the images; `with_stacks` False leaves the quiet threads' stacks out of the truth.

        `stubs_are_listed` gives the stubs of system calls entries in .pdata, which leaf functions need not have.
        """
        self.name = case
        self.with_stacks = with_stacks
        self.system = System(stubs_are_listed=stubs_are_listed)
        self.kernel = Kernel()
        self.program = Program(_NAME, self.system)
        self.images = [self.program.image, *self.system.images.values()]
        self._names = Images(self.images)
        self._built = [(image, image.build()) for image in self.images]
        self._heap = self.program.heap
        services = Process(SERVICES, "services.exe", 0x23C, 0x5F0A2C1000, create_seconds=8)
        self.processes = [services]
        self._made: list[tuple[Process, Waiting | Crash]] = []

    def service(self, pid: int, **more: object) -> tuple[Process, Threads]:
        """Add a process; return it with the maker of its threads."""
        directory = self.program.image.directory
        process = Process(
            pid,
            _NAME,
            SERVICES,
            _PEB,
            create_seconds=40,
            image_path=f"\\Device\\HarddiskVolume3{directory}\\{_NAME}",
            command_line=f'"C:{directory}\\{_NAME}" --service',
            **more,
        )
        for image, data in self._built:
            process.modules.append(image.loaded(data))
            process.regions.append(image.region(data))
        process.regions.append(Region(HEAP, self._heap))
        self.processes.append(process)
        return process, Threads(self.system, self.program, self._names, self.kernel, _STACKS, _TEBS)

    def add(self, process: Process, *threads: Waiting | Crash) -> None:
        """Add threads to a process."""
        for made in threads:
            process.threads.append(made.thread)
            process.regions.append(made.region)
            self._made.append((process, made))

    def case(self) -> Case:
        """Return the machine and the truth about it."""
        waiting = [(process, made) for process, made in self._made if isinstance(made, Waiting)]
        stacks = {f"{process.pid}:{made.thread.tid}": made.frames for process, made in waiting}
        truth = Truth(
            self.name,
            "x64",
            tuple(made.truth(process) for process, made in self._made if isinstance(made, Crash)),
            tuple((process.pid, made.thread.tid) for process, made in waiting),
            stacks if self.with_stacks else {},
        )
        machine = Machine(
            Paging.X64,
            VERSION,
            self.processes,
            system_time=132_700_000_000_000_000,
            kernel_base=self.kernel.image.base,
            kernel_image=self.kernel.image.build(),
            kernel_symbols=self.kernel.image.rvas(),
        )
        return Case(machine, truth, [image for image in self.images if image.has_isf])
