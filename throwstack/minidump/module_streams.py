# SPDX-License-Identifier: Apache-2.0
"""The streams about modules: ModuleList and UnloadedModuleList.

MINIDUMP_MODULE and MINIDUMP_UNLOADED_MODULE of minidumpapiset.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from throwstack.minidump.dumped import DumpedModule, DumpedUnloaded
from throwstack.minidump.minidump_file import NOWHERE, MinidumpFile, Placement

_MODULE = struct.Struct("<QIIII52sIIIIQQ")
_UNLOADED_HEAD = struct.Struct("<III")
_UNLOADED = struct.Struct("<QIIII")
_WORD, _LONG = 0xFFFFFFFF, (1 << 64) - 1


def module_list(file: MinidumpFile, modules: Sequence[DumpedModule]) -> Placement:
    """Write the stream ModuleList, with names and CodeView records before it."""
    parts = [struct.pack("<I", len(modules))]
    for module in modules:
        codeview = file.append(module.codeview, alignment=4) if module.codeview else NOWHERE
        parts.append(
            _MODULE.pack(
                *(module.base & _LONG, min(module.size, _WORD), module.checksum & _WORD, module.timestamp & _WORD),
                *(file.string(module.path), module.version[:52], *codeview, *NOWHERE, 0, 0),
            )
        )
    return file.append(b"".join(parts))


def unloaded_module_list(file: MinidumpFile, modules: Sequence[DumpedUnloaded]) -> Placement:
    """Write the stream UnloadedModuleList."""
    parts = [_UNLOADED_HEAD.pack(_UNLOADED_HEAD.size, _UNLOADED.size, len(modules))]
    parts += [
        _UNLOADED.pack(
            *(module.base & _LONG, min(module.size, _WORD), module.checksum & _WORD, module.timestamp & _WORD),
            file.string(module.name),
        )
        for module in modules
    ]
    return file.append(b"".join(parts))
