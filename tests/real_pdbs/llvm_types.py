# SPDX-License-Identifier: Apache-2.0
"""Types and variables of a PDB as llvm-pdbutil prints them, and how this reader's differ.

Compared are the name and size of each structure and enumeration, the definition that a record which only names one
leads to, members with their offsets, enumerators with their values, and where each local variable of optimised code is.
llvm-pdbutil does not know the records 0x1608 and 0x1609 of current Visual C++, so these are left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.llvm_pdbutil import TOOL
from throwstack.pdb.codeview import records
from throwstack.pdb.msf import NO_STREAM
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.type_model import Enumeration, Structure
from throwstack.pdb.variable_model import LocationKind, Scope
from throwstack.pdb.variable_symbols import function_symbol

_HEAD = re.compile(r"^ +0x([0-9A-F]+) \| (LF_\w+) \[size = \d+\](?: `(.*)`)?$")
_SIZE = re.compile(r"sizeof (\d+)$")
_FORWARD = re.compile(r"forward ref(?: \(-> 0x([0-9A-F]+)\))?")
_FIELDS = re.compile(r"field list: 0x([0-9A-F]+)")
_MEMBER = re.compile(r"- LF_MEMBER \[name = `(.*)`, Type = .*, offset = (\d+), attrs")
_ENUMERATE = re.compile(r"- LF_ENUMERATE \[(.*) = (-?\d+)\]")
_PROCEDURE = re.compile(r"S_[GL]PROC32 \[size = \d+\] `(.*)`$")
_DEFRANGE = re.compile(r"S_DEFRANGE_(REGISTER|FRAMEPOINTER_REL|REGISTER_REL|SUBFIELD_REGISTER)\b")
_RANGE = re.compile(r"(?:range start = 0*(\d+):0*(\d+), length = (\d+)|range = \[0*(\d+):0*(\d+),\+(\d+)\))")
_STRUCTURES = frozenset({"LF_CLASS", "LF_STRUCTURE", "LF_UNION", "LF_INTERFACE", "LF_ENUM"})
_MAX_DIFFERENCES = 20


def dumped(pdb: Path, option: str) -> list[str]:
    """Return the lines that `llvm-pdbutil dump OPTION` prints."""
    assert TOOL is not None, "llvm-pdbutil is not installed"
    done = subprocess.run([TOOL, "dump", option, str(pdb)], capture_output=True, check=True, timeout=300)
    return done.stdout.decode("utf-8", "replace").splitlines()


def compare_types(pdb: Path) -> tuple[int, list[str]]:
    """Return how many structures and enumerations were compared, and what differs, in lines."""
    blocks = list(_blocks(dumped(pdb, "-types")))
    lists = {number: lines for number, kind, _, lines in blocks if kind == "LF_FIELDLIST"}
    several = _defined_in_several_ways(blocks, lists)
    file, compared, differences = PdbFile(pdb), 0, []
    for number, kind, name, lines in blocks:
        if kind not in _STRUCTURES:
            continue
        compared += 1
        found = list(_differences(file, number, name, lines, lists))
        if name in several and getattr(file.types.plain(number), "is_ambiguous", False):
            found = [difference for difference in found if not difference.startswith("leads to")]
        differences += [f"{pdb.name} {number:#x} {name}: {difference}" for difference in found]
        if len(differences) > _MAX_DIFFERENCES:
            break
    file.close()
    return compared, differences


def _defined_in_several_ways(blocks: list[tuple[int, str, str, list[str]]], lists: dict[int, list[str]]) -> set[str]:
    """Return the names that have definitions with different members. llvm-pdbutil leads to one of them all the same.

    Example: the `_TEB` of a program's own header, beside that of winternl.h.
    """
    members: dict[str, set[str]] = {}
    for _, kind, name, lines in blocks:
        listed = _FIELDS.search(" ".join(lines))
        if kind in _STRUCTURES and listed is not None and int(listed[1], 16) in lists:
            members.setdefault(name, set()).add("\n".join(lists[int(listed[1], 16)]))
    return {name for name, found in members.items() if len(found) > 1}


def _blocks(lines: list[str]) -> Iterator[tuple[int, str, str, list[str]]]:
    """Yield number, kind, name and further lines of each type."""
    block: tuple[int, str, str, list[str]] | None = None
    for line in lines:
        head = _HEAD.match(line)
        if head is None:
            if block is not None:
                block[3].append(line.strip())
            continue
        if block is not None:
            yield block
        block = int(head[1], 16), head[2], head[3] or "", []
    if block is not None:
        yield block


def _differences(file: PdbFile, number: int, name: str, lines: list[str], lists: dict[int, list[str]]) -> Iterator[str]:
    types, text = file.types, " ".join(lines)
    found = types.type(number)
    if not isinstance(found, (Structure, Enumeration)):
        yield f"read as {found}"
        return
    if found.name != name:
        yield f"called {found.name}"
    size = _SIZE.search(text)
    if size is not None and isinstance(found, Structure) and found.size != int(size[1]):
        yield f"{found.size} bytes, not {size[1]}"
    forward = _FORWARD.search(text)
    if bool(forward) is not found.is_forward:
        yield "a definition or not"
    if forward is not None and forward[1] is not None and types.plain(number) != types.type(int(forward[1], 16)):
        yield f"leads to {types.plain(number)}, not to 0x{forward[1]}"
    listed = _FIELDS.search(text)
    fields = lists.get(int(listed[1], 16), []) if listed is not None else []
    if any("LF_INDEX" in line for line in fields):
        return
    if isinstance(found, Enumeration):
        wanted = [(match[1], int(match[2])) for match in map(_ENUMERATE.search, fields) if match]
        if (got := list(types.enumerators(found))) != wanted:
            yield f"enumerators {got[:3]}, not {wanted[:3]}"
    else:
        members = [(match[1], int(match[2])) for match in map(_MEMBER.search, fields) if match]
        own = [(field.name, field.offset) for field in types.members(found) if not field.is_base]
        if own != members:
            yield f"members {own[:3]}, not {members[:3]}"


def compare_variables(pdb: Path) -> tuple[int, list[str]]:
    """Return how many ranges of variables were compared, function by function, and what differs, in lines."""
    wanted = list(_printed_ranges(dumped(pdb, "-symbols")))
    file = PdbFile(pdb)
    own = list(_own_ranges(file))
    file.close()
    differences = [
        f"{pdb.name} {name}: {sorted(set(ours) ^ set(theirs))[:4]}"
        for (name, theirs), (_, ours) in zip(wanted, own, strict=False)
        if theirs != ours
    ]
    if [name for name, _ in wanted] != [name for name, _ in own]:
        differences.append(f"{pdb.name}: {len(own)} functions, not {len(wanted)}")
    return sum(len(ranges) for _, ranges in wanted), differences[:_MAX_DIFFERENCES]


def _printed_ranges(lines: list[str]) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
    """Yield each function with its ranges: section, first offset, length. Scopes are not told apart."""
    name, ranges, is_range = "", list[tuple[int, int, int]](), False
    for line in lines:
        procedure = _PROCEDURE.search(line)
        if procedure is not None:
            if name:
                yield name, sorted(ranges)
            name, ranges = procedure[1], []
        if " | S_" in line:
            is_range = _DEFRANGE.search(line) is not None
        found = _RANGE.search(line) if is_range else None
        if found is not None:
            section, offset, length = (int(part) for part in found.groups() if part is not None)
            ranges.append((section, offset, length))
            is_range = False
    if name:
        yield name, sorted(ranges)


def _own_ranges(file: PdbFile) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
    for module in map(file.dbi.module, range(file.dbi.module_count)):
        if module is None or module.stream == NO_STREAM:
            continue
        data = file.msf.stream(module.stream).read(0, module.symbols_size)
        for record in records(data, 4, len(data)):
            if record.kind in (0x110F, 0x1110):
                body = data[record.at : int.from_bytes(data[record.at + 8 : record.at + 12], "little")]
                function = function_symbol(body)
                if function is not None:
                    yield function.name, sorted(_ranges_in(function.scope))


def _ranges_in(scope: Scope) -> Iterator[tuple[int, int, int]]:
    for variable in scope.variables:
        for location in variable.locations:
            if location.extent is not None and location.kind is not LocationKind.UNKNOWN:
                extent = location.extent
                yield extent.section, extent.begin, extent.end - extent.begin
    for inner in scope.scopes:
        yield from _ranges_in(inner)
