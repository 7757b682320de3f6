# SPDX-License-Identifier: Apache-2.0
"""The parts of a mapped image that a mutation may aim at: headers, exports, unwind data, code."""

from __future__ import annotations

from collections.abc import Iterator

import pefile

_EXPORTS, _EXCEPTIONS, _DEBUG = 0, 3, 6


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
    directories = optional.DATA_DIRECTORY
    for number, category in ((_EXPORTS, "exports"), (_EXCEPTIONS, "unwind data"), (_DEBUG, "image headers")):
        if number < len(directories) and directories[number].VirtualAddress:
            start, size = directories[number].VirtualAddress, directories[number].Size
            yield category, start, size
            if number == _EXPORTS:
                yield category, start, 40
                words = [int.from_bytes(data[start + at : start + at + 4], "little") for at in (20, 24, 28, 32, 36)]
                yield category, words[2], 4 * min(words[0], 1024)
                yield category, words[3], 4 * min(words[1], 1024)
                yield category, words[4], 2 * min(words[1], 1024)
            elif number == _EXCEPTIONS:
                for at in range(start, start + size - 11, 12):
                    info = int.from_bytes(data[at + 8 : at + 12], "little")
                    if 0 < info < len(data):
                        yield category, info, 4 + 2 * data[info + 2] + 12
            elif number == _DEBUG:
                record = int.from_bytes(data[start + 20 : start + 24], "little")
                yield category, record, 64
    for section in image.sections:
        if section.Characteristics & 0x20000000:
            yield "code", section.VirtualAddress, min(section.Misc_VirtualSize, 0x4000)
