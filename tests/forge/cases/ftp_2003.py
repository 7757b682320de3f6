# SPDX-License-Identifier: Apache-2.0
"""The reference case: Server 2003 x86, a service's thread stuck in CorExitProcess after a _com_error nobody caught.

Every figure comes from a published WinDbg transcript of a complete dump: processes, thread, modules' addresses,
stack words, exception record, context. Where it contradicts itself or could not be true of code, a comment says so.
"""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases import ftp_stack as stuck
from tests.forge.cases.ftp_images import PROGRAM, Library, add_com_error
from tests.forge.cases.ftp_pdbs import build_pdbs
from tests.forge.cases.ftp_threads import (
    ApiFunctions,
    ThreadFactory,
    add_waiting,
    load_images,
    put_kernel_stack,
    service_image,
    thread_block,
    user_registers,
)
from tests.forge.cases.ftp_unloaded import add_unloaded_dlls, add_unloaded_driver
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Chain, Images
from tests.forge.describe import Process, Region, Thread, WaitObject
from tests.forge.truth import Truth, TruthFrame, TruthThread

SERVICES = 0x1BC


def build() -> Case:
    """Return the machine and the truth about it."""
    library, kernel = Library(), Kernel()
    add_com_error(library["ftpsrvdata_pg"])
    add_unloaded_dlls(library["ntdll"])
    add_unloaded_driver(kernel.image)
    api = ApiFunctions(library)
    stack, chain, threw = stuck.stuck_stack(library)
    _add_stray_code(library)
    factory = ThreadFactory(api, kernel, chain.placed[0].function, 0xB9010000)
    kernel_half = kernel.wait(0xB8FDF000, "NtWaitForMultipleObjects", chain, size=0x4000)
    thread = Thread(
        0xAE8,
        0x7FFAD000,
        stuck.STACK_BASE,
        stuck.STACK_LIMIT,
        user_registers(chain),
        0x77E617EC,
        0x781329E1,
        alertable=True,
        wait_ticks=7198,
        priority=10,
        base_priority=8,
        address=0x89E3D418,
        win32_thread=0xE26A6508,
        wait_objects=[
            WaitObject(0, address=0x8948FCB0),
            WaitObject(1, address=0x898F1B88),
            # 80 s, the 13880h ms of the stack, from when the wait began
            WaitObject(8, due=7198 * 156_250 + 800_000_000, is_timeout=True),
        ],
        kthread={"ContextSwitches": 24, "LargeStack": 1},
    )
    put_kernel_stack(thread, kernel_half)
    iftpsvc = _process("iftpsvc.exe", 0xA04, 0x8948FA08, 0x7F404520, 0x7FFDE000)
    iftpsvc.user_sid, iftpsvc.token = "S-1-5-18", 0xE267FBF0
    ssh = _process("SSHServer.exe", 0x7F0, 0x899F2BC8, 0x7F4043A0, 0x7FFD8000)
    intfy = _process("intfysvc.exe", 0x79C, 0x89EEE6F8, 0x7F404380, 0x7FFDD000)
    programs = {}
    quiet, stacks = [], {}
    for process, directory in (
        (intfy, "\\WINDOWS\\system32"),
        (ssh, "\\Program Files\\Ipswitch\\SSH"),
        (iftpsvc, PROGRAM),
    ):
        program, routines = service_image(process.name, directory)
        programs[process.name] = program
        waiting = add_waiting(process, routines, factory, images=Images([program, *library.images.values()]))
        quiet += [(process.pid, tid) for tid in waiting]
        stacks |= {f"{process.pid}:{tid}": frames for tid, frames in waiting.items()}
    iftpsvc.threads.append(thread)
    iftpsvc.regions += [Region(stuck.STACK_LIMIT, stack.data()), thread_block(thread.teb, chain)]
    built = {name: image.build() for name, image in library.images.items()}
    system = ("ntdll", "KERNEL32", "RPCRT4", "USER32", "ole32")
    for process, names in ((intfy, system), (ssh, system), (iftpsvc, tuple(built))):
        load_images(process, programs[process.name], [(library[name], built[name]) for name in names])
    images = Images([programs["iftpsvc.exe"], *library.images.values()])
    truth = Truth("ftp-2003", "x86", (_stuck_truth(chain, threw, kernel_half.frames, images),), tuple(quiet), stacks)
    machine = kernel.machine([_services(), intfy, ssh, iftpsvc], processors=2)
    functions = [*(placed.function for placed in chain.placed), *api.functions.values()]
    with_isf = [image for image in library.images.values() if image.has_isf]
    return Case(machine, truth, with_isf, build_pdbs(library, functions))


def _process(name: str, pid: int, address: int, directory_base: int, peb: int) -> Process:
    return Process(pid, name, SERVICES, peb, address=address, directory_base=directory_base, create_seconds=50)


def _services() -> Process:
    return Process(SERVICES, "services.exe", 0x18C, 0x7FFDF000, create_seconds=5)


def _add_stray_code(library: Library) -> None:
    """Put code where the stack has addresses that are no frames of it."""
    image = library["MSVCR80"]
    image.code(0x78158ED5, bytes.fromhex("ffd05f5e8beb5d8b4d1055c3"))  # call eax in _CallSettingFrame
    kernel32 = library["KERNEL32"]
    kernel32.code(0x77E64840, b"\x33\xc0\xc3")  # BaseThreadStart's __except block
    # BaseThreadStartThunk: push edx-like arguments, jump to BaseThreadStart
    thunk = b"\x33\xed\x53\x50\x6a\x00\xe9" + (0x77E647F5 - 0x77E617F7).to_bytes(4, "little", signed=True)
    kernel32.name_function("BaseThreadStartThunk", kernel32.code(0x77E617EC, thunk))


def _stuck_truth(chain: Chain, threw: int, kernel: tuple[TruthFrame, ...], images: Images) -> TruthThread:
    user = chain.frames(images)
    return TruthThread(
        pid=0xA04,
        tid=0xAE8,
        process="iftpsvc.exe",
        arch="x86",
        code=0xE06D7363,
        address=0x77E4BEE7,
        record=stuck.RECORD,
        context=stuck.CONTEXT,
        registers=stuck.CXR,
        thrown_at="ftpsrvdata_pg!_com_raise_error+0x32",
        frames=user[-threw:],
        thread_stack=(*kernel, *user),
        blockers=(
            "KERNEL32!UnhandledExceptionFilter",
            "MSVCR71!abort",
            "mscorwks!CorExitProcess",
            "mscoree!CorExitProcess",
        ),
        exception_type=".?AV_com_error@@",
        message="0x80004003",
        wait_ticks=20,
    )
