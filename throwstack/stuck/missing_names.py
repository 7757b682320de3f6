# SPDX-License-Identifier: Apache-2.0
"""Finds modules in which triage cannot find the blocking functions by name, so that stuck threads may be missed.

A blocking function is one that a thread waits in after an unhandled exception. Triage finds it by its name. The name is
missing if pages of the export table are not in the dump, or if the exports were altered. Then a stuck thread looks like
any other, and the user has to be told.
"""

from __future__ import annotations

import re

from throwstack.images.image import Image
from throwstack.names.blockers import BlockerKind, triage_blockers, triage_blockers_in
from throwstack.names.symbols import SymbolKind, Symbols

_FILTER = next(blocker for blocker in triage_blockers() if blocker.kind is BlockerKind.UNHANDLED_FILTER)
"""The table's entry for UnhandledExceptionFilter, which every kernel32 exports."""
_JUMP, _STUB_SIZE = b"\xff\x25", 16
_STUB = re.compile(rb"(?:\x8b\xff)?(?:\x55\x8b\xec\x5d)?\x48?\xff\x25")
"""A jump through an import (`jmp [address]`). A REX prefix may come before it. On x86 so may `mov edi, edi` (room for a
hot patch) and `push ebp; mov ebp, esp; pop ebp`."""


def without_filter(symbols: Symbols) -> tuple[Image, ...]:
    """Return the images called kernel32 or KERNELBASE in which UnhandledExceptionFilter should be but is not found.

    A KERNELBASE without it is left out if kernel32 has the function itself. A kernel32 without it is left out if
    KERNELBASE has the function and all exports of kernel32 can be read.
    """
    images = [image for image in symbols.images if _FILTER in triage_blockers_in(image.module.label)]
    lacking = tuple(image for image in images if not _has_filter(symbols, image))
    if not lacking:
        return ()
    of_kernel32 = [image for image in images if image.module.label.lower() == "kernel32"]
    leads_on = any(_leads_on(symbols, image) for image in of_kernel32) or not of_kernel32
    is_in_base = any(image not in of_kernel32 and image not in lacking for image in images)
    return tuple(
        image
        for image in lacking
        # If KERNELBASE has the filter, threads wait there. A kernel32 whose exports can all be read then hides nobody.
        if (not (is_in_base and image.exports.is_whole and len(image.exports)) if image in of_kernel32 else leads_on)
    )


def _has_filter(symbols: Symbols, image: Image) -> bool:
    """Say whether `image` exports UnhandledExceptionFilter itself or as a forwarder to another module."""
    is_found = symbols.rva_of(image, _FILTER.symbol) is not None
    return is_found or any(export.name == _FILTER.symbol for export in image.exports)


def _leads_on(symbols: Symbols, kernel32: Image) -> bool:
    """Say whether UnhandledExceptionFilter in `kernel32` may be only a jump to the function of that name in KERNELBASE.

    On Windows 7 the function itself is in kernel32, and KERNELBASE need not have one. Since Windows 8 kernel32 only has
    a jump through an import (FF 25) to the function in KERNELBASE. If the code cannot be read, the result is True.
    """
    code = _code_of_filter(symbols, kernel32)
    return len(code) < _STUB_SIZE or _JUMP in code


def _code_of_filter(symbols: Symbols, kernel32: Image) -> bytes:
    """Return the first bytes of UnhandledExceptionFilter in `kernel32`, as many of the first 16 as can be read.

    The result is empty if the function is not found.
    """
    rva = symbols.rva_of(kernel32, _FILTER.symbol)
    return b"" if rva is None else kernel32.memory.read_available(kernel32.base + rva, _STUB_SIZE)


def _lacks_base(symbols: Symbols) -> bool:
    """Say whether kernel32 only jumps to KERNELBASE's UnhandledExceptionFilter, but no module is called KERNELBASE.

    If UnhandledExceptionFilter in kernel32 is only a jump through an import, KERNELBASE has the real function. A list
    of modules without KERNELBASE then means that its loader entry is damaged.
    """
    labels = {image.module.label.lower(): image for image in symbols.images}
    kernel32 = labels.get("kernel32")
    if kernel32 is None or "kernelbase" in labels:
        return False
    return _STUB.match(_code_of_filter(symbols, kernel32)) is not None


def missing_names(symbols: Symbols, *, may_lack_filter: bool = True) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels of modules that have no names at all, and reasons why other modules may lack some names.

    Only modules that can have functions in which stuck threads wait are examined. `may_lack_filter` is False if
    `without_filter` is known to find nothing.
    """
    nameless: list[str] = []
    reasons: list[str] = []
    lacking = without_filter(symbols) if may_lack_filter else ()
    if _lacks_base(symbols):
        reasons.append(f"no module is called KERNELBASE, to which {_FILTER.symbol} of kernel32 leads")
    for image in symbols.images:
        wanted = triage_blockers_in(image.module.label)
        if not wanted or (image.exports.is_whole and len(image.exports) and image not in lacking):
            continue
        label, found = image.module.label, [name for name in wanted if symbols.rva_of(image, name.symbol)]
        if any(blocker.proves_exception for blocker in wanted) and not len(image.exports) and not found:
            nameless.append(label)
        elif image in lacking:
            what = f"no export {_FILTER.symbol} can be found in {label}"
            reasons.append(f"{what}: threads that crashed and wait in it may be missed")
        else:
            lost = [one.symbol for one in wanted if one not in found and image.exports.may_lack(one.symbol)]
            if lost:
                why = "not all of its exports can be read"
                reasons.append(f"{label} may export {lost[0]}, in which stuck threads wait: {why}")
            elif not image.exports.has_all_starts and symbols.table(image).kind is SymbolKind.EXPORT:
                what = f"not all addresses of what {label} exports can be read"
                reasons.append(f"{what}, so that stuck threads may look like others")
    return tuple(nameless), tuple(reasons)
