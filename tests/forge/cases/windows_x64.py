# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64's side of a crashed or waiting thread: the system DLLs' functions with their unwind data.

Frames have the forms that the real functions have; KiUserExceptionDispatch has the very unwind codes of the real one
(prologue of no length, every nonvolatile register at its place in the CONTEXT, a machine frame at +0x590).
"""

from __future__ import annotations

import struct

from tests.forge.functions_x64 import (
    ALLOC_LARGE,
    EPILOG,
    PUSH_MACHFRAME,
    SAVE_NONVOL,
    SAVE_XMM128,
    Call,
    Frame,
    Function,
    add_chkstk,
    unwind_info,
)
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pe_format import AMD64

NTDLL, KERNEL32, KERNELBASE = 0x7FFB4C3D0000, 0x7FFB4B8A0000, 0x7FFB49D20000
UCRT, VCRUNTIME = 0x7FFB49A40000, 0x7FFB3E2B0000
MACHINE_FRAME, RECORD_AT, CONTEXT_EX_AT = 0x590, 0x4F0, 0x4D0
SECOND_CHANCE_RETURN = 0x3B
"""Where in KiUserExceptionDispatch its call of NtRaiseException returns to."""

_LAYOUT = {
    # name: base, sizes of .text and .rdata, ISF
    "ntdll": (NTDLL, 0xA4000, 0x2000, True),
    "KERNEL32": (KERNEL32, 0x3D000, 0x1000, True),
    "KERNELBASE": (KERNELBASE, 0x10B000, 0x2000, True),
    "ucrtbase": (UCRT, 0x23000, 0x1000, True),
    "VCRUNTIME140": (VCRUNTIME, 0x7000, 0x1000, False),
}
_FILE_NAMES = {"KERNEL32": "KERNEL32.DLL"}
_EXPORTED = frozenset(
    (
        *("KiUserExceptionDispatch", "RtlRaiseException", "RtlUserThreadStart", "__C_specific_handler"),
        *("BaseThreadInitThunk", "RaiseException", "UnhandledExceptionFilter", "_CxxThrowException"),
        *("WaitForMultipleObjects", "WaitForMultipleObjectsEx", "WaitForSingleObjectEx", "SleepEx"),
        *("NtWaitForMultipleObjects", "NtWaitForSingleObject", "NtDelayExecution", "NtWaitForWorkViaWorkerFactory"),
        "NtRaiseException",
    )
)


def dispatcher_codes() -> bytes:
    """Return KiUserExceptionDispatch's UNWIND_INFO."""
    in_context = {3: 0x90, 5: 0xA0, 6: 0xA8, 7: 0xB0, 12: 0xD8, 13: 0xE0, 14: 0xE8, 15: 0xF0}
    codes = [(0, PUSH_MACHFRAME, ()), (0, ALLOC_LARGE, (MACHINE_FRAME // 8,))]
    codes += [(0, SAVE_NONVOL | number << 4, (offset // 8,)) for number, offset in in_context.items()]
    codes += [(0, SAVE_XMM128 | number << 4, ((0x1A0 + 16 * number) // 16,)) for number in range(6, 16)]
    return unwind_info(2, 0, 0, codes, [(1, EPILOG), (0, EPILOG)])


def system_call(name: str, start: int, number: int, *, is_listed: bool) -> Function:
    """Return a system call's stub, which waits at +0x14, after `syscall`; one that `is_listed` has unwind data."""
    code = b"\x4c\x8b\xd1\xb8" + struct.pack("<I", number) + bytes.fromhex("f604250803fe7f0175030f05c3cd2ec3")
    if is_listed:
        return Function(name, start, code=code, codes=unwind_info(1, 0, 0, []))
    # A leaf: Frame() emits nothing, and the code brings its own ret.
    return Function(name, start, code=code, is_leaf=True)


class System:
    """The DLLs, and their functions by name."""

    def __init__(self, *, stubs_are_listed: bool = False) -> None:
        """Build code and unwind data of every function."""
        self.stubs_are_listed = stubs_are_listed
        self.images: dict[str, ImageBuilder] = {}
        for stem, (base, text, rdata, has_isf) in _LAYOUT.items():
            name = _FILE_NAMES.get(stem, f"{stem}.dll")
            self.images[stem] = ImageBuilder(
                name,
                base,
                text,
                rdata,
                machine=AMD64,
                pdb=pdb_of(name, "19041"),
                has_isf=has_isf,
                timestamp=0x9F7C2A41,
                directory="\\Windows\\System32",
            )
        self.functions: dict[str, Function] = {}
        for stem, functions in (
            ("ntdll", self._ntdll()),
            ("KERNEL32", self._kernel32()),
            ("KERNELBASE", self._kernelbase()),
            ("ucrtbase", self._runtime()),
            ("VCRUNTIME140", self._throw()),
        ):
            image = self.images[stem]
            chkstk = add_chkstk(image)
            for function in functions:
                self.functions[function.name] = function.put(image, chkstk, exported=function.name in _EXPORTED)
        self._add_stub(self.images["KERNEL32"])

    @staticmethod
    def _add_stub(image: ImageBuilder) -> None:
        """Let KERNEL32 export the filter, too, as `jmp qword ptr [import of KERNELBASE's]`."""
        stub, slot = KERNEL32 + 0x3C900, image.slot(KERNELBASE + 0x109A30)
        image.code(stub, b"\x48\xff\x25" + struct.pack("<i", slot - stub - 7) + b"\xcc" * 9)
        image.name_function("UnhandledExceptionFilterStub", stub)
        image.exports["UnhandledExceptionFilter"] = stub

    def __getitem__(self, name: str) -> Function:
        """Return a function by name."""
        return self.functions[name]

    def _ntdll(self) -> list[Function]:
        start, handler, dispatch = NTDLL + 0x52630, NTDLL + 0x7C7B0, NTDLL + 0x21F40
        filter_start, execute = NTDLL + 0x8F6EC, NTDLL + 0xA2110
        second_chance = NTDLL + 0x9F000
        dispatcher = NTDLL + 0xA1300
        image = self.images["ntdll"]
        prepare = image.place_data(bytes(8), writable=True)
        thunk = image.slot(KERNEL32 + 0x17020)
        filter_slot = image.slot(KERNELBASE + 0x109A30)
        # cld; Wow64PrepareForException if there is one; RtlDispatchException(record, context); a way on, and int3;
        # NtRaiseException(record, context, 0), if no handler took it
        body = (
            b"\xfc\x48\x8b\x05"
            + struct.pack("<i", prepare - dispatcher - 8)
            + bytes.fromhex("4885c0740f488bcc4881c1f0040000488bd4ffd0488bcc4881c1f0040000488bd4e8")
            + struct.pack("<i", dispatch - dispatcher - 0x2E)
            + bytes.fromhex("84c0ebfecc")
            + b"\x45\x33\xc0\xe8"
            + struct.pack("<i", second_chance - dispatcher - SECOND_CHANCE_RETURN)
            + b"\xcc"
        )
        everything = ("rbp", "rbx", "rsi", "rdi", "r12", "r13", "r14", "r15")
        return [
            # Its __except covers the thread: scope begin, end, filter, target.
            Function(
                "RtlUserThreadStart",
                start,
                Frame(allocation=0x48),
                (Call(start + 0x21, via=thunk),),
                handler=(handler, (start + 0x4, start + 0x21, filter_start, start + 0x21)),
            ),
            Function(
                "RtlUserThreadStart$filt$0",
                filter_start,
                Frame(("rbp",), 0x20),
                (Call(filter_start + 0xA2, via=filter_slot, code=b"\x48\x8b\xea"),),
            ),
            Function(
                "__C_specific_handler",
                handler,
                Frame(("rdi", "r12", "r13", "r14", "r15"), 0x40, {"rbx": 8, "rbp": 16, "rsi": 24}),
                (
                    # mov [rsp+20h],rcx; mov [rsp+28h],r8; mov rbx,r9; lea rcx,[rsp+20h]; call rax
                    Call(handler + 0x96, via=b"\xff\xd0", code=bytes.fromhex("48894c24204c89442428498bd9488d4c2420")),
                ),
            ),
            Function(
                "RtlpExecuteHandlerForException",
                execute,
                Frame(allocation=0x28),
                (Call(execute + 0xD, via=b"\x41\xff\x51\x30", code=bytes.fromhex("4c894c2420")),),
            ),
            Function(
                "RtlDispatchException",
                dispatch,
                Frame(everything, 0x6C8, xmm={6: 0x690}),
                (
                    # mov rsi,rcx; mov rdi,rdx
                    Call(dispatch + 0x219, execute, code=bytes.fromhex("488bf1488bfa")),
                ),
            ),
            Function(
                "RtlRaiseException",
                NTDLL + 0x6A6E0,
                Frame(("rdi",), 0x5B0, {"rbx": 16}),
                (
                    # mov rbx,rcx; lea rdi,[rsp+30h]
                    Call(NTDLL + 0x6A6E0 + 0x1B2, dispatch, code=bytes.fromhex("488bd9488d7c2430")),
                ),
            ),
            Function("KiUserExceptionDispatch", dispatcher, code=body, codes=dispatcher_codes()),
            Function(
                "TppWorkerThread",
                NTDLL + 0x1F280,
                Frame(("rsi", "rdi", "r13", "r14", "r15"), 0x260, {"rbx": 16, "rbp": 24}),
                (Call(NTDLL + 0x1F280 + 0x456, NTDLL + 0x9FE60, sets={"rsi": 0x1F4A2C01B40, "r14": 0}),),
            ),
            system_call("NtWaitForSingleObject", NTDLL + 0x9C980, 4, is_listed=self.stubs_are_listed),
            system_call("NtDelayExecution", NTDLL + 0x9CF80, 0x34, is_listed=self.stubs_are_listed),
            system_call("NtWaitForMultipleObjects", NTDLL + 0x9D460, 0x5B, is_listed=self.stubs_are_listed),
            system_call("NtWaitForWorkViaWorkerFactory", NTDLL + 0x9FE60, 0x1C9, is_listed=self.stubs_are_listed),
            system_call("NtRaiseException", second_chance, 0x15F, is_listed=self.stubs_are_listed),
        ]

    def _kernel32(self) -> list[Function]:
        report, internal = KERNEL32 + 0x3B3F0, KERNEL32 + 0x3A960
        wait = self.images["KERNEL32"].slot(KERNELBASE + 0x2EA30)
        return [
            # mov rcx,r8; mov rax,rdx; call rax
            Function(
                "BaseThreadInitThunk",
                KERNEL32 + 0x17020,
                Frame(allocation=0x28),
                (Call(KERNEL32 + 0x17034, via=b"\xff\xd0", code=bytes.fromhex("498bc8488bc2")),),
            ),
            Function(
                "WerpReportFault",
                report,
                Frame(("rdi",), 0x30, {"rbx": 8, "rsi": 16}),
                (Call(report + 0xBE, internal, code=b"\x48\x8b\xf9"),),
            ),
            Function(
                "WerpReportFaultInternal",
                internal,
                Frame(("rbp", "rbx", "rsi", "rdi", "r12", "r13", "r14"), 0x150, frame_register=("rbp", 0x70)),
                (Call(internal + 0x51B, via=wait, sets={"r12": 2}),),
            ),
        ]

    def _kernelbase(self) -> list[Function]:
        raising, unhandled = KERNELBASE + 0x34E90, KERNELBASE + 0x109A30
        many, single, sleep = KERNELBASE + 0x2EA50, KERNELBASE + 0x30FF0, KERNELBASE + 0x3B5B0
        image = self.images["KERNELBASE"]
        return [
            # lea rcx,[rsp+20h]: the record
            Function(
                "RaiseException",
                raising,
                Frame(allocation=0xD8),
                (Call(raising + 0x69, via=image.slot(NTDLL + 0x6A6E0), code=bytes.fromhex("488d4c2420")),),
            ),
            # mov rbx,rcx: the EXCEPTION_POINTERS
            Function(
                "UnhandledExceptionFilter",
                unhandled,
                Frame(("rbp", "rbx", "rsi", "rdi", "r14", "r15"), 0x148),
                (Call(unhandled + 0x3D9, via=image.slot(KERNEL32 + 0x3B3F0), code=b"\x48\x8b\xd9"),),
            ),
            # and dword ptr [rsp+20h],0: not alertable
            Function(
                "WaitForMultipleObjects",
                KERNELBASE + 0x2EA30,
                Frame(allocation=0x38),
                (Call(KERNELBASE + 0x2EA3E, many, code=bytes.fromhex("8364242000")),),
            ),
            Function(
                "WaitForMultipleObjectsEx",
                many,
                Frame(("rbx", "rsi", "rdi", "r12", "r13", "r14", "r15"), 0x2B0),
                (Call(many + 0xF0, via=image.slot(NTDLL + 0x9D460), sets={"rbx": 2, "rdi": 0}),),
            ),
            Function(
                "WaitForSingleObjectEx",
                single,
                Frame(("rdi", "r14"), 0x68, {"rbx": 8, "rsi": 16}),
                (Call(single + 0x8E, via=image.slot(NTDLL + 0x9C980), sets={"r14": 0}),),
                version=2,
            ),
            Function(
                "SleepEx",
                sleep,
                Frame(("rsi", "rdi"), 0x58, {"rbx": 8}),
                (Call(sleep + 0x9E, via=image.slot(NTDLL + 0x9CF80), sets={"rsi": 0}),),
            ),
        ]

    def _runtime(self) -> list[Function]:
        start = UCRT + 0x21B70
        # mov rax,[rbx]: the thread's routine
        return [
            Function(
                "thread_start<unsigned int (__cdecl*)(void *),1>",
                start,
                Frame(("rbx",), 0x20),
                (Call(start + 0x42, via=b"\xff\xd0", code=bytes.fromhex("488bd9488b03")),),
            )
        ]

    def _throw(self) -> list[Function]:
        start = VCRUNTIME + 0x6480
        slot = self.images["VCRUNTIME140"].slot(KERNELBASE + 0x34E90)
        # lea r9,[rsp+28h]; mov r8d,4; mov edx,1; mov ecx,0E06D7363h
        code = bytes.fromhex("4c8d4c242841b804000000ba01000000b963736de0")
        return [
            Function(
                "_CxxThrowException",
                start,
                Frame(("rdi",), 0x50, {"rbx": 16, "rsi": 24}),
                (Call(start + 0x90, via=slot, code=code),),
            )
        ]
