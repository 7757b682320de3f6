# SPDX-License-Identifier: Apache-2.0
"""Whether what .NET's runtime has called while an exception is dispatched is a filter, `catch (…) when (…)`."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.support import ready_to_run_image as r2r
from tests.support.managed_code import CODE, HEADER, compile_method, managed_code
from tests.support.managed_heap import APP, RUNTIME, ForgedRuntime
from tests.support.targets import make_target
from throwstack.core.frames import End, Walk
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.process_code import ManagedCode
from throwstack.names.symbols import Name, Symbols
from throwstack.stuck.managed_filter import managed_filter
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.target import Target

RUN = "Shop.Program.Run(String name, Int32 count)"
IN_RUNTIME, IN_APP = RUNTIME + 0x1500, APP + 0x500


def with_filter(process: ForgedRuntime) -> tuple[int, int]:
    """Compile Run with a filter: its body, and then its funclet. Return an address in each."""
    body = compile_method(process, process.types["Shop.Program"].methods["Run"])
    funclet, rva = body + 0x40, body - CODE
    head = struct.pack("<QQQQ", 0, 0, HEADER, process.types["Shop.Program"].methods["Run"])
    unwind = rva + 0x80
    process.place(HEADER, head + struct.pack("<7I", 2, rva, rva + 0x40, unwind, rva + 0x40, rva + 0x80, unwind))
    return body + 8, funclet + 8


def target_of(process: ForgedRuntime) -> Target:
    """Return the process as the search for stuck threads has it."""
    code, images = managed_code(process), process.images
    plain = make_target(Arch.X64, [], {}, {}, Walk((), End.THREAD_START))
    symbols = Symbols(images, name_outside=code.name_outside, compiled=code)
    outside = CodeOutside(images, None, [code])
    return replace(plain, memory=process.memory, images=images, symbols=symbols, outside=outside)


def asked(target: Target, *addresses: int) -> Name | None:
    """Return the filter of a stack with frames at `addresses`, from the handler inwards."""
    return managed_filter(target, [target.symbols.name(address) for address in addresses])


def test_a_funclet_that_the_runtime_has_called_is_the_filter_of_its_method() -> None:
    process = ForgedRuntime()
    body, funclet = with_filter(process)
    main = compile_method(process, process.types["Shop.Program"].methods["Main"], 1) + 8
    found = asked(target_of(process), IN_RUNTIME, IN_RUNTIME + 8, funclet, main)
    assert found is not None
    assert (found.module, found.symbol) == ("shop", RUN)
    assert asked(target_of(process), IN_RUNTIME, body, funclet) is None


@pytest.mark.parametrize("outermost", [(), (IN_APP,), (IN_APP, IN_RUNTIME), (IN_RUNTIME, IN_APP)])
def test_what_the_runtime_s_own_handler_has_not_called_is_none(outermost: tuple[int, ...]) -> None:
    process = ForgedRuntime()
    _, funclet = with_filter(process)
    assert asked(target_of(process), *outermost, funclet) is None


def test_a_filter_in_a_precompiled_image_is_one_too() -> None:
    """Main has the functions 0 and 1, its body and a funclet; the image's own .pdata has them as well."""
    process = ForgedRuntime()
    data = bytearray(r2r.image())
    sections = {kind: (rva, size) for kind, rva, size in struct.iter_unpack("<III", data[r2r.HEADER + 16 :][:36])}
    exception_directory = struct.unpack_from("<I", data, 0x3C)[0] + 24 + 112 + 8 * 3
    struct.pack_into("<II", data, exception_directory, *sections[102])
    process.place(r2r.BASE, bytes(data))
    modules = [*(image.module for image in process.images), Module("early.dll", "", r2r.BASE, len(data))]
    images = ImageMap(process.memory, ModuleMap(modules))
    code = ManagedCode(process.memory, images, None, lambda: process.threads)
    target = replace(target_of(process), images=images, symbols=Symbols(images, compiled=code))
    body, funclet = (r2r.BASE + r2r.function(number) + 4 for number in (0, 1))
    found = asked(target, IN_RUNTIME, funclet)
    assert found is not None
    assert found.symbol.startswith("Program.Main(")
    assert asked(target, IN_RUNTIME, body) is None


def test_a_handler_without_managed_frames_is_none() -> None:
    assert asked(target_of(ForgedRuntime()), IN_RUNTIME) is None
