# SPDX-License-Identifier: Apache-2.0
"""What a reader of PDBs says about an address, in one form for all readers."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRAILER = re.compile(r"(?:\s*(?:const|volatile|&))*\s*$")
_ANONYMOUS = re.compile(r"\?A0x[0-9a-f]+(?=::)")
"""How Visual C++ calls an anonymous namespace in some of its records, where others have `anonymous namespace'."""
_TAGS = re.compile(r"\b(?:class|struct|union|enum) ")


class PeerFailed(Exception):
    """Another reader refused a PDB, died or hung; the message says which."""


@dataclass(frozen=True, slots=True)
class PeerFrame:
    """A function at an address: its name without parameters, its file and line, or "" and 0."""

    name: str
    file: str
    line: int


Chain = tuple[PeerFrame, ...]
"""The functions at one address: inlined ones first, from the innermost outwards; the last is the function itself."""


def bare_name(name: str) -> str:
    """Return a readable name without its parameter list: `A::f(int) const` → `A::f`, `A::operator()` as it is."""
    last = name.rfind(")")
    if last < 0 or not _TRAILER.match(name, last + 1):
        return _spelled(name)
    depth = 0
    for index in range(last, -1, -1):
        depth += (name[index] == ")") - (name[index] == "(")
        if not depth:
            head = name[:index].rstrip()
            return _spelled(name if not head or head.endswith("operator") else head)
    return _spelled(name)


def _spelled(name: str) -> str:
    """Spell a name in one way: readers differ in blanks between template arguments and in `class` before a type."""
    name = _ANONYMOUS.sub("`anonymous namespace'", name)
    return _TAGS.sub("", name).replace(", ", ",").replace(" >", ">").replace(" *", "*").replace(" &", "&")
