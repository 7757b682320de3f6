# SPDX-License-Identifier: Apache-2.0
"""The measuring rod notices a broken rule: each mutation costs frames, or saved contexts, of some live fixture.

Needs the fixtures of `make test-live`, whose directory THROWSTACK_LIVE names.

What Wine cannot show has tests with made-up memory or real ntdlls instead: machine frames, epilogues, version 2 codes
and the inverted function table (tests/unwind/x64), callbacks from the kernel
(tests/unwind/x86/test_callback.py), traps in the kernel (tests/dumps/test_stackwalk_threads.py), int 29h waiting there
and exceptions that a handler took (tests/stuck/test_triage.py, tests/dumps/test_exceptions_in_flight.py), stale
CONTEXTs (tests/dispatch).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.live import plugin_runs
from tests.live.compare import Result, compare
from tests.live.mutations import CONTEXTS, X64, X86

LIVE = os.environ.get("THROWSTACK_LIVE")

pytestmark = pytest.mark.skipif(LIVE is None, reason="needs the live fixtures: make test-live")

# Where a rule's loss shows. x86 has several rules for one frame, so that one alone may not be missed: FrameData and
# the validation of return addresses are broken with the following of code switched off, and compared with that.
X64_CASES = {
    "SET_FPREG ignored": "x64-clang-O2-read",
    "PUSH_NONVOL: register not restored": "x64-clang-O2-shapes",
    "SAVE_NONVOL ignored": "x64-clang-O2-shapes",
    "ALLOC_LARGE truncated to 16 bits": "x64-clang-O2-shapes",
    "ALLOC_SMALL ignored": "x64-clang-O2-leaf",
    "operand slots read as codes": "x64-clang-O2-leaf",
    "chain not followed": "x64-clang-O2-shapes",
    "position in the prologue ignored": "x64-gcc-O2-probe",
    "no rule for leaf functions": "x64-clang-O2-leaf",
}
X86_CASES = {
    "callee's parameters ignored": ("x86-clang-O2-shapes", False, ()),
    "push ignored": ("x86-gcc-O2-write", False, ()),
    "sub esp ignored": ("x86-clang-O2-shapes", False, ()),
    "and esp ignored": ("x86-clang-O2-raise", False, ()),
    "code not followed": ("x86-gcc-O2-write", False, ()),
    "return addresses not validated": ("x86-clang-O2-shapes", True, ("code not followed",)),
    "FrameData off by a word": ("x86-clang-O2-shapes", True, ("code not followed",)),
}
# A saved context is found by several routes, and a decoy seen through by several rules: each is broken with those
# switched off that would do as well.
NO_STACK = "stack not searched"
DISPATCHER = "x64: dispatcher's frame not asked"
REGISTRATIONS = "x86: registrations not asked"
FILTER = "x86: filter's argument not asked"
FRAMES = "x86: dispatchers' and handlers' frames not asked"
WORDS = "words taken for frames"
CONTEXT_CASES = {
    DISPATCHER: ("x64-clang-O2-filter", ()),
    "x64: RtlRaiseException's frame not asked": ("x64-clang-O2-raise", (NO_STACK,)),
    FILTER: ("x86-clang-O2-read", (FRAMES, REGISTRATIONS, NO_STACK)),
    FRAMES: ("x86-clang-O2-read", (FILTER, REGISTRATIONS, NO_STACK)),
    REGISTRATIONS: ("x86-clang-O2-filter", (FRAMES,)),
    NO_STACK: ("x64-clang-O2-read", (DISPATCHER,)),
    WORDS: ("x64-clang-O2-read", ()),
    "the innermost exception only": ("x64-clang-O2-filter", ()),
}


def measured(fixture: str, *, with_pdb: bool) -> Result:
    """Compare what the plugins print in this process with the fixture's truth."""
    folder = Path(LIVE or "").resolve() / "out" / fixture
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    found = [plugin_runs.rows(folder, plugin, with_pdb=with_pdb) for plugin in plugin_runs.PLUGINS]
    return compare(truth, *found, has_names=False)


def test_every_mutation_is_tried():
    assert X64_CASES.keys() == X64.keys()
    assert X86_CASES.keys() == X86.keys()
    assert CONTEXT_CASES.keys() == CONTEXTS.keys()


@pytest.mark.parametrize("name", X64_CASES)
def test_an_x64_rule_broken_costs_frames(name, monkeypatch):
    whole = measured(X64_CASES[name], with_pdb=False)
    X64[name](monkeypatch)
    broken = measured(X64_CASES[name], with_pdb=False)
    assert broken.equal < whole.equal


@pytest.mark.parametrize("name", X86_CASES)
def test_an_x86_rule_broken_costs_frames(name, monkeypatch):
    fixture, with_pdb, on_top_of = X86_CASES[name]
    for other in on_top_of:
        X86[other](monkeypatch)
    whole = measured(fixture, with_pdb=with_pdb)
    X86[name](monkeypatch)
    broken = measured(fixture, with_pdb=with_pdb)
    assert broken.equal < whole.equal


@pytest.mark.parametrize("name", CONTEXT_CASES)
def test_a_route_broken_costs_contexts_or_gives_false_rows(name, monkeypatch):
    fixture, on_top_of = CONTEXT_CASES[name]
    for other in on_top_of:
        CONTEXTS[other](monkeypatch)
    whole = measured(fixture, with_pdb=False)
    assert (whole.contexts_found, whole.problems, whole.false_rows) == (whole.contexts, [], [])
    CONTEXTS[name](monkeypatch)
    broken = measured(fixture, with_pdb=False)
    assert broken.contexts_found < whole.contexts_found or broken.false_rows
