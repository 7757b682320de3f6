# SPDX-License-Identifier: Apache-2.0
"""Opens an image without the `vol` command: at once where the kernel is known, else by Volatility's own search."""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

import volatility3.symbols
from volatility3.framework import automagic, constants, contexts, exceptions, interfaces, plugins
from volatility3.framework.layers import intel, physical
from volatility3.framework.symbols import intermed
from volatility3.framework.symbols import windows as windows_symbols
from volatility3.plugins.windows import pslist

from throwstack.crashdump.header import DumpHeader
from throwstack.images import PdbIdentity
from throwstack.paging import PagingMode
from throwstack.volatility.dump_layer import CrashDumpLayer

_LAYERS = {
    PagingMode.X64: intel.WindowsIntel32e,
    PagingMode.PAE: intel.WindowsIntelPAE,
    PagingMode.X86: intel.WindowsIntel,
}
_PATH = "throwstack"


class CannotOpen(Exception):
    """The image cannot be opened; the message says why."""


class BadSymbols(CannotOpen):
    """The ISF file cannot be used; the message says why."""


@contextlib.contextmanager
def symbol_directories(directories: Sequence[Path]) -> Iterator[None]:
    """Let Volatility look for symbols in these directories first, and nowhere on the network."""
    saved = volatility3.symbols.__path__, constants.OFFLINE
    volatility3.symbols.__path__ = [*(str(path.resolve()) for path in directories), *constants.SYMBOL_BASEPATHS]
    constants.OFFLINE = True
    try:
        yield
    finally:
        volatility3.symbols.__path__, constants.OFFLINE = saved


def find_isf(pdb: PdbIdentity) -> str | None:
    """Return the URL of the ISF file of a kernel's PDB, or None."""
    name = f"{pdb.name}/{pdb.guid}-{pdb.age}"
    found: str | None = next(iter(intermed.IntermediateSymbolTable.file_symbol_url("windows", name)), None)
    return found


def open_crash_dump(
    path: Path, header: DumpHeader, kernel_base: int, isf: str, page_files: Sequence[Path] = ()
) -> tuple[interfaces.context.ContextInterface, str]:
    """Return a context with the dump, and the name of its kernel module; raises CannotOpen or BadSymbols.

    `page_files` are in the order of their numbers.
    """
    context = contexts.Context()
    join = interfaces.configuration.path_join
    base, dump, space = join(_PATH, "file"), join(_PATH, "dump"), join(_PATH, "kernel")
    context.config[join(base, "location")] = path.resolve().as_uri()
    context.config[join(dump, "base_layer")] = "file"
    context.config[join(space, "memory_layer")] = "dump"
    context.config[join(space, "page_map_offset")] = header.directory_base
    context.config[join(space, "kernel_virtual_offset")] = kernel_base
    try:
        context.add_layer(physical.FileLayer(context, base, "file"))
        context.add_layer(CrashDumpLayer(context, dump, "dump"))
        for number, file in enumerate(page_files):
            name = f"swap_layers{number}"
            context.config[join(_PATH, name, "location")] = file.resolve().as_uri()
            context.add_layer(physical.FileLayer(context, join(_PATH, name), name))
            context.config[join(space, "swap_layers", name)] = name
        context.add_layer(_LAYERS[header.paging](context, space, "layer", metadata={"os": "Windows"}))
    except (exceptions.VolatilityException, OSError, ValueError, KeyError, TypeError) as error:
        message = f"Volatility cannot open it: {error}"
        raise CannotOpen(message) from error
    try:
        table = windows_symbols.WindowsKernelIntermedSymbols(context, join(space, "symbols"), "symbols", isf_url=isf)
    except (
        exceptions.VolatilityException,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        lzma.LZMAError,
    ) as error:
        message = f"the ISF file is damaged: {error}"
        raise BadSymbols(message) from error
    context.symbol_space.append(table)
    return context, context.module("symbols", "layer", kernel_base).name


def open_image(path: Path, page_files: Sequence[Path] = ()) -> tuple[interfaces.context.ContextInterface, str]:
    """Return a context with an image that Volatility's automagic has opened, and its kernel module's name."""
    context = contexts.Context()
    context.config["automagic.LayerStacker.single_location"] = path.resolve().as_uri()
    if page_files:
        locations = [file.resolve().as_uri() for file in page_files]
        context.config["automagic.WinSwapLayers.single_swap_locations"] = locations
    chosen = automagic.choose_automagic(automagic.available(context), pslist.PsList)
    try:
        plugin = plugins.construct_plugin(context, chosen, pslist.PsList, "plugins", lambda *_: None, None)
    except exceptions.UnsatisfiedException as error:
        message = f"Volatility finds no Windows kernel in it: {', '.join(error.unsatisfied)}"
        raise CannotOpen(message) from error
    name: str = plugin.config["kernel"]
    return context, name
