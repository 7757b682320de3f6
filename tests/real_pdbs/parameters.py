# SPDX-License-Identifier: Apache-2.0
"""The parameters that a signature lists, for a comparison of signatures by different readers.

Readers spell types in their own ways, and only ours has names. So the number of parameters is compared, and the words
of each type: ours may have one word more, the parameter's name.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.real_pdbs.comparison import SEED
from tests.real_pdbs.our_reader import open_table
from tests.real_pdbs.peer_frames import bare_name
from tests.real_pdbs.purepdb_facts import PdbFacts
from tests.real_pdbs.symbolic_peer import symbolic_run
from throwstack.names.demangle import undecorate

_OPEN, _CLOSE = "(<[{", ")>]}"
_TOKEN = re.compile(r"\w+|[*&]|\S")
_OTHER_WORDS = {
    "<NoType>": "...",
    "unsigned __int64": "unsigned long long",
    "__int64": "long long",
    "volatile ": "",
    "(&)": "&",
    "__cdecl ": "",
    "__stdcall ": "",
    "__thiscall ": "",
    "__fastcall ": "",
}
"""What our signatures say more of: conventions of functions that are pointed to, `volatile`; and other spellings."""


def parameters(signature: str) -> list[str] | None:
    """Return the texts between the commas of the last parameter list of `signature`; None if it has none."""
    last = signature.rfind(")")
    depth, first = 0, -1
    for index in range(last, -1, -1):
        depth += (signature[index] == ")") - (signature[index] == "(")
        if not depth:
            first = index
            break
    if first < 0:
        return None
    listed, depth, start = [], 0, first + 1
    for index in range(first + 1, last + 1):
        depth += (signature[index] in _OPEN) - (signature[index] in _CLOSE)
        if index == last or (signature[index] == "," and not depth):
            listed.append(signature[start:index].strip())
            start = index + 1
    return [] if listed in ([""], ["void"]) else listed


def same_parameter(ours: str, theirs: str) -> bool:
    """Say whether our parameter, which may have a name, has the type of theirs, in whatever order the words are."""
    for other, word in _OTHER_WORDS.items():
        ours, theirs = ours.replace(other, word), theirs.replace(other, word)
    own, others = Counter(_TOKEN.findall(ours)), Counter(_TOKEN.findall(theirs))
    return not others - own and _is_name(own - others)


def _is_name(words: Counter[str]) -> bool:
    """Say whether words are none, one name, `argument`, or a name that the compiler made, `<_Val_0>`."""
    return sum(words.values()) <= 1 or (sum(words.values()) == 3 and {"<", ">"} <= words.keys())


def compare_signatures(pdb: Path, count: int) -> tuple[int, list[str]]:
    """Return how many signatures of functions at sampled addresses were compared, and those that differ as text.

    Functions that the linker folded are left out: another reader may show another of them.
    """
    facts = PdbFacts(pdb)
    places = facts.sample(count, SEED)
    theirs = symbolic_run(pdb, [place.rva for place in places]).signatures
    table = open_table(pdb)
    compared, different = 0, []
    for place, other in zip(places, theirs, strict=True):
        found = table.locate(place.rva)
        own = found[-1].facts.signature() if found and found[-1].facts is not None else ""
        if (
            not own
            or len(facts.names_at(place.before)) > 1
            or bare_name(found[-1].symbol) != bare_name(undecorate(other))
        ):
            continue
        compared += 1
        ours, others = parameters(own) or [], parameters(other) or []
        if len(ours) != len(others) or not all(map(same_parameter, ours, others)):
            different.append(f"{pdb.name} {place.rva:#x}: {own} | {other}")
    table.pdb.close()
    return compared, different
