# SPDX-License-Identifier: Apache-2.0
"""Writes EXCEPTION_RECORDs and CONTEXTs onto x86 stacks."""

from __future__ import annotations

import struct

from tests.forge.stacks import Label, Stack
from tests.support.context_records import x86_context

CONTEXT_IP, CONTEXT_SP = 0x77E4BEE7, 0x045BAB64


def put_record(
    stack: Stack, address: int, mark: Label, *, code: int = 0xE06D7363, flags: int = 1, parameters: int = 0
) -> None:
    stack.at(address).mark(mark).d32(code, flags, 0, CONTEXT_IP, parameters)


def put_context(stack: Stack, address: int, mark: Label, **fields: int) -> None:
    """Write a CONTEXT whose eip and esp are those above (other members: see `x86_context`)."""
    data = bytearray(x86_context(**{key: value for key, value in fields.items() if key in {"flags", "cs", "ss"}}))
    struct.pack_into("<I", data, 0xB8, fields.get("eip", CONTEXT_IP))
    struct.pack_into("<I", data, 0xC4, fields.get("esp", CONTEXT_SP))
    stack.at(address).mark(mark).raw(bytes(data))
