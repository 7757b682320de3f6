# SPDX-License-Identifier: Apache-2.0
"""A forged process with a runtime in which a thread threw several exceptions, for attacks on it."""

from __future__ import annotations

from functools import cache

from tests.support.managed_heap import APP, CORELIB, HEAP, STACK, STRUCTURES, ForgedRuntime, Style
from throwstack.core.registers import Arch
from throwstack.managed.managed_exception import ManagedException

TID = 0x14
AREAS = (HEAP, STRUCTURES, APP, CORELIB)


@cache
def with_aggregate(style: Style, arch: Arch) -> tuple[ForgedRuntime, dict[int, bytes]]:
    """Return a process in which a thread threw an aggregate of two exceptions, and its pages as they were made."""
    process = ForgedRuntime(style, arch)
    methods = process.types["Shop.Program"].methods
    stack = process.trace(
        (APP + 0x10, STACK, methods["Run"], 0), (APP, STACK + 8, process.dynamic_method("dyn_calc"), 1)
    )
    first = process.exception("Shop.OrderException", "first", _stackTrace=stack)
    second = process.exception("System.ArgumentException", "second", _paramName=process.string("key"))
    many = process.exception(
        "System.AggregateException", "many", _innerExceptions=process.references(first, second), _innerException=first
    )
    process.thread(TID, many, "worker")
    process.place(STACK, many.to_bytes(process.size, "little"))
    return process, {address: bytes(page) for address, page in process.pages.items()}


def texts(found: ManagedException) -> list[str]:
    """Return every text that a user may see of an exception."""
    own = [found.type_name, found.message or "", found.remote_stack or "", *found.bases, *found.reasons]
    for frame in found.stack:
        own += [frame.method.name, frame.method.parameters, frame.method.reason]
    return own + [text for inner in found.inner for text in texts(inner)]


def ask(process: ForgedRuntime) -> list[str]:
    """Ask everything of a process; return every text that a user may see."""
    runtime = process.runtime()
    thrown = runtime.last_thrown(TID)
    assert (thrown.exception is None) == bool(thrown.reason)
    seen = [item.exception for item in runtime.exceptions_on_stack(STACK, STACK + 0x100)]
    shown = [runtime.thread_name(TID), runtime.version, thrown.reason]
    return shown + [text for found in [*seen, thrown.exception] if found is not None for text in texts(found)]
