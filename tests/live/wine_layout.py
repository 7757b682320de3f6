# SPDX-License-Identifier: Apache-2.0
"""Where Wine keeps what Windows keeps in the TEB, the PEB and the loader's entries, and Wine's own syscall frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Offsets in the TEB, PEB and loader entries of one pointer size, as published; the syscall frame's is Wine's."""

    pointer: str
    size: int
    teb_self: int
    teb_peb: int
    teb_client: int
    teb_syscall_frame: int
    peb_image_base: int
    peb_ldr: int
    peb_parameters: int
    peb_heap: int
    ldr_list: int
    entry_base: int
    entry_full_name: int
    entry_base_name: int
    entry_timestamp: int


X64 = Layout(
    pointer="<Q",
    size=8,
    teb_self=0x30,
    teb_peb=0x60,
    teb_client=0x40,
    teb_syscall_frame=0x328,
    peb_image_base=0x10,
    peb_ldr=0x18,
    peb_parameters=0x20,
    peb_heap=0x30,
    ldr_list=0x10,
    entry_base=0x30,
    entry_full_name=0x48,
    entry_base_name=0x58,
    entry_timestamp=0x80,
)


X86 = Layout(
    pointer="<I",
    size=4,
    teb_self=0x18,
    teb_peb=0x30,
    teb_client=0x20,
    teb_syscall_frame=0x1F8,
    peb_image_base=0x08,
    peb_ldr=0x0C,
    peb_parameters=0x10,
    peb_heap=0x18,
    ldr_list=0x0C,
    entry_base=0x18,
    entry_full_name=0x24,
    entry_base_name=0x2C,
    entry_timestamp=0x44,
)


FRAME_X64 = [
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "rbp",
]
