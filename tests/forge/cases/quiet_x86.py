# SPDX-License-Identifier: Apache-2.0
"""Server 2003 x86, nothing crashed: threads that wait, and decoys."""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import ApiFunctions, ThreadFactory, add_waiting, load_images, service_image
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Images
from tests.forge.describe import Process
from tests.forge.truth import Truth


def build() -> Case:
    """Return the machine and the truth about it."""
    library, kernel = Library(), Kernel()
    api = ApiFunctions(library)
    start = throwing_functions(library)[0][1]
    kernel32 = library["KERNEL32"]
    kernel32.name_function(start.name, kernel32.code(start.start, start.emit()))
    ntdll = library["ntdll"]
    ntdll.name_function("KiFastSystemCallRet", ntdll.code(0x7C8285EC, b"\xc3"))
    factory = ThreadFactory(api, kernel, start, 0xB9010000)
    names = ("ntdll", "KERNEL32", "RPCRT4", "USER32")
    built = [(library[name], library[name].build()) for name in names]
    machine = kernel.machine([])
    quiet, stacks = [], {}
    for pid, name in ((0x2A8, "svchost.exe"), (0x348, "spoolsv.exe")):
        process = Process(pid, name, 0x1BC, 0x7FFDE000, create_seconds=20)
        program, routines = service_image(name, "\\WINDOWS\\system32")
        waiting = add_waiting(process, routines, factory, Images([program, *library.images.values()]))
        load_images(process, program, built)
        machine.processes.append(process)
        quiet += [(pid, tid) for tid in waiting]
        stacks |= {f"{pid}:{tid}": frames for tid, frames in waiting.items()}
    truth = Truth("quiet-x86", "x86", (), tuple(quiet), stacks)
    return Case(machine, truth, [library[name] for name in names if library[name].has_isf])
