# SPDX-License-Identifier: Apache-2.0
"""The parts of a mapped image that a mutation may aim at: headers, exports, unwind data, code."""

from __future__ import annotations

from collections.abc import Iterator

import pefile

from throwstack.names.blockers import blockers

_EXPORTS, _EXCEPTIONS, _DEBUG = 0, 3, 6
_TELLING = frozenset(blocker.symbol for blocker in blockers()) | {"KiUserExceptionDispatcher", "RtlRaiseException"}
"""Exports by which a stuck thread is known."""


def image_parts(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield (category, RVA, size); none of what is no image."""
    try:
        image = pefile.PE(data=data, fast_load=True)
    except pefile.PEFormatError:
        return
    header = image.DOS_HEADER.e_lfanew
    optional = image.OPTIONAL_HEADER
    sections = header + 0x18 + image.FILE_HEADER.SizeOfOptionalHeader
    yield "image headers", 0x3C, 4
    yield "image headers", header, 0x18
    yield "image headers", header + 0x18, sections - header - 0x18
    yield "image headers", sections, 40 * image.FILE_HEADER.NumberOfSections
    for number, find in ((_EXPORTS, _exports), (_EXCEPTIONS, _unwind_data), (_DEBUG, _debug_records)):
        if number < len(optional.DATA_DIRECTORY) and optional.DATA_DIRECTORY[number].VirtualAddress:
            place = optional.DATA_DIRECTORY[number]
            yield from find(data, place.VirtualAddress, place.Size)
    for section in image.sections:
        if section.Characteristics & 0x20000000:
            yield "code", section.VirtualAddress, min(section.Misc_VirtualSize, 0x4000)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _exports(data: bytes, start: int, size: int) -> Iterator[tuple[str, int, int]]:
    functions, names, addresses, texts, ordinals = (_word(data, start + at) for at in (20, 24, 28, 32, 36))
    yield "exports", start, size
    yield "exports", start, 40
    yield "exports", addresses, 4 * min(functions, 1024)
    yield "exports", texts, 4 * min(names, 1024)
    yield "exports", ordinals, 2 * min(names, 1024)
    for index, number, text, name in _telling(data, start):
        for at, width in ((addresses + 4 * number, 4), (texts + 4 * index, 4), (ordinals + 2 * index, 2)):
            yield "exports", at, width
        yield "exports", text, len(name)


def _telling(data: bytes, start: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (index of the name, ordinal, RVA of the name, name) of exports by which a stuck thread is known."""
    names, texts, ordinals = (_word(data, start + at) for at in (24, 32, 36))
    for index in range(min(names, 1024)):
        text = _word(data, texts + 4 * index)
        name = data[text : text + 64].split(b"\0")[0]
        if name.decode("latin-1") in _TELLING:
            yield index, int.from_bytes(data[ordinals + 2 * index : ordinals + 2 * index + 2], "little"), text, name


def telling_functions(data: bytes) -> Iterator[int]:
    """Yield the RVAs of the exports of an image by which a stuck thread is known."""
    try:
        place = pefile.PE(data=data, fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[_EXPORTS]
    except (pefile.PEFormatError, IndexError):
        return
    if place.VirtualAddress:
        addresses = _word(data, place.VirtualAddress + 28)
        for _, number, _, _ in _telling(data, place.VirtualAddress):
            yield _word(data, addresses + 4 * number)


def _unwind_data(data: bytes, start: int, size: int) -> Iterator[tuple[str, int, int]]:
    yield "unwind data", start, size
    for at in range(start, start + size - 11, 12):
        info = _word(data, at + 8)
        if 0 < info < len(data):
            yield "unwind data", info, 4 + 2 * data[info + 2] + 12


def _debug_records(data: bytes, start: int, size: int) -> Iterator[tuple[str, int, int]]:
    yield "image headers", start, size
    yield "image headers", _word(data, start + 20), 64
