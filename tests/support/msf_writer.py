# SPDX-License-Identifier: Apache-2.0
"""Writes MSF files, the container of PDBs: numbered streams in blocks. Follows LLVM's description of the format."""

from __future__ import annotations

import struct

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"


def write_msf(streams: list[bytes], block_size: int = 4096) -> bytes:
    """Return an MSF file that holds `streams`, one after another."""
    blocks: dict[int, bytes] = {}
    following = 3

    def put(data: bytes) -> list[int]:
        nonlocal following
        numbers = []
        for start in range(0, len(data), block_size):
            while following % block_size in (1, 2):  # the free block maps of each stretch of the file
                following += 1
            blocks[following] = data[start : start + block_size]
            numbers.append(following)
            following += 1
        return numbers

    lists = [put(stream) for stream in streams]
    words = [len(streams), *(len(stream) for stream in streams), *(number for numbers in lists for number in numbers)]
    directory = struct.pack(f"<{len(words)}I", *words)
    directory_blocks = put(directory)
    map_blocks = put(struct.pack(f"<{len(directory_blocks)}I", *directory_blocks))
    if len(map_blocks) != 1:
        message = "the directory's block list has to fit into one block"
        raise ValueError(message)
    count = following
    blocks[0] = _MAGIC + struct.pack("<IIIIII", block_size, 1, count, len(directory), 0, map_blocks[0])
    free = bytearray(-(-count // 8))
    if count % 8:
        free[-1] = 0xFF << count % 8 & 0xFF
    for index in range(0, len(free), block_size):
        blocks[1 + index] = bytes(free[index : index + block_size]).ljust(block_size, b"\xff")
    out = bytearray(count * block_size)
    for number, data in blocks.items():
        if number < count:
            out[number * block_size : number * block_size + len(data)] = data
    return bytes(out)
