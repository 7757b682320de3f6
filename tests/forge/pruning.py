# SPDX-License-Identifier: Apache-2.0
"""Which types of a kernel's ISF a forged dump needs, and how the others are cut off without leaving gaps.

Kept are the types below and what they contain; a pointer to anything else becomes a pointer to void. Symbols go:
whoever builds the dump places them.
"""

from __future__ import annotations

from typing import Any

VOLATILITY = """
_ETHREAD _KTHREAD _LIST_ENTRY _EPROCESS _ERESOURCE _UNICODE_STRING _EX_FAST_REF _TOKEN _OBJECT_HEADER _FILE_OBJECT
_DEVICE_OBJECT _CM_KEY_BODY _CMHIVE _CM_KEY_NODE _CM_KEY_VALUE _HMAP_ENTRY _MMVAD_SHORT _MMVAD _KSYSTEM_TIME _KMUTANT
_DRIVER_OBJECT _OBJECT_SYMBOLIC_LINK _CONTROL_AREA _SHARED_CACHE_MAP _VACB _POOL_TRACKER_BIG_PAGES _IMAGE_DOS_HEADER
_KTIMER _LDR_DATA_TABLE_ENTRY _IMAGE_NT_HEADERS _IMAGE_NT_HEADERS64 _POOL_HEADER _MMADDRESS_NODE _MM_AVL_NODE
_RTL_BALANCED_NODE
""".split()  # noqa: SIM905 - a list of words
"""Types that Volatility's Windows symbol table wants to find."""

PROCESSES = """
_KTRAP_FRAME _KEXCEPTION_FRAME _KSWITCH_FRAME _TEB _PEB _PEB_LDR_DATA _NT_TIB _RTL_USER_PROCESS_PARAMETERS
_LDR_DDAG_NODE _TEB32 _PEB32 _EWOW64PROCESS _WOW64_PROCESS _RTL_CRITICAL_SECTION _RTL_CRITICAL_SECTION_DEBUG
_CONTEXT _EXCEPTION_RECORD _EXCEPTION_POINTERS _EXCEPTION_REGISTRATION_RECORD _FLOATING_SAVE_AREA
_SE_AUDIT_PROCESS_CREATION_INFO _OBJECT_NAME_INFORMATION _CLIENT_ID _RTL_USER_PROCESS_PARAMETERS _STRING32
""".split()  # noqa: SIM905 - a list of words

MEMORY = """
_MMVAD_LONG _MM_AVL_TABLE _RTL_AVL_TREE _SUBSECTION _SEGMENT _SECTION_OBJECT_POINTERS _MMPTE _MMPTE_HARDWARE
_MMPTE_PROTOTYPE _MMPTE_SUBSECTION _MMPTE_TRANSITION _MMPTE_SOFTWARE _MMPTE_LIST _SEGMENT_FLAGS _MMSECTION_FLAGS
_MMSUBSECTION_FLAGS _MMVAD_FLAGS _MMVAD_FLAGS1 _MMVAD_FLAGS2 _IMAGE_RUNTIME_FUNCTION_ENTRY
""".split()  # noqa: SIM905 - a list of words

OBJECTS = """
_KWAIT_BLOCK _DISPATCHER_HEADER _KEVENT _KSEMAPHORE _KQUEUE _KGATE _KPROCESS _OBJECT_TYPE _OBJECT_TYPE_INITIALIZER
_OBJECT_HEADER_NAME_INFO _OBJECT_HEADER_CREATOR_INFO _HANDLE_TABLE _HANDLE_TABLE_ENTRY _KUSER_SHARED_DATA
_DBGKD_GET_VERSION64 _KPCR _KPRCB _KIDTENTRY64 _KDESCRIPTOR _KTHREAD_COUNTERS _GUID _LARGE_INTEGER _ULARGE_INTEGER
""".split()  # noqa: SIM905 - a list of words

SPARE = frozenset({"_KPRCB", "_KPCR"})
"""Structures of hundreds of members, of which few are ever read."""
PRCB_MEMBERS = """
CurrentThread NextThread IdleThread Number ProcessorState SelfPcr Prcb PrcbData CurrentPrcb KernelTime UserTime MHz
VendorString CpuType CpuID NtTib Self IdtBase KdVersionBlock MajorVersion MinorVersion PendingTickFlags TimerTable
GdtBase TssBase KernelDirectoryTableBase
""".split()  # noqa: SIM905 - a list of words


def prune(isf: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of an ISF with the types above, what they contain, and no symbols."""
    source = isf["user_types"]
    kept: dict[str, Any] = {}
    pending = [name for name in VOLATILITY + PROCESSES + MEMORY + OBJECTS if name in source]
    wanted = set(pending)
    while pending:
        name = pending.pop()
        if name in kept:
            continue
        fields = source[name]["fields"]
        if name in SPARE:
            fields = {key: value for key, value in fields.items() if key in PRCB_MEMBERS}
        kept[name] = {**source[name], "fields": fields}
        pending += [inner for value in fields.values() for inner in _contained(value["type"]) if inner in source]
    wanted |= kept.keys()
    enums: set[str] = set()
    types = {}
    for name, value in kept.items():
        fields = {}
        for key, entry in value["fields"].items():
            fields[key] = {"offset": entry["offset"], "type": _cut(entry["type"], wanted, enums)}
        types[name] = {"kind": value["kind"], "size": value["size"], "fields": fields}
    return {
        "metadata": isf["metadata"],
        "base_types": isf["base_types"],
        "enums": {name: isf["enums"][name] for name in sorted(enums)},
        "symbols": {},
        "user_types": types,
    }


def _contained(kind: dict[str, Any]) -> list[str]:
    """Names of the types that lie inside a member (not behind a pointer)."""
    match kind["kind"]:
        case "array":
            return _contained(kind["subtype"])
        case "struct" | "union" | "class":
            return [kind["name"]]
    return []


def _cut(kind: dict[str, Any], wanted: set[str], enums: set[str]) -> dict[str, Any]:
    """Return a member's type with pointers to what is not kept made pointers to void; collect the enums."""
    match kind["kind"]:
        case "pointer":
            inner = kind["subtype"]
            if inner["kind"] in {"struct", "union", "class"} and inner["name"] not in wanted:
                return {"kind": "pointer", "subtype": {"kind": "base", "name": "void"}}
            return {"kind": "pointer", "subtype": _cut(inner, wanted, enums)}
        case "array":
            return {**kind, "subtype": _cut(kind["subtype"], wanted, enums)}
        case "bitfield":
            return {**kind, "type": _cut(kind["type"], wanted, enums)}
        case "enum":
            enums.add(kind["name"])
    return kind
