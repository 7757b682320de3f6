# SPDX-License-Identifier: Apache-2.0
"""Rules of the unwinders, and routes to saved contexts, broken on purpose: what the comparison must notice.

Each mutation replaces a function of the engine through pytest's `monkeypatch`.
"""
# ruff: noqa: ARG001, ARG005 what replaces a function takes its arguments

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from throwstack.core.frames import Frame, StackBounds
from throwstack.core.stop import Stop
from throwstack.dispatch import search, x86
from throwstack.names.symbols import Name
from throwstack.stuck.beyond_walk import Proven
from throwstack.stuck.triage import Triage
from throwstack.unwind.target import Target
from throwstack.unwind.x64 import plan_cache, unwind_info, without_unwind_data
from throwstack.unwind.x64.functions import Function, Part
from throwstack.unwind.x64.unwind_info import UnwindCode, UnwindOp
from throwstack.unwind.x64.unwind_plan import UnwindPlan
from throwstack.unwind.x64.unwind_plan import compile_codes as real_compile
from throwstack.unwind.x86 import frame_data, return_address, rules, symbolic_execution
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.decode import Opcode
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.rest_of_function import RestOfFunction
from throwstack.unwind.x86.return_address import Fit, ReturnAddresses

Mutation = Callable[[pytest.MonkeyPatch], None]


def _with_codes(change: Callable[[UnwindCode], UnwindCode | None]) -> Mutation:
    """Change every unwind code, or drop it, before it is used."""

    def compile_changed(function: Function, rva: int) -> UnwindPlan | Stop:
        parts = []
        for part in function.parts:
            codes = tuple(changed for changed in map(change, part.info.codes) if changed is not None)
            parts.append(replace(part, info=replace(part.info, codes=codes)))
        return real_compile(replace(function, parts=tuple(parts)), rva)

    return lambda patch: patch.setattr(plan_cache, "compile_codes", compile_changed)


def _without(*ops: UnwindOp) -> Mutation:
    return _with_codes(lambda code: None if code.op in ops else code)


def _truncated(code: UnwindCode) -> UnwindCode:
    return replace(code, value=code.value & 0xFFFF) if code.op is UnwindOp.ALLOC_LARGE else code


def _no_chain(patch: pytest.MonkeyPatch) -> None:
    """Take the first entry of a chain for all of it."""
    patch.setattr(plan_cache, "compile_codes", lambda f, rva: real_compile(replace(f, parts=f.parts[:1]), rva))


def _whole_prologue(patch: pytest.MonkeyPatch) -> None:
    """Apply all codes wherever the frame stands."""
    patch.setattr(Part, "position", lambda part, rva: 1 << 20)


def _operand_slots_as_codes(patch: pytest.MonkeyPatch) -> None:
    """Read the operand slot of an XMM save as the next code."""
    patch.setitem(unwind_info._OPERANDS, UnwindOp.SAVE_XMM128, 0)


def _no_leaves(patch: pytest.MonkeyPatch) -> None:
    """Know nothing of a function without an entry, and do not follow its code either."""
    patch.setattr(without_unwind_data, "ahead_of", lambda *_, **__: without_unwind_data.Ahead((), False))
    real = plan_cache.PlanCache._plan_interrupted
    patch.setattr(
        plan_cache.PlanCache,
        "_plan_interrupted",
        lambda self, ip: None if real(self, ip) is plan_cache.LEAF else real(self, ip),
    )


X64: dict[str, Mutation] = {
    "SET_FPREG ignored": _without(UnwindOp.SET_FPREG),
    "PUSH_NONVOL: register not restored": _with_codes(
        lambda code: replace(code, op=UnwindOp.ALLOC_SMALL, value=8) if code.op is UnwindOp.PUSH_NONVOL else code
    ),
    "SAVE_NONVOL ignored": _without(UnwindOp.SAVE_NONVOL, UnwindOp.SAVE_NONVOL_FAR),
    "ALLOC_LARGE truncated to 16 bits": _with_codes(_truncated),
    "ALLOC_SMALL ignored": _without(UnwindOp.ALLOC_SMALL),
    "operand slots read as codes": _operand_slots_as_codes,
    "chain not followed": _no_chain,
    "position in the prologue ignored": _whole_prologue,
    "no rule for leaf functions": _no_leaves,
}


def _no_callee_parameters(patch: pytest.MonkeyPatch) -> None:
    """Take no account of the arguments that a callee removes."""
    patch.setattr(Callees, "popped_bytes", lambda self, address: 0)
    real = rules.Rules.caller

    def caller(self: rules.Rules, place: Any, stack: StackBounds, size: int, registrations: tuple[int, ...]) -> Any:
        return real(self, place, stack, 0 * size, registrations)

    patch.setattr(rules.Rules, "caller", caller)


def _any_word_returns(patch: pytest.MonkeyPatch) -> None:
    """Take every word that points into code for a return address."""

    def fit(self: ReturnAddresses, place: Any, slot: int, return_address: int) -> Fit:
        if return_address == 0:
            return Fit.OUTERMOST
        return Fit.POSSIBLE if self._code.is_code(return_address) else Fit.NOT_CODE

    patch.setattr(return_address.ReturnAddresses, "fit", fit)


def _ignored(*ops: Opcode) -> Mutation:
    """Let instructions change nothing when a function's code is followed."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for op in ops:
            patch.setitem(symbolic_execution._HANDLERS, op, lambda state, _: state)

    return mutate


def _records_off_by_a_word(patch: pytest.MonkeyPatch) -> None:
    """Look for a frame's return address one word above where its FrameData says."""
    real = frame_data.run_program

    def run_program(program: str, variables: Any, memory: Any) -> Any:
        return real(program, {**variables, ".raSearch": variables[".raSearch"] + 4}, memory)

    patch.setattr(frame_data, "run_program", run_program)


def _no_code(patch: pytest.MonkeyPatch) -> None:
    """Follow no code, neither from a function's start nor to its end."""
    patch.setattr(Prologues, "caller", lambda self, start, place: None)
    patch.setattr(RestOfFunction, "caller", lambda self, place: None)


X86: dict[str, Mutation] = {
    "callee's parameters ignored": _no_callee_parameters,
    "return addresses not validated": _any_word_returns,
    "push ignored": _ignored(Opcode.PUSH),
    "sub esp ignored": _ignored(Opcode.SUB),
    "and esp ignored": _ignored(Opcode.AND),
    "code not followed": _no_code,
    "FrameData off by a word": _records_off_by_a_word,
}


def _x86_frames(*, but: Callable[[Name], bool]) -> Mutation:
    """Leave out the x86 frames of some names when frames are asked for the exception they were given."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        real = x86.from_frame

        def from_frame(target: Target, stack: StackBounds, frame: Frame, name: Name) -> Any:
            return None if but(name) else real(target, stack, frame, name)

        patch.setattr(x86, "from_frame", from_frame)

    return mutate


CONTEXTS: dict[str, Mutation] = {
    "x64: dispatcher's frame not asked": lambda patch: patch.setattr(
        search.x64, "from_dispatcher_frame", lambda *_: None
    ),
    "x64: RtlRaiseException's frame not asked": lambda patch: patch.setattr(
        search.x64, "from_raise_frame", lambda *_: None
    ),
    "x86: filter's argument not asked": _x86_frames(but=lambda name: name.symbol == x86.FILTER),
    "x86: dispatchers' and handlers' frames not asked": _x86_frames(but=lambda name: name.symbol != x86.FILTER),
    "x86: registrations not asked": lambda patch: patch.setattr(x86, "from_registrations", lambda *_: iter(())),
    "stack not searched": lambda patch: patch.setattr(search._Search, "_by_memory", lambda *_, **__: None),
    "words taken for frames": lambda patch: patch.setattr(
        Triage, "_walk", lambda self, stack: self._said(self._beyond.search(stack, None, Proven(0), ()))
    ),
    "the innermost exception only": lambda patch: patch.setattr(search, "MAX_NESTED", 1),
}
