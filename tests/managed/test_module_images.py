# SPDX-License-Identifier: Apache-2.0
"""From Modules to images: in the loader's list or in no list, laid out or flat, and not the wrong one."""

from __future__ import annotations

import struct

import pytest

from tests.support.managed_heap import APP, CORELIB, STRUCTURES, ForgedRuntime, Style
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.runtime import Runtime

ELSEWHERE = 0x38000000


def thrown(process: ForgedRuntime) -> ManagedException:
    """Return the exception of a thread, where the loader's list lacks the program's image."""
    process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    listed = ModuleMap(module for module in process.images.modules if module.base != APP)
    runtime = Runtime.find(process.memory, ImageMap(process.memory, listed), process.threads)
    assert runtime is not None
    found = runtime.exception_of(0x14)
    assert found is not None
    return found


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("style", [Style.CONTRACT, Style.ABSOLUTE, Style.RELATIVE])
@pytest.mark.parametrize("is_flat", [False, True])
def test_an_image_in_no_list_is_found_laid_out_or_flat(style: Style, arch: Arch, is_flat: bool) -> None:
    """As in a single-file application, whose DLLs are parts of its EXE."""
    process = ForgedRuntime(style, arch)
    layout = process.loaded_layout(APP)
    process.place(ELSEWHERE, process.files[APP] if is_flat else process.memory.read_available(APP, 0x4000))
    process.word(layout + process.size, ELSEWHERE)
    process.place(layout + 0x14, struct.pack("<I", 0 if is_flat else 1))
    process.place(APP, bytes(0x4000))
    assert thrown(process).type_name == "Shop.OrderException"


@pytest.mark.parametrize("style", [Style.ABSOLUTE, Style.RELATIVE])
def test_of_several_images_near_a_module_that_of_its_types_is_taken(style: Style) -> None:
    process = ForgedRuntime(style)
    module = int.from_bytes(process.memory.read(process.types["Shop.OrderException"].method_table + 0x18, 8), "little")
    if style is Style.RELATIVE:
        module = process.types["Shop.OrderException"].method_table + 0x18 + module & 0xFFFFFFFFFFFFFFFF
    other = process.allocate(STRUCTURES, 0x100)
    process.word(other, CORELIB)
    process.word(module, other)
    found = process.thrown(process.exception("Shop.OrderException", "no stock"))
    assert (found.type_name, found.bases) == ("Shop.OrderException", ("System.Exception", "System.Object"))


@pytest.mark.parametrize("style", [Style.CONTRACT, Style.ABSOLUTE])
def test_a_type_whose_image_cannot_be_read_is_not_looked_up_in_another_one(style: Style) -> None:
    """The type has no method that could show that a row is its own. The library has a type in the same row too."""
    process = ForgedRuntime(style)
    thrown = process.exception("Shop.OrderException", "no stock")
    table = process.types["Shop.OrderException"].method_table
    process.word(process.memory.pointer(table + 0x28, 8) + 0x20, 0)
    for page in [page for page in process.pages if APP <= page < APP + 0x8000]:
        del process.pages[page]
    other = process.allocate(STRUCTURES, 0x100)
    process.word(other, CORELIB)
    process.word(process.memory.pointer(table + 0x18, 8), other)
    found = process.thrown(thrown)
    assert (found.type_name, found.message) == ("", "no stock")
    assert (
        f"class not readable: the headers of the image at {APP:#x} are not readable at {APP + 0x3C:#x}" in found.reasons
    )


@pytest.mark.parametrize("arch", Arch)
def test_a_module_inside_an_image_is_that_image_s(arch: Arch) -> None:
    """As in images that NGEN compiled."""
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    process.place(APP + 0x7000, bytes(0x40))
    at = 0x18 if arch is Arch.X64 else 0x14
    for kind in process.types.values():
        if kind.name.startswith("Shop."):
            process.word(kind.method_table + at, APP + 0x7000)
    found = process.thrown(process.exception("Shop.OrderException", "no stock"))
    assert found.type_name == "Shop.OrderException"


def test_an_instantiation_over_another_assembly_s_type_has_its_module_in_a_slot() -> None:
    """Its own word names the loader's module, whose metadata have another type in that row."""
    process = ForgedRuntime(Style.ABSOLUTE)
    order = process.types["Shop.OrderException"].method_table
    program = process.types["Shop.Program"].method_table
    own = process.memory.u64(order + 0x18)
    process.word(order + 0x18, process.memory.u64(process.types["System.Object"].method_table + 0x18))
    process.word(order + 0x58, own)
    runtime = process.runtime()
    assert runtime.methods.at(process.types["Shop.Program"].methods["Main"]) is not None
    assert process.memory.u64(program + 0x18) == own
    process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    runtime = process.runtime()
    assert runtime.methods.at(process.types["Shop.Program"].methods["Main"]) is not None
    found = runtime.exception_of(0x14)
    assert found is not None
    assert found.type_name == "Shop.OrderException"
