# SPDX-License-Identifier: Apache-2.0
"""Our own tables are opened by their path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import volatility3.symbols
from volatility3.framework import constants, contexts

from tests.support.vol import CHECKOUT
from throwstack.volatility.memory.layout import wow64_layout


def test_a_table_of_the_same_name_on_volatilitys_symbol_path_does_not_take_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = json.loads((CHECKOUT / "symbols" / "windows" / "throwstack-wow64.json").read_text(encoding="utf-8"))
    stack_base = table["user_types"]["_NT_TIB32"]["fields"]["StackBase"]
    right, stack_base["offset"] = stack_base["offset"], 0x40
    (tmp_path / "windows").mkdir()
    (tmp_path / "windows" / "throwstack-wow64.json").write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(volatility3.symbols, "__path__", [str(tmp_path), *constants.SYMBOL_BASEPATHS])
    assert wow64_layout(contexts.Context(), "wow64").offset("_TEB32.NtTib.StackBase") == right
