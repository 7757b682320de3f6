# SPDX-License-Identifier: Apache-2.0
"""LLVM's readers of PDBs: llvm-symbolizer for addresses, llvm-pdbutil for frame data.

llvm-symbolizer wants an image and takes the PDB from its debug directory. It gets an image made here, with the sections
and the identity that the PDB has. So a PDB needs no image of its own, and no name comes from an export table.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.real_pdbs.peer_frames import Chain, PeerFailed, PeerFrame, bare_name
from tests.real_pdbs.purepdb_facts import PdbFacts
from tests.support.pe_writer import Pe, Section
from throwstack.names.demangle import undecorate

_TIME_LIMIT = 300
_OLD_HEAD, _NEW_HEAD = "Old FPO Data", "New FPO Data"


def tool(name: str) -> str | None:
    """Return the path of a tool of LLVM 19, else of another version, or None."""
    return shutil.which(f"{name}-19") or shutil.which(name)


def llvm_chains(facts: PdbFacts, rvas: Sequence[int], scratch: Path) -> list[Chain | None]:
    """Return what llvm-symbolizer says about RVAs of the image as it was linked; None where it dies.

    Raises `PeerFailed`.
    """
    program = tool("llvm-symbolizer")
    if program is None:
        message = "llvm-symbolizer is not installed"
        raise PeerFailed(message)
    pdb, image = scratch / "peer.pdb", scratch / "peer.dll"
    pdb.write_bytes(facts.as_linked())
    sections = [Section(name, start, bytes(max(size, 1))) for name, start, size in facts.sections]
    image.write_bytes(Pe(facts.machine, sections=sections, pdb=(facts.guid, facts.age, str(pdb))).file())
    # Undecorated here: of x86 names, LLVM would also take an underscore off that belongs to them, as of _onexit.
    options = ["--relative-address", "--inlines", "--functions=short", "--no-demangle", "--output-style=JSON"]
    return _asked([program, f"--obj={image}", *options], list(rvas))


def _asked(command: list[str], rvas: list[int]) -> list[Chain | None]:
    """Return the answers; None for each RVA at which llvm-symbolizer dies, found by asking for ever fewer at once."""
    try:
        out = _run(command, "\n".join(map(hex, rvas)) + "\n")
    except PeerFailed:
        if len(rvas) == 1:
            return [None]
        half = len(rvas) // 2
        return _asked(command, rvas[:half]) + _asked(command, rvas[half:])
    answers = [json.loads(line) for line in out.splitlines() if line.strip()]
    if len(answers) != len(rvas):
        message = f"llvm-symbolizer: {len(answers)} answers to {len(rvas)} questions"
        raise PeerFailed(message)
    return [_chain(answer) for answer in answers]


def _chain(answer: dict) -> Chain:
    frames = [
        PeerFrame(bare_name(undecorate(frame["FunctionName"])), frame["FileName"], frame["Line"])
        for frame in answer.get("Symbol", [])
    ]
    return tuple(frame for frame in frames if frame.name)


def frame_data(pdb: Path) -> tuple[list[tuple], list[tuple]]:
    """Return the rows of a PDB's FrameData and FPO streams as llvm-pdbutil prints them. Raises `PeerFailed`.

    FrameData: (RVA, size, locals, parameters, stack, prologue, saved registers, SEH, C++ EH, function start, program).
    FPO: (RVA, size, locals, parameters, prologue, saved registers, base pointer, SEH, kind).
    """
    program = tool("llvm-pdbutil")
    if program is None:
        message = "llvm-pdbutil is not installed"
        raise PeerFailed(message)
    rows: dict[str, list[tuple]] = {_OLD_HEAD: [], _NEW_HEAD: []}
    head = ""
    for line in _run([program, "dump", "-fpo", str(pdb)], "").splitlines():
        if line.strip() in rows:
            head = line.strip()
        parts = line.split("|", 10)
        if head and len(parts) > 8 and not line.lstrip().startswith("RVA"):
            rows[head].append(tuple(_value(part, index) for index, part in enumerate(parts)))
    return rows[_NEW_HEAD], rows[_OLD_HEAD]


def _value(text: str, index: int) -> int | bool | str:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if index == 0:
        return int(text, 16)
    return int(text) if text.isdigit() else text


def _run(command: list[str], given: str) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"{Path(command[0]).name}: not done after {_TIME_LIMIT} s"
        raise PeerFailed(message) from None
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["nothing said"]
        message = f"{Path(command[0]).name}: exit code {done.returncode}: {told[-1]}"
        raise PeerFailed(message)
    return done.stdout
