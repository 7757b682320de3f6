# SPDX-License-Identifier: Apache-2.0
"""Finds the filter of .NET that runs during the dispatch of an exception: `catch (Exception e) when (Asks(e))`.

On x64 the runtime compiles a filter as a funclet, a part of its method with unwind data of its own, and calls it from
the handler that the dispatcher calls. Stack of a filter that waits, innermost first:

    Shop.Program.Asks(Exception e)
    Shop.Program.Run()                  the filter: Run's funclet, which has its method's name
    coreclr                             some frames of the runtime
    ntdll!RtlDispatchException

The runtime calls other managed code from there as well, handlers of AppDomain.UnhandledException: these are whole
methods. Funclets of finally and catch blocks are called when a handler has taken the exception, which is told before.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.images.function_table import RuntimeFunction
from throwstack.managed.runtime_module import is_runtime
from throwstack.names.symbols import Name, SymbolKind
from throwstack.unwind.target import Target


def managed_filter(target: Target, names: Sequence[Name]) -> Name | None:
    """Return the name of the filter that the runtime has called; None if what was called is no filter.

    `names` are those of the frames from the handler inwards, each with its frame's address.
    """
    for index, name in enumerate(names):
        if name.kind is SymbolKind.CLR:
            return name if index and _is_funclet(target, name) else None
        image = target.images.find(name.address)
        if image is None or not is_runtime(image):
            return None
    return None


def _is_funclet(target: Target, name: Name) -> bool:
    """Say whether the code at a managed frame's address has unwind data of its own, apart from its method's begin."""
    start, image = name.address - name.offset, target.images.find(name.address)
    if image is not None:
        entry = None if image.function_table is None else image.function_table.find(name.address - image.base)
        return isinstance(entry, RuntimeFunction) and image.base + entry.begin > start
    known = None if target.outside is None else target.outside.function(name.address)
    return known is not None and known.entry is not None and known.base + known.entry.begin > start
