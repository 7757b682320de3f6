# SPDX-License-Identifier: Apache-2.0
"""What a dump's runtime was like, told without the data of the dump."""

from __future__ import annotations

from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from throwstack.managed.structure_summary import structure_summary


def test_offsets_and_counts_are_told_and_no_names_or_addresses() -> None:
    process = ForgedRuntime(Style.FRAMEWORK_4)
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"], 0))
    order = process.exception("Shop.OrderException", "secret", _stackTrace=stack)
    process.thread(0x14, order, "worker")
    process.thread(0x18)
    lines = structure_summary(process.runtime(), [0x14, 0x18])
    assert lines == [
        "runtime: .NET Framework 4",
        "described by a contract: no",
        "id and TEB in a Thread: at 0x1b8 and 0x98; 2 of 2 Threads were found",
        "handle of the last thrown exception: at 0x1e0",
        "handle of the own object: not found",
        "EEClass at 0x28, back at 0x10; 5 of 5 places were types",
        "methods: ChunkForm(size=24, range_at=18, range_size=2, alignment=8, bits=14); 5 of 5 types have metadata",
        "threads: 2, without an exception 1",
        "exceptions: 1, with a class 1, with a message 1, with reasons 0",
        "recorded frames: 1, with a name 1, with parameters 1",
    ]
