# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: a service with two stuck threads, one on a C++ exception, one on an access violation."""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases.service_code import PROGRAM_BASE, Program
from tests.forge.cases.threads_x64 import Crash, Threads, Waiting
from tests.forge.cases.windows_x64 import System
from tests.forge.chains_x86 import Images
from tests.forge.describe import Machine, Paging, Process, Region
from tests.forge.truth import Truth

PID, SERVICES, HEAP = 0x14B8, 0x2D4, 0x1F4A2C00000
STACKS, TEBS = 0xE3B4000000, 0xE3B3F42000


def build() -> Case:
    """Return the machine and the truth about it."""
    system = System()
    program = Program("ledgersvc.exe", system)
    images = Images([program.image, *system.images.values()])
    threads = Threads(system, program, images, STACKS, TEBS)
    process = Process(
        PID,
        "ledgersvc.exe",
        SERVICES,
        0xE3B3F40000,
        create_seconds=40,
        image_path=f"\\Device\\HarddiskVolume3{program.image.directory}\\ledgersvc.exe",
        command_line=f'"C:{program.image.directory}\\ledgersvc.exe" --service',
    )
    waiting: list[Waiting] = [
        threads.idle(0x14BC, "main", 3000),
        threads.idle(0x14C0, "pool", 5100),
        threads.idle(0x14D8, "sleep", 7100),
    ]
    crashes: list[Crash] = [threads.throw(0x14C8, HEAP, 6400), threads.fault(0x14CC, 6900)]
    waiting.append(threads.recovered(0x14D0, 6000))
    waiting.append(threads.with_filter_address(0x14D4, 6100))
    for made in (*waiting, *crashes):
        process.threads.append(made.thread)
        process.regions.append(made.region)
    process.regions.append(Region(HEAP, program.heap))
    add_images(process, [program.image, *system.images.values()])
    truth = Truth(
        "service-x64",
        "x64",
        tuple(crash.truth(process) for crash in crashes),
        tuple((PID, made.thread.tid) for made in waiting),
        {f"{PID}:{made.thread.tid}": made.frames for made in waiting},
    )
    services = Process(SERVICES, "services.exe", 0x23C, 0x5F0A2C1000, create_seconds=8)
    machine = Machine(Paging.X64, (10, 0, 19041), [services, process], system_time=132_700_000_000_000_000)
    return Case(machine, truth, [image for image in (program.image, *system.images.values()) if image.has_isf])


def add_images(process: Process, images: list) -> None:
    """Load images into a process, its program first."""
    for image in images:
        data = built(image)
        process.modules.append(image.loaded(data))
        process.regions.append(image.region(data))


def built(image) -> bytes:
    """Return the built image, the same object every time: processes share its pages."""
    data = getattr(image, "built", None)
    if data is None:
        data = image.built = image.build()
    return data


__all__ = ["PROGRAM_BASE", "build"]
