# SPDX-License-Identifier: Apache-2.0
"""Lists the members that a kernel's symbols must have, and what is lost if they lack other members.

An ISF file may be incomplete: made by hand, shortened, damaged, or of a Windows version that dropped a member. A run
ends only if members in `REQUIRED` are missing, because without them no stuck thread can be found, or its process is not
known. If any other member is missing, a column is empty, or one of the ways to find registers and stacks is lost. A way
that is lost for all threads is reported once.
"""

from __future__ import annotations

from throwstack.volatility.memory.layout import Layout

LIST_HEAD = "PsActiveProcessHead"
"""The head of the kernel's list of processes, the only variable that is required."""
REQUIRED = {
    "_LIST_ENTRY.Flink": "lists cannot be followed",
    "_LIST_ENTRY.Blink": "lists cannot be followed backwards",
    "_EPROCESS.ActiveProcessLinks": "processes cannot be listed",
    "_EPROCESS.UniqueProcessId": "processes cannot be told apart",
    "_EPROCESS.Peb": "it is not known which processes have user memory",
    "_EPROCESS.Pcb.DirectoryTableBase": "the memory of processes cannot be read",
    "_EPROCESS.ThreadListHead": "threads cannot be listed",
    "_UNICODE_STRING.Buffer": "modules have no names",
    "_ETHREAD.ThreadListEntry": "threads cannot be listed",
    "_ETHREAD.Cid.UniqueThread": "threads cannot be told apart",
    "_ETHREAD.Tcb.Teb": "the user stacks of threads cannot be found",
    "_ETHREAD.Tcb.State": "threads that have ended, or were running, cannot be told from those that wait",
}
"""The members that are required, and for each what cannot be done without it."""

_ROUTES = {
    ("_ETHREAD.Tcb.InitialStack", "_ETHREAD.Tcb.TrapFrame"): "registers are not known, nor where kernel stacks end",
    ("_KTRAP_FRAME.SegCs",): "registers of threads are not known",
    ("_KTRAP_FRAME.Rip", "_KTRAP_FRAME.Eip"): "registers of threads are not known",
    ("_KTRAP_FRAME.Rsp", "_KTRAP_FRAME.HardwareEsp"): "registers of threads are not known",
    ("_TEB.NtTib.StackBase",): "it is not known where user stacks end",
    ("_TEB.NtTib.StackLimit",): "it is not known where user stacks end",
}
"""Ways to find registers and stacks. A key has alternative members; the value is what is lost if all are missing."""
_ROUTES_X64 = {
    ("_EPROCESS.WoW64Process", "_EPROCESS.Wow64Process"): "the 32-bit side of processes is not looked at",
    ("_TEB.TlsSlots",): "32-bit registers of threads that wait in 64-bit code are not known",
}


def check(layout: Layout, *, has_list_head: bool) -> None:
    """Raise LookupError if `layout` lacks a required member; the message says what to do."""
    missing = [path for path in REQUIRED if layout.find(path) is None]
    reasons = list(dict.fromkeys(REQUIRED[path] for path in missing))
    if not has_list_head:
        missing.append(LIST_HEAD)
        reasons.append("processes cannot be listed")
    if missing:
        message = (
            f"the kernel's symbols have no {', '.join(missing)}: {'; '.join(reasons)}. The ISF file is incomplete or "
            "not of this kernel: make it anew from the kernel's PDB with Volatility's pdbconv"
        )
        raise LookupError(message)


def lost_routes(layout: Layout, *, is_64bit: bool) -> tuple[str, ...]:
    """Return a sentence for each way to find registers or stacks that is lost because members are missing."""
    return tuple(
        f"the kernel's symbols have no {' or '.join(paths)}: {loss}"
        for paths, loss in {**_ROUTES, **(_ROUTES_X64 if is_64bit else {})}.items()
        if all(layout.find(path) is None for path in paths)
    )
