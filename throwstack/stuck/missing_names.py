# SPDX-License-Identifier: Apache-2.0
"""Where the names are missing by which stuck threads are found: absent pages of exports, or exports that were altered.

Triage knows a blocking function by its name. Where that name cannot be read a stuck thread looks like any other, so
that what may be missing has to be said.
"""

from __future__ import annotations

import re

from throwstack.images.image import Image
from throwstack.names.blockers import BlockerKind, triage_blockers, triage_blockers_in
from throwstack.names.symbols import SymbolKind, Symbols

_FILTER = next(blocker for blocker in triage_blockers() if blocker.kind is BlockerKind.UNHANDLED_FILTER)
"""UnhandledExceptionFilter, which every kernel32 exports."""
_JUMP, _STUB_SIZE = b"\xff\x25", 16
_STUB = re.compile(rb"(?:\x8b\xff)?(?:\x55\x8b\xec\x5d)?\x48?\xff\x25")
"""A jump through an import: bare, with a REX prefix, or after the hot patch's room and a frame that is left at once."""


def without_filter(symbols: Symbols) -> tuple[Image, ...]:
    """Return each kernel32 and KERNELBASE in which UnhandledExceptionFilter, which it has, is not to be found."""
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
        # Where KERNELBASE has the filter, threads wait there: a kernel32 all of whose exports can be read hides nobody.
        if (not (is_in_base and image.exports.is_whole and len(image.exports)) if image in of_kernel32 else leads_on)
    )


def _has_filter(symbols: Symbols, image: Image) -> bool:
    """Say whether `image` exports the filter, be it that it forwards it to another module."""
    is_found = symbols.rva_of(image, _FILTER.symbol) is not None
    return is_found or any(export.name == _FILTER.symbol for export in image.exports)


def _leads_on(symbols: Symbols, kernel32: Image) -> bool:
    """Say whether the filter may be that of KERNELBASE, which has one for certain only then.

    So it is since Windows 8, where kernel32 has a jump through an import (FF 25). Windows 7 has the filter in kernel32.
    """
    code = _code_of_filter(symbols, kernel32)
    return len(code) < _STUB_SIZE or _JUMP in code


def _code_of_filter(symbols: Symbols, kernel32: Image) -> bytes:
    """Return the first bytes of the filter, as far as they can be read; none where it is not found."""
    rva = symbols.rva_of(kernel32, _FILTER.symbol)
    return b"" if rva is None else kernel32.memory.read_available(kernel32.base + rva, _STUB_SIZE)


def _lacks_base(symbols: Symbols) -> bool:
    """Say whether kernel32's filter leads to KERNELBASE and no module has that name: its loader entry is damaged."""
    labels = {image.module.label.lower(): image for image in symbols.images}
    kernel32 = labels.get("kernel32")
    if kernel32 is None or "kernelbase" in labels:
        return False
    return _STUB.match(_code_of_filter(symbols, kernel32)) is not None


def missing_names(symbols: Symbols) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules in which crashed threads wait and no function of which has a name, and reasons for others.

    A reason says of a module whose blocking functions may not all be found why that is.
    """
    nameless: list[str] = []
    reasons: list[str] = []
    lacking = without_filter(symbols)
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
            reasons.append(f"{label} does not export {_FILTER.symbol}, in which crashed threads wait, or not readably")
        else:
            lost = [one.symbol for one in wanted if one not in found and image.exports.may_lack(one.symbol)]
            if lost:
                why = "not all of its exports can be read"
                reasons.append(f"{label} may export {lost[0]}, in which stuck threads wait: {why}")
            elif not image.exports.has_all_starts and symbols.table(image).kind is SymbolKind.EXPORT:
                what = f"not all addresses of what {label} exports can be read"
                reasons.append(f"{what}, so that stuck threads may look like others")
    return tuple(nameless), tuple(reasons)
