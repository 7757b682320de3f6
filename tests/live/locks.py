# SPDX-License-Identifier: Apache-2.0
"""Whether `windows.stackwalk` names the critical sections' owners, and the deadlock, as the program noted them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SCENARIO = "deadlock"
STACKWALK = "windows.stackwalk"
_NOTE = re.compile(r"deadlock: (?:has section (\d), )?waits for section (\d)")


def problems(roles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the rows of `windows.stackwalk` say wrongly; `roles` are the threads' notes by TID (deadlock.c)."""
    notes = {int(tid): match for tid, note in roles.items() if (match := _NOTE.fullmatch(note))}
    owners = {match[1]: tid for tid, match in notes.items() if match[1] is not None}
    found = []
    for row in rows:
        tid, lock, deadlock = row["TID"], row["Lock"], row["Deadlock"]
        note = notes.pop(tid, None)
        if note is None:
            found += [f"thread {tid}, which waits for no lock: {said}" for said in (lock, deadlock) if said]
            continue
        owner = owners[note[2]]
        if not re.fullmatch(rf"critical section 0x[0-9a-f]+.*, owned by thread {owner}, [12] waiting", lock or ""):
            found.append(f"thread {tid}, which waits for a section of {owner}: {lock}")
        begins = "deadlock " if note[1] is not None else "waits behind deadlock "
        named = {int(number) for number in re.findall(r":(\d+)", deadlock or "")}
        if not (deadlock or "").startswith(begins) or named != set(owners.values()):
            found.append(f"thread {tid}, {note[0]}: {deadlock}")
    return found + [f"no row of thread {tid}" for tid in notes]
