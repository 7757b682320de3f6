# SPDX-License-Identifier: Apache-2.0
"""Opens an image without the `vol` command: directly if the kernel is known, else by Volatility's own search."""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import volatility3.symbols
from volatility3.framework import constants, contexts, exceptions, interfaces
from volatility3.framework.automagic import pdbscan, stacker, windows
from volatility3.framework.configuration import requirements
from volatility3.framework.layers import intel, physical
from volatility3.framework.symbols import native
from volatility3.framework.symbols import windows as windows_symbols
from volatility3.plugins.windows import pslist

from throwstack.core.errors import ThrowstackError
from throwstack.crashdump.header import DumpHeader
from throwstack.images.image import PdbIdentity
from throwstack.pages.page_tables import PagingMode
from throwstack.volatility.opening.dump_layer import CrashDumpLayer
from throwstack.volatility.opening.isf import isf_urls
from throwstack.volatility.opening.kernel_symbols import isf_cache

_LAYERS = {
    PagingMode.X64: intel.WindowsIntel32e,
    PagingMode.PAE: intel.WindowsIntelPAE,
    PagingMode.X86: intel.WindowsIntel,
}
_PATH = "throwstack"


class CannotOpen(ThrowstackError):
    """The image cannot be opened; the message says why."""


class BadSymbols(CannotOpen):
    """The ISF file cannot be used; the message says why."""


class BadPath(CannotOpen):
    """Volatility opens no file of this name; the message says what to do."""


def _location(path: Path) -> str:
    """Return the URL of a file, by which Volatility opens it; raises BadPath if it would open another file.

    Volatility reads the path out of the URL as UTF-8. Linux allows any bytes in names: `x` and the byte ff become a URL
    that ends in `x%ff`, out of which nobody reads the same name again.
    """
    whole = path.resolve()
    try:
        str(whole).encode()
    except UnicodeEncodeError as error:
        message = "its path is not UTF-8, and Volatility opens no such file: rename it"
        raise BadPath(message) from error
    return whole.as_uri()


@dataclass(frozen=True, slots=True, eq=False)
class _Settings:
    """Where one dump's symbols are looked for, and whether a server may be asked."""

    directories: tuple[str, ...]
    is_offline: bool


_in_force: list[_Settings] = []
_of_the_host: list[tuple[list[str], bool]] = []
"""Volatility's own settings from before the first dump was opened; empty while none is open."""


@contextlib.contextmanager
def symbol_directories(directories: Sequence[Path], *, is_offline: bool = True) -> Iterator[None]:
    """Let Volatility look for symbols in these directories first, then in its own, then in this user's cache.

    Volatility keeps these settings for the whole process. While several dumps are open, the directories of all of them
    are searched, in whatever order the dumps are closed. If `is_offline` holds for one of the open dumps, no server is
    asked for any of them. Raises CannotOpen if one of the paths cannot be that of a directory.
    """
    try:
        mine = _Settings(tuple(str(path.resolve()) for path in directories), is_offline)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"a directory of symbols cannot be used: {error}"
        raise CannotOpen(message) from error
    if not _in_force:
        _of_the_host.append((list(volatility3.symbols.__path__), constants.OFFLINE))
    _in_force.append(mine)
    try:
        _put_in_force()
        yield
    finally:
        _in_force.remove(mine)
        _put_in_force()
        if not _in_force:
            _of_the_host.clear()


def _put_in_force() -> None:
    path, is_offline = _of_the_host[0]
    if _in_force:
        given = dict.fromkeys(directory for settings in _in_force for directory in settings.directories)
        path = [*given, *constants.SYMBOL_BASEPATHS, str(isf_cache())]
        is_offline = is_offline or any(settings.is_offline for settings in _in_force)
    volatility3.symbols.__path__, constants.OFFLINE = path, is_offline


def find_isf(pdb: PdbIdentity) -> str | None:
    """Return the URL of the ISF file of a kernel's PDB, or None."""
    return next(isf_urls(pdb), None)


def open_crash_dump(
    path: Path, header: DumpHeader, kernel_base: int, isf: str, page_files: Sequence[Path] = ()
) -> tuple[interfaces.context.ContextInterface, str]:
    """Return a Volatility context with the dump, and the name of its kernel's module; raises CannotOpen or BadSymbols.

    `header` is the dump's header, and `kernel_base` is the address of the kernel's image. `isf` is the URL of the
    kernel's ISF file. `page_files` are in the order of their numbers.
    """
    context = contexts.Context()
    join = interfaces.configuration.path_join
    base, dump, space = join(_PATH, "file"), join(_PATH, "dump"), join(_PATH, "kernel")
    context.config[join(base, "location")] = _location(path)
    context.config[join(dump, "base_layer")] = "file"
    context.config[join(space, "memory_layer")] = "dump"
    context.config[join(space, "page_map_offset")] = header.directory_base
    context.config[join(space, "kernel_virtual_offset")] = kernel_base
    try:
        context.add_layer(physical.FileLayer(context, base, "file"))
        context.add_layer(CrashDumpLayer(context, dump, "dump"))
        for number, file in enumerate(page_files):
            name = f"swap_layers{number}"
            context.config[join(_PATH, name, "location")] = _location(file)
            context.add_layer(physical.FileLayer(context, join(_PATH, name), name))
            context.config[join(space, "swap_layers", name)] = name
        context.add_layer(_LAYERS[header.paging](context, space, "layer", metadata={"os": "Windows"}))
    except Exception as error:  # a compressed file has its own ways to say that it is damaged
        message = f"Volatility cannot open it: {error}"
        raise CannotOpen(message) from error
    return _with_symbols(context, "layer", kernel_base, isf)


def open_image(path: Path, page_files: Sequence[Path] = ()) -> tuple[interfaces.context.ContextInterface, str]:
    """Open an image and let Volatility search it for the kernel.

    Return Volatility's context and the name of the kernel's module. Raises CannotOpen. `page_files` are in the order of
    their numbers.

    The kernel's symbols are searched by `find_isf` and not by Volatility. Volatility keeps an index of symbol files
    that all runs of a user share, and each run removes from it the files that are in none of its own directories.
    Example: two runs have different `-s`. The second removes the first's table from the index. The first then finds no
    table, opens the file of that name to write a download into it, and deletes it when the download fails.
    """
    context = contexts.Context()
    join = interfaces.configuration.path_join
    settings = {
        "stacker.single_location": _location(path),
        "stacker.stackers": stacker.choose_os_stackers(pslist.PsList),
        "swap.single_swap_locations": [_location(file) for file in page_files],
    }
    for key, value in settings.items():
        context.config[join(_PATH, key)] = value
    image = requirements.MultiRequirement("image")
    image.add_requirement(requirements.TranslationLayerRequirement("layer", architectures=["Intel32", "Intel64"]))
    context.symbol_space.append(native.NativeTable("pdbscan", native.std_ctypes))  # the search's own
    try:
        stacker.LayerStacker(context, join(_PATH, "stacker"))(context, _PATH, image)
        windows.WinSwapLayers(context, join(_PATH, "swap"))(context, _PATH, image)
        layer = context.config.get(join(_PATH, "image", "layer"), None)
        search = pdbscan.KernelPDBScanner(context, join(_PATH, "search"))
        found = search.determine_valid_kernel(context, [layer]) if layer else None
    except Exception as error:  # what Volatility's own runs do: in a damaged image its search meets anything
        message = f"Volatility cannot open it: {error}"
        raise CannotOpen(message) from error
    if found is None:
        message = "Volatility finds no Windows kernel in it"
        raise CannotOpen(message)
    _, base, record = found
    pdb = PdbIdentity(record["pdb_name"], record["GUID"].upper(), record["age"])
    isf = find_isf(pdb)
    if isf is None:
        message = f"no symbols for the kernel Volatility finds: {pdb.name} {pdb.guid} age {pdb.age}"
        raise CannotOpen(message)
    return _with_symbols(context, layer, base, isf)


def _with_symbols(
    context: interfaces.context.ContextInterface, layer: str, base: int, isf: str
) -> tuple[interfaces.context.ContextInterface, str]:
    try:
        path = interfaces.configuration.path_join(_PATH, "symbols")
        context.symbol_space.append(windows_symbols.WindowsKernelIntermedSymbols(context, path, "symbols", isf_url=isf))
        return context, context.module("symbols", layer, base).name
    except _DAMAGED as error:
        message = f"the ISF file is damaged: {error}"
        raise BadSymbols(message) from error


_DAMAGED = (
    exceptions.VolatilityException,
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    RecursionError,
    MemoryError,
    lzma.LZMAError,
)
"""The exceptions that reading an ISF file raises if the file is damaged or is no ISF file."""
