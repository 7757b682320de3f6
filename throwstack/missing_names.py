# SPDX-License-Identifier: Apache-2.0
"""Where the names are missing by which stuck threads are found: absent pages of exports, or exports that were altered.

Triage knows a blocking function by its name. Where that name cannot be read a stuck thread looks like any other, so
that what may be missing has to be said.
"""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.blockers import BlockerKind, triage_blockers
from throwstack.images import Image
from throwstack.symbols import SymbolKind, Symbols

_FILTER = next(blocker for blocker in triage_blockers() if blocker.kind is BlockerKind.UNHANDLED_FILTER)
"""UnhandledExceptionFilter, which every kernel32 exports."""
_JUMP, _STUB_SIZE = b"\xff\x25", 16


def without_filter(symbols: Symbols) -> Iterator[Image]:
    """Yield each kernel32 and KERNELBASE in which UnhandledExceptionFilter, which it has, is not to be found."""
    images = [image for image in symbols.images if _FILTER.is_in(image.module.label)]
    of_kernel32 = [image for image in images if image.module.label.lower() == "kernel32"]
    leads_on = any(_leads_on(symbols, image) for image in of_kernel32) or not of_kernel32
    for image in images:
        if (image in of_kernel32 or leads_on) and not _has_filter(symbols, image):
            yield image


def _has_filter(symbols: Symbols, image: Image) -> bool:
    """Say whether `image` exports the filter, be it that it forwards it to another module."""
    is_found = symbols.rva_of(image, _FILTER.symbol) is not None
    return is_found or any(export.name == _FILTER.symbol for export in image.exports)


def _leads_on(symbols: Symbols, kernel32: Image) -> bool:
    """Say whether the filter may be that of KERNELBASE, which has one for certain only then.

    So it is since Windows 8, where kernel32 has a jump through an import (FF 25). Windows 7 has the filter in kernel32.
    """
    rva = symbols.rva_of(kernel32, _FILTER.symbol)
    code = b"" if rva is None else kernel32.memory.read_available(kernel32.base + rva, _STUB_SIZE)
    return len(code) < _STUB_SIZE or _JUMP in code


def nameless(symbols: Symbols) -> Iterator[str]:
    """Yield the modules in which crashed threads wait and no blocking function of which has a name."""
    for image in symbols.images:
        label = image.module.label
        wanted = [blocker for blocker in triage_blockers() if blocker.is_in(label)]
        if (
            any(blocker.proves_exception for blocker in wanted)
            and not len(image.exports)
            and not any(symbols.rva_of(image, blocker.symbol) for blocker in wanted)
        ):
            yield label


def missing_names(symbols: Symbols) -> Iterator[str]:
    """Yield, for every module whose blocking functions may not all be found, why; those of `nameless` left out."""
    lacking = {image.base for image in without_filter(symbols)}
    without_names = set(nameless(symbols))
    for image in symbols.images:
        label = image.module.label
        if label in without_names:
            continue
        if image.base in lacking:
            yield f"{label} does not export {_FILTER.symbol}, in which crashed threads wait, or not readably"
        elif not image.exports.is_whole:
            yield from _of_damaged(symbols, image)


def _of_damaged(symbols: Symbols, image: Image) -> Iterator[str]:
    label = image.module.label
    wanted = [blocker.symbol for blocker in triage_blockers() if blocker.is_in(label)]
    lost = [name for name in wanted if image.exports.may_lack(name) and symbols.rva_of(image, name) is None]
    if lost:
        yield f"{label} may export {lost[0]}, in which stuck threads wait: not all of its exports can be read"
    elif wanted and not image.exports.has_all_starts and symbols.table(image).kind is SymbolKind.EXPORT:
        yield f"not all addresses of what {label} exports can be read, so that stuck threads may look like others"
