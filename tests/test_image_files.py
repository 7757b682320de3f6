# SPDX-License-Identifier: Apache-2.0
"""Image files in the place of missing pages: found by identity, refused when it differs, named in the frame."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.scene import BASE, Scene
from throwstack.frames import End
from throwstack.image_files import ImageFiles
from throwstack.symbol_path import SymbolPath, parse_symbol_path

TIMESTAMP = 0x5F000000
PUSH_RBX_SUB_20 = b"\x53" + b"\x48\x83\xec\x20"
SECTIONS = 3


def file_of(image: bytes) -> bytes:
    """Return the file whose image this is: sections one after the other, as far from their RVAs as they come."""
    header = bytearray(image[:0x400])
    table = 0x80 + 24 + 240
    body = b""
    for number in range(SECTIONS):
        at = table + 40 * number
        size, rva = struct.unpack_from("<II", header, at + 8)
        struct.pack_into("<II", header, at + 16, (size + 0x1FF) & ~0x1FF, 0x400 + len(body))
        body += image[rva : rva + size].ljust((size + 0x1FF) & ~0x1FF, b"\0")
    return bytes(header) + body


def scene_without_unwind_data() -> tuple[Scene, bytes, Label, Label]:
    """Return a scene whose function table and unwind information are not in memory, and the file that has them."""
    info = asm.unwind_info([asm.alloc(5, 0x20), asm.push_nonvol(1, asm.RBX)], 5)
    scene = Scene(PUSH_RBX_SUB_20 + b"\x90" * 8, info)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(0x20).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    scene.missing += [BASE + 0x2000, BASE + 0x3000]
    return scene, file_of(scene.image()), sp, caller_sp


def files(directory: Path, messages: list[str]) -> ImageFiles:
    return ImageFiles(SymbolPath(parse_symbol_path(str(directory), directory), say=messages.append))


@pytest.mark.parametrize("layout", ["app.exe", "app.exe/{key}/app.exe", "APP.EXE"])
def test_missing_unwind_data_comes_from_the_file(tmp_path: Path, layout: str) -> None:
    scene, data, sp, caller_sp = scene_without_unwind_data()
    key = f"{TIMESTAMP:08X}{len(scene.image()):x}"
    path = tmp_path / layout.format(key=key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    scene.files = files(tmp_path, [])
    walk = scene.walk(rip=scene.callee + 5, rsp=sp)
    assert walk.end is End.THREAD_START
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    assert walk.frames[1].registers.gpr[asm.RBX] == 0x5A5A
    assert walk.frames[1].note == f"unwind data from the file {path.name}"


def test_memory_comes_first(tmp_path: Path) -> None:
    scene, _, sp, caller_sp = scene_without_unwind_data()
    scene.missing.clear()
    (tmp_path / "app.exe").write_bytes(b"MZ")
    scene.files = files(tmp_path, [])
    walk = scene.walk(rip=scene.callee + 5, rsp=sp)
    assert walk.frames[1].sp == int(caller_sp)
    assert walk.frames[1].note == ""


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0x80 + 8, 0x12345678, "another build: 12345678"),  # time stamp
        (0x80 + 24 + 56, 0x9000, "another build: 5F0000009000"),  # SizeOfImage
        (0x80, 0, "not an image"),
    ],
)
def test_file_of_another_build_is_refused(tmp_path: Path, offset: int, value: int, reason: str) -> None:
    scene, data, sp, _ = scene_without_unwind_data()
    other = bytearray(data)
    struct.pack_into("<I", other, offset, value)
    (tmp_path / "app.exe").write_bytes(other)
    messages: list[str] = []
    scene.files = files(tmp_path, messages)
    walk = scene.walk(rip=scene.callee + 5, rsp=sp)
    assert (walk.end, len(walk.frames)) == (End.UNREADABLE, 1)
    assert reason in messages[0]


def test_checksums_are_compared_where_both_have_one(tmp_path: Path) -> None:
    checksum = 0x80 + 24 + 64
    scene, data, sp, _ = scene_without_unwind_data()
    other = bytearray(data)
    struct.pack_into("<I", other, checksum, 0x1234)
    (tmp_path / "app.exe").write_bytes(other)
    scene.files = files(tmp_path, [])
    # The image in memory has none: nothing contradicts the file.
    assert scene.walk(rip=scene.callee + 5, rsp=sp).is_complete
    # The scene's image is laid out anew for each walk: give it another checksum.
    image = bytearray(scene.image())
    struct.pack_into("<I", image, checksum, 0x9999)
    scene.image = lambda: bytes(image)
    scene.files = files(tmp_path, messages := [])
    assert scene.walk(rip=scene.callee + 5, rsp=sp).end is End.UNREADABLE
    assert "checksum 1234" in messages[0]


def test_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    scene, data, sp, _ = scene_without_unwind_data()
    (tmp_path / "app.exe").write_bytes(data[:0x700])
    scene.files = files(tmp_path, [])
    walk = scene.walk(rip=scene.callee + 5, rsp=sp)
    assert (walk.end, len(walk.frames)) == (End.UNREADABLE, 1)


def test_code_of_an_epilogue_comes_from_the_file(tmp_path: Path) -> None:
    info = asm.unwind_info([asm.alloc(5, 0x20), asm.push_nonvol(1, asm.RBX)], 5)
    scene = Scene(PUSH_RBX_SUB_20 + b"\x48\x83\xc4\x20\x5b\xc3", info)
    caller_sp = Label()
    scene.stack.at(0x13F00).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    (tmp_path / "app.exe").write_bytes(file_of(scene.image()))
    scene.missing.append(BASE + asm.TEXT)
    scene.files = files(tmp_path, [])
    walk = scene.walk(rip=scene.callee + 10, rsp=0x13F00)
    assert walk.frames[1].sp == int(caller_sp)
    assert walk.is_complete
