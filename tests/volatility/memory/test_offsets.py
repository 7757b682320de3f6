# SPDX-License-Identifier: Apache-2.0
"""Declared offsets, looked up in a table of a few members."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from throwstack.volatility.memory.offsets import MissingMembers, offset, size, take

XP = {"_MMVAD_SHORT.LeftChild": 4, "_MMVAD_SHORT.Parent": 0, "_PEB32.Ldr": 0xC}


class Symbols:
    def find(self, path: str) -> int | None:
        return XP.get(path)

    def size(self, name: str) -> int | None:
        return {"_KTRAP_FRAME": 0x8C}.get(name)


@dataclass(frozen=True, slots=True)
class Node:
    left: int = offset("_MMVAD_SHORT.VadNode.Left", "_MMVAD_SHORT.LeftChild")
    parent: int | None = offset("_MMVAD_SHORT.Parent", optional=True)
    balance: int | None = offset("_MMVAD_SHORT.Balance", optional=True)
    frame: int = size("_KTRAP_FRAME")


@dataclass(frozen=True, slots=True)
class Peb:
    ldr: int = offset("_PEB.Ldr")


@dataclass(frozen=True, slots=True)
class OfWindows11:
    left: int = offset("_MMVAD_SHORT.VadNode.Left", "_MMVAD_SHORT.VadNode.LeftChild")
    frame: int = size("_KSWITCH_FRAME")
    parent: int = offset("_MMVAD_SHORT.Parent")


def test_the_first_path_that_the_symbols_have_is_taken():
    assert take(Node, Symbols()) == Node(left=4, parent=0, balance=None, frame=0x8C)


def test_types_of_wow64_carry_a_suffix():
    assert take(Peb, Symbols(), "32") == Peb(ldr=0xC)


def test_all_missing_members_are_named_at_once():
    with pytest.raises(MissingMembers) as caught:
        take(OfWindows11, Symbols())
    assert caught.value.names == (
        "_MMVAD_SHORT.VadNode.Left or _MMVAD_SHORT.VadNode.LeftChild",
        "_KSWITCH_FRAME",
    )
