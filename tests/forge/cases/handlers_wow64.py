# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: a 32-bit process whose thread waits for the second chance of a fault, on its 32-bit stack."""

from __future__ import annotations

from tests.forge.cases.dispatch_x86 import ACCESS_VIOLATION, DispatchCode
from tests.forge.cases.ftp_images import SYSTEM, Library
from tests.forge.cases.ftp_threads import LAST, ApiFunctions, service_image
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.machine_x64 import SERVICES, Site
from tests.forge.cases.threads_x64 import NOW
from tests.forge.cases.wow64_service import (
    _PEB,
    _SELECTORS,
    _WOW64_DIRECTORY,
    TID,
    _add_thread,
    _native_images,
)
from tests.forge.chains_x86 import Images
from tests.forge.describe import Process, Region
from tests.forge.truth import TruthThread

PID = 0x1D00
_IMAGES = ("ntdll", "KERNEL32")


def add_second_chance(site: Site) -> TruthThread:
    """Add the process to `site`; return what must be found of its thread."""
    library = Library()
    api = ApiFunctions(library)
    start = throwing_functions(library)[0][1]
    library["KERNEL32"].name_function(start.name, library["KERNEL32"].code(start.start, start.emit()))
    library["ntdll"].name_function(LAST.name, library["ntdll"].code(LAST.start, b"\xc3"))
    program, _ = service_image("meter32.exe", "\\Program Files (x86)\\Meter")
    code = DispatchCode(library, program, api, _SELECTORS)
    fault = code.fault(0x00140000, start, ACCESS_VIOLATION, 0)
    code.second_chance(fault)
    chain = fault.chain
    chain.enter(code.functions["NtRaiseException"]).enter(LAST, ip=LAST.start)
    process = Process(PID, program.name, SERVICES, _PEB, create_seconds=60)
    native, native_names = _native_images(site)
    images = [program, *(library[name] for name in _IMAGES)]
    process.modules32 = []
    for image in images:
        if image.directory == SYSTEM:
            image.directory = _WOW64_DIRECTORY
        data = image.build()
        process.modules32.append(image.loaded(data))
        process.regions.append(image.region(data))
    process.modules = [process.modules32[0], *(image.loaded(data) for image, data in native)]
    process.regions += [image.region(data) for image, data in native]
    _add_thread(site, process, chain, native_names)
    process.regions.append(Region(chain.stack.limit, chain.stack.data()))
    site.processes.append(process)
    site.images += images[1:]
    frames = chain.frames(Images(images))
    return TruthThread(
        pid=PID,
        tid=TID,
        process=process.name,
        arch="wow64",
        code=ACCESS_VIOLATION,
        address=fault.registers["eip"],
        record=fault.record,
        context=fault.context,
        registers=fault.registers,
        thrown_at=Images(images).name(fault.registers["eip"]),
        frames=frames[-fault.depth :],
        thread_stack=frames,
        blockers=("ntdll!NtRaiseException",),
        wait_ticks=NOW - 6900,
    )
