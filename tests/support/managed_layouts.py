# SPDX-License-Identifier: Apache-2.0
"""Offsets in a runtime's structures and in exception objects, by the size of a pointer, for forged processes.

Those of x64 are .NET 8's, those of x86 .NET Core 2.1's, as they were seen in real processes.
"""

from __future__ import annotations

EXCEPTION_PLACES = {
    8: {
        "_className": 0x8, "_message": 0x10, "_innerException": 0x20, "_stackTrace": 0x30,
        "_remoteStackTraceString": 0x48, "_HResult": 0x74,
    },
    4: {
        "_className": 0x4, "_message": 0xC, "_innerException": 0x14, "_stackTrace": 0x1C,
        "_remoteStackTraceString": 0x28, "_HResult": 0x38,
    },
}  # fmt: skip
LAYOUTS = {
    8: {
        "parent": 0x10, "module": 0x18, "eeclass": 0x28, "class_table": 0x10, "class_fields": 0x18,
        "class_chunks": 0x20, "chunk": 0x18, "name": 0x18, "contract_name": 0x20, "storage": 0x58, "id": 0x1B8,
        "teb": 0x98, "exposed": 0x1C0, "thrown": 0x1E0, "next": 0x78,
    },
    4: {
        "parent": 0x10, "module": 0x14, "eeclass": 0x1C, "class_table": 0x8, "class_fields": 0xC, "class_chunks": 0x10,
        "chunk": 0xC, "name": 0x10, "contract_name": 0x18, "storage": 0x2C, "id": 0x148, "teb": 0x6C, "exposed": 0x14C,
        "thrown": 0x168, "next": 0x78,
    },
}  # fmt: skip


def contract_json(size: int) -> dict[str, object]:
    """Return the contract of a runtime with these offsets; the auxiliary words 1 and 2 are its variables."""
    at = LAYOUTS[size]
    places = EXCEPTION_PLACES[size]
    types: dict[str, object] = {
        "Thread": {
            "OSId": at["id"],
            "TEB": at["teb"],
            "LinkNext": at["next"],
            "LastThrownObject": [at["thrown"], "GCHandle"],
            "GCHandle": at["exposed"],
            "ExceptionTracker": at["thrown"] + 0x20,
        },
        "ThreadStore": {"FirstThreadLink": 0x40},
        "ExceptionInfo": {"PreviousNestedInfo": 0, "ThrownObject": 8},
        "Exception": {name: place for name, place in places.items() if name != "_className"},
        "Module": {"PEAssembly": 0xC0},
        "PEAssembly": {"PEImage": size},
        "PEImage": {"LoadedImageLayout": 0x80},
        "PEImageLayout": {"Base": size, "Flags": 0x14},
        "MethodTable": {
            "ParentMethodTable": at["parent"],
            "Module": at["module"],
            "EEClassOrCanonMT": at["eeclass"],
        },
        "EEClass": {
            "MethodTable": at["class_table"],
            "FieldDescList": at["class_fields"],
            "MethodDescChunk": at["class_chunks"],
        },
        "MethodDescChunk": {"!": at["chunk"], "FlagsAndTokenRange": at["chunk"] - size + 2 if size == 8 else 10},
        "DynamicMethodDesc": {"MethodName": at["contract_name"]},
    }
    values: dict[str, object] = {
        "MethodDescTokenRemainderBitCount": ["0xc", "uint8"],
        "MethodDescAlignment": [hex(size), "uint64"],
        "ThreadStore": [[1], "pointer"],
        "ExceptionMethodTable": [[2], "pointer"],
    }
    return {"version": 0, "baseline": "empty", "types": types, "globals": values, "contracts": {}}
