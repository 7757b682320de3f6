# SPDX-License-Identifier: Apache-2.0
"""The program of `service-x64`: functions with many forms of prologue, and a C++ exception class to throw."""

from __future__ import annotations

import struct

from tests.forge.cases.windows_x64 import KERNELBASE, VCRUNTIME, System
from tests.forge.functions_x64 import Call, Frame, Function, add_chkstk
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pe_format import AMD64

PROGRAM_BASE = 0x7FF6A1C30000
WHAT = b"configuration value 'listen_port' is missing"
TYPES = (b".?AVconfig_error@ledger@@", b".?AVruntime_error@std@@", b".?AVexception@std@@")
WHAT_AT = 0x1240
"""Where on the heap the message is."""


class Program:
    """The image, its functions by name, and what its exception class is made of."""

    def __init__(self, name: str, system: System) -> None:
        """Build it against the DLLs of `system`."""
        self.image = image = ImageBuilder(
            name,
            PROGRAM_BASE,
            0x20000,
            0x4000,
            0x2000,
            AMD64,
            pdb_of(name),
            0x603F9A11,
            "\\Program Files\\Ledger",
            PROGRAM_BASE + 0x1200,
            has_isf=True,
        )
        heap = bytearray(0x2000)
        heap[WHAT_AT : WHAT_AT + len(WHAT)] = WHAT
        heap[0x1800:0x1808] = (PROGRAM_BASE + 0x5A10).to_bytes(8, "little")
        self.heap = bytes(heap)
        self.vftable = image.place_data(struct.pack("<QQ", PROGRAM_BASE + 0x1300, PROGRAM_BASE + 0x1300))
        self.throw_info = self._throw_info()
        chkstk = add_chkstk(image)
        image.code(PROGRAM_BASE + 0x1200, bytes.fromhex("33c0c3"))
        image.code(PROGRAM_BASE + 0x1300, bytes.fromhex("488bc1c3"))
        self.functions = {function.name: function.put(image, chkstk) for function in self._functions(system)}
        image.name_function("ledger::Parser::Require$cold", PROGRAM_BASE + 0x1F200)

    def __getitem__(self, name: str) -> Function:
        """Return a function by name."""
        return self.functions[name]

    def _throw_info(self) -> int:
        image = self.image

        def rva(address: int) -> int:
            return address - image.base

        descriptors = [
            image.place_data(struct.pack("<QQ", VCRUNTIME + 0x8010, 0) + name + b"\0", writable=True) for name in TYPES
        ]
        catchables = [
            # properties, type, mdisp, pdisp, vdisp, size, copy constructor
            image.place_data(struct.pack("<IIiiiII", 0, rva(descriptor), 0, -1, 0, 0x18, 0x1300))
            for descriptor in descriptors
        ]
        array = image.place_data(struct.pack("<I3I", 3, *map(rva, catchables)))
        return image.place_data(struct.pack("<IIII", 0, 0x1300, 0, rva(array)))

    def _functions(self, system: System) -> list[Function]:
        image = self.image

        def at(rva: int) -> int:
            return PROGRAM_BASE + rva

        throw = image.slot(system["_CxxThrowException"].start)
        sleep, wait = image.slot(KERNELBASE + 0x3B5B0), image.slot(KERNELBASE + 0x30FF0)
        saved = {"rbx": 8, "rsi": 16}
        return [
            Function(
                "ledger::Worker::Run",
                at(0x5A10),
                Frame(("rdi",), 0x30, saved),
                (Call(at(0x5AAC), at(0x6120), sets={"rbx": 0x1F4A2C00040, "rdi": 7}),),
            ),
            # alloca: rsp moves in the body, rbp leads back
            Function(
                "ledger::Importer::ImportFile",
                at(0x6120),
                Frame(("rbp", "rbx", "rsi", "rdi", "r12"), 0x90, frame_register=("rbp", 0x20), dynamic=0x150),
                (Call(at(0x62B7), at(0x74C0), sets={"rbx": 0x1F4A2C00200, "rsi": 3, "r12": 0x1F4A2C00300}),),
            ),
            # more than a page
            Function(
                "ledger::Parser::ParseRecord",
                at(0x74C0),
                Frame(("rbx", "rbp", "rsi", "rdi", "r14", "r15"), 0x2058),
                (Call(at(0x76E2), at(0x7B80), sets={"rbp": 0x2C, "r14": 0x1F4A2C01000, "r15": 0}),),
            ),
            # what throws is in a part of its own, whose unwind data leads to the parent's
            Function(
                "ledger::Parser::Require",
                at(0x7B80),
                Frame(("rdi",), 0x60, {"rbx": 8}),
                cold=(
                    at(0x1F200),
                    (
                        # lea rdx,[ThrowInfo]; lea rcx,[rsp+20h]
                        Call(
                            at(0x1F240),
                            via=throw,
                            sets={"rbx": 0x1F4A2C01100, "rdi": 0},
                            code=b"\x48\x8d\x15"
                            + struct.pack("<i", self.throw_info - at(0x1F240 - 6 - 5))
                            + bytes.fromhex("488d4c2420"),
                        ),
                    ),
                ),
            ),
            Function(
                "ledger::Reader::Loop",
                at(0x8800),
                Frame(("rdi", "r14", "r15"), 0x20, {**saved, "rbp": 24}),
                (Call(at(0x88D1), at(0x8C00), sets={"rbx": 1, "rbp": 0x1F4A2C00500, "r14": 0x1F4A2C00600}),),
            ),
            # more than 64 KB
            Function("ledger::Cache::Refresh", at(0x8C00), Frame(allocation=0x12348), (Call(at(0x8D9A), at(0x9200)),)),
            Function(
                "ledger::Cache::Lookup",
                at(0x9200),
                Frame(("rbx",), 0x60, saves={"rsi": 0x38}, xmm={6: 0x40, 7: 0x50}),
                (Call(at(0x92B3), at(0x9700), sets={"rbx": 0x1F4A2C00700, "rsi": 0x18}),),
                version=2,
            ),
            # mov eax,811C9DC5h; movzx r8d,byte ptr [rcx]; xor eax,r8d; ret
            Function("ledger::hash_bytes", at(0x9700), is_leaf=True, code=bytes.fromhex("b8c59d1c81440fb6014133c0c3")),
            Function(
                "ledger::Timer::Loop",
                at(0xA100),
                Frame(("rbx",), 0x30),
                (Call(at(0xA166), via=sleep, sets={"rbx": 0x3E8}),),
            ),
            Function(
                "ledger::Service::Main",
                at(0xA400),
                Frame(("rdi",), 0x40, saved),
                (Call(at(0xA4F2), via=wait, sets={"rbx": 0x1A4, "rdi": 1}),),
            ),
        ]
