# SPDX-License-Identifier: Apache-2.0
"""What the report on a thread says of the function that it began with."""

from __future__ import annotations

from throwstack.names.symbols import Certainty, Name, SymbolKind
from throwstack.report.thread_report import StartRoutine, start_routine
from throwstack.report.values import Hexadecimal


def test_start_that_has_only_the_nearest_export_is_marked():
    """KERNEL32 of Server 2003 does not export BaseThreadStartThunk; the nearest export before it is Sleep."""
    near = Name(0x77E617EC, "KERNEL32", "Sleep", 0x1F30E, SymbolKind.EXPORT, certainty=Certainty.DOUBTFUL)
    made = start_routine(0x77E617EC, near)
    assert made == StartRoutine(Hexadecimal(0x77E617EC), "KERNEL32!Sleep+0x1f30e?", is_named=True)


def test_start_of_a_function_that_has_a_symbol_is_not_marked():
    made = start_routine(0x1000, Name(0x1000, "app", "Work", 0, SymbolKind.PDB))
    assert made == StartRoutine(Hexadecimal(0x1000), "app!Work", is_named=True)


def test_start_outside_all_modules_has_its_address_only_and_a_thread_without_a_start_has_none():
    assert start_routine(0x1000, Name(0x1000)) == StartRoutine(Hexadecimal(0x1000), "0x1000")
    assert start_routine(0x1000, None) == StartRoutine(Hexadecimal(0x1000))
    assert start_routine(0, None) is None
