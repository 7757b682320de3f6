# SPDX-License-Identifier: Apache-2.0
"""Walks over x64 images whose unwind data or headers are damaged or missing; the loader's list of function tables."""

from __future__ import annotations

import struct

import pefile
import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX
from tests.unwind.x64.scene import BASE, BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, STACK, Scene, named
from throwstack.core.frames import End, Trust, Walk
from throwstack.core.memory import Memory, SegmentSource
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64 import InvertedTable, Unwinder


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (bytes([3, 0, 0, 0]), "version 3"),
        (bytes([1, 0, 1, 0, 0, 0x0B]), "code 11"),
        (bytes([1, 0, 2, 0, 0, 0x07, 0, 0]), "SPARE without its operand"),
        (bytes([1, 0, 1, 0, 0, 0x01]), "without its operand"),
        (bytes([1, 0, 1, 0, 0, 0x21]), "ALLOC_LARGE of form 2"),
        (bytes([1, 0, 1, 0, 0, 0x03]), "SET_FPREG"),
        (asm.unwind_info([], chained=(0x2000, 0x1000, 0x3000)), "chained"),
    ],
)
def test_unwind_data_that_cannot_be(info: bytes, words: str) -> None:
    scene = Scene(BODY, info)
    scene.stack.at(0x13F00).d64(scene.return_address)
    walk = scene.walk(rip=scene.callee, rsp=0x13F00)
    assert (walk.end, len(walk.frames)) == (End.BAD_UNWIND_DATA, 1)
    assert words in walk.detail


def test_chain_that_leads_back_to_itself() -> None:
    scene = Scene(BODY, asm.unwind_info([], chained=(asm.TEXT, asm.TEXT + 8, 0)))
    scene.image()
    (entry,) = [found for found in scene.table.entries if found[0] == asm.TEXT]
    scene._entries[-1] = (*scene._entries[-1][:2], asm.unwind_info([], chained=entry))
    walk = scene.walk(rip=scene.callee, rsp=0x13F00)
    assert walk.end is End.BAD_UNWIND_DATA
    assert "32 entries" in walk.detail


def test_page_of_unwind_information_that_is_not_there() -> None:
    scene = Scene(BODY, asm.unwind_info([asm.alloc(0, 8)]))
    scene.missing.append(BASE + 0x2000)
    walk = scene.walk(rip=scene.callee, rsp=0x13F00)
    assert (walk.end, len(walk.frames)) == (End.UNREADABLE, 1)
    assert walk.detail.startswith("unwind data of app.exe at 0x7ff700002")


def test_absent_headers_end_the_walk() -> None:
    scene = Scene(BODY, asm.unwind_info([asm.alloc(0, 8)]))
    scene.missing.append(BASE)
    walk = scene.walk(rip=scene.callee, rsp=0x13F00)
    assert (walk.end, walk.detail) == (End.UNREADABLE, f"headers of app.exe at {BASE:#x}")


def inverted_table(*entries: tuple[int, ...], count: int | None = None) -> bytes:
    """KiUserInvertedFunctionTable: CurrentSize, MaximumSize, Epoch, Overflow; FunctionTable, ImageBase, sizes."""
    head = struct.pack("<4I", len(entries) if count is None else count, 0x200, 7, 0)
    return head + b"".join(struct.pack("<QQII", *entry) for entry in entries)


LISTED = 0x7FFA00001000


def walk_without_headers(scene: Scene, table: bytes) -> Walk:
    image = scene.image()
    source = SegmentSource({BASE: image, STACK.limit: scene.stack.data(), LISTED: table})

    class Headless:
        def page(self, address: int) -> bytes | None:
            return None if address == BASE else source.page(address)

    memory = Memory(Headless())
    images = ImageMap(memory, ModuleMap([Module(scene.name, "", BASE, len(image))]))
    unwinder = Unwinder(images, inverted=InvertedTable(memory, lambda: LISTED))
    return unwinder.walk(named(rip=scene.callee + 6, rsp=0x13F00, rbx=0xBAD), STACK)


def headless_scene() -> tuple[Scene, int, int]:
    """A callee that saved rbx; where its image's function table lies, and the table's size."""
    scene, sp = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO), Label()
    scene.stack.at(0x13F00).zeros(0x20).d64(0x5A5A, scene.return_address)
    scene.caller_frame(sp)
    headers = pefile.PE(data=scene.image(), fast_load=True)
    directory = headers.OPTIONAL_HEADER.DATA_DIRECTORY[3]
    return scene, BASE + directory.VirtualAddress, directory.Size


def test_without_headers_the_loader_s_list_leads_to_the_function_table() -> None:
    scene, table, size = headless_scene()
    walk = walk_without_headers(scene, inverted_table((LISTED, LISTED, 0x1000, 12), (table, BASE, 0x10000, size)))
    assert [frame.ip for frame in walk.frames] == [scene.callee + 6, scene.return_address]
    assert walk.frames[1].registers.gpr[RBX] == 0x5A5A
    assert walk.frames[1].trust is Trust.CFI
    assert walk.frames[1].note == "app.exe has no readable headers: unwind data found by the loader's list"
    assert walk.end is End.THREAD_START


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"base": BASE + 0x1000}, id="another module's"),
        pytest.param({"size": 13}, id="no whole number of entries"),
        pytest.param({"size": 12 << 20}, id="longer than the image"),
        pytest.param({"table": LISTED}, id="outside the image"),
        pytest.param({"table": 0, "size": 0}, id="none"),
    ],
)
def test_an_entry_that_cannot_be_the_image_s_is_not_believed(changes: dict[str, int]) -> None:
    scene, table, size = headless_scene()
    entry = {"table": table, "base": BASE, "image": 0x10000, "size": size} | changes
    walk = walk_without_headers(scene, inverted_table(tuple(entry.values()), count=0xFFFFFFFF))
    assert {frame.trust for frame in walk.frames[1:]} <= {Trust.SCAN, Trust.PROLOGUE}
    assert walk.detail == f"frames may be missing: headers of app.exe at {BASE:#x} not readable"
    assert not walk.is_complete


def test_past_a_module_without_any_unwind_data_a_frame_pointer_or_a_scan_is_tried_and_labelled() -> None:
    """The code of app.exe is in the dump, but neither its headers nor its function table."""
    for has_frame_pointer, trust in ((True, Trust.FRAME_POINTER), (False, Trust.SCAN)):
        scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
        scene.missing.append(BASE)
        fp, caller_sp = Label(), Label()
        scene.stack.at(0x13F00).zeros(0x20).mark(fp).d64(0xB9, scene.return_address)
        scene.caller_frame(caller_sp)
        walk = scene.walk(rip=scene.callee + 5, rsp=0x13F00, rbp=fp if has_frame_pointer else 0)
        assert [(frame.ip, frame.sp) for frame in walk.frames][:2] == [
            (scene.callee + 5, 0x13F00),
            (scene.return_address, int(caller_sp)),
        ]
        assert (walk.frames[1].trust, walk.frames[1].note) == (trust, f"not readable: headers of app.exe at {BASE:#x}")
        assert not walk.is_complete


def test_past_a_module_without_any_unwind_data_code_is_followed_to_its_return() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + bytes.fromhex("90 4883c420 5b c3"), PUSH_RBX_SUB_20_INFO)
    scene.missing.append(BASE)
    caller_sp = Label()
    scene.stack.at(0x13F00).zeros(0x20).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 5, rsp=0x13F00, rbx=0xBAD)
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    assert walk.frames[1].registers.gpr[RBX] == 0x5A5A
    assert walk.frames[1].trust is Trust.PROLOGUE
    assert walk.is_complete
