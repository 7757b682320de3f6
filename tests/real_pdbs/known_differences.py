# SPDX-License-Identifier: Apache-2.0
"""The closed list of differences between our reader and others that are known, and in which ours is right.

Each is a rule about one address: what they say, what we say, and what an independent reader knows of the place. A
difference that no rule explains counts as a disagreement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tests.real_pdbs.peer_frames import Chain
from tests.real_pdbs.purepdb_facts import X86, plain

_UNKNOWN_TYPE = re.compile(r"<unimplemented type kind 0x[0-9a-f]+>|<unknown (?:simple )?type>|<unknown UDT>")
_NO_LINES = frozenset({0xFEEFEE, 0xF00F00})
"""Not lines: compiler-generated code, and code that a debugger never steps into. LLVM prints them as numbers."""


class Known(Enum):
    """A known difference; the value says it for the report."""

    UNDERSCORE = "symbolic takes an underscore off a name of x64 or ARM64, where names are not decorated"
    FOLDED = "the linker folded several functions into one; each reader shows another of their names"
    UNKNOWN_TYPE = "a type record that the other reader does not know takes the place of the class name"
    SEPARATORS = "path separators"
    NO_OWN_LINES = "symbolic drops the inlined functions of a function that has no line of its own"
    MARKER = "LLVM prints the markers 0xFEEFEE and 0xF00F00 as line numbers"


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a place: the machine of the PDB, and all names of the function there."""

    machine: int
    names: frozenset[str]


def same_name(ours: str, theirs: str, context: Context, used: set[Known]) -> bool:
    """Say whether two names of a function agree, and add to `used` the known difference that this took."""
    if ours == theirs:
        return True
    if context.machine != X86 and ours.startswith("_") and ours.lstrip("_") == theirs.lstrip("_"):
        used.add(Known.UNDERSCORE)
        return True
    if _UNKNOWN_TYPE.search(theirs):
        pattern = ".*".join(re.escape(part) for part in _UNKNOWN_TYPE.split(theirs))
        if re.fullmatch(pattern, ours, re.DOTALL):
            used.add(Known.UNKNOWN_TYPE)
            return True
    return False


def same_function(ours: str, theirs: str, context: Context, used: set[Known]) -> bool:
    """Say whether two names of the outermost function agree; it may have several, where inlined ones have one."""
    if same_name(ours, theirs, context, used):
        return True
    if context.machine == X86 and ours == plain(theirs) and ours in context.names:
        return True  # LLVM gives a public symbol's name as it is in the object file
    if len(context.names) > 1 and ours in context.names and {theirs, plain(theirs)} & context.names:
        used.add(Known.FOLDED)
        return True
    return False


def same_source(ours: tuple[str, int], theirs: tuple[str, int], used: set[Known]) -> bool:
    """Say whether two pairs of file and line agree; a file without a line counts as no file."""
    file, line = ours if ours[0] and ours[1] else ("", 0)
    other, other_line = theirs if theirs[0] and theirs[1] else ("", 0)
    if (file, line) == (other, other_line):
        return True
    if line == other_line and file.replace("/", "\\") == other.replace("/", "\\"):
        used.add(Known.SEPARATORS)
        return True
    if other_line in _NO_LINES:
        used.add(Known.MARKER)
        return True
    return False


def same_chain(ours: Chain, theirs: Chain, context: Context, used: set[Known]) -> bool:
    """Say whether the names of two chains agree, from the innermost inlined function to the function itself."""
    if len(ours) == len(theirs):
        if not ours:
            return True
        if not same_function(ours[-1].name, theirs[-1].name, context, used):
            return False
        pairs = list(zip(ours[:-1], theirs[:-1], strict=True))
        if all(same_name(a.name, b.name, context, used) for a, b in pairs):
            return True
        # What is inlined into folded functions differs as they do: the same lines, of another instance of a template.
        return Known.FOLDED in used and all((a.file, a.line) == (b.file, b.line) for a, b in pairs)
    if len(theirs) == 1 and ours and not ours[-1].line and not theirs[0].line:
        used.add(Known.NO_OWN_LINES)
        return same_function(ours[-1].name, theirs[0].name, context, used)
    return False
