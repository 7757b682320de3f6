# SPDX-License-Identifier: Apache-2.0
"""ISF members that go missing: which ones the code asks for, and the tables of an opened dump without one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.support.volatility_session import Session
from throwstack.volatility.memory.layout import Layout


@contextlib.contextmanager
def recorded() -> Iterator[set[str]]:
    """Collect the members and types that layouts are asked for, and have."""
    found: set[str] = set()
    resolve, of_type = Layout._resolve, Layout._type

    def noting_member(layout: Layout, path: str) -> Any:
        answer = resolve(layout, path)
        found.update([path] if answer is not None and layout._table.startswith("symbol_table") else [])
        return answer

    def noting_type(layout: Layout, name: str) -> Any:
        answer = of_type(layout, name)
        found.update([name] if layout._table.startswith("symbol_table") else [])
        return answer

    Layout._resolve, Layout._type = noting_member, noting_type  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Layout._resolve, Layout._type = resolve, of_type  # type: ignore[method-assign]


@contextlib.contextmanager
def without(session: Session, path: str) -> Iterator[None]:
    """Take a member (`_ETHREAD.Tcb.Teb`), a type or, given as `!Name`, a symbol out of the kernel's ISF table."""
    space = session.context.symbol_space
    table = space[session.kernel.symbol_table_name]._delegate._json_object
    place, name = _place(table, path)
    saved = place.pop(name)
    _forget(space)
    try:
        yield
    finally:
        place[name] = saved
        _forget(space)


def _place(table: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds what `path` names, and its key there."""
    if path.startswith("!"):
        return table["symbols"], path[1:]
    type_name, *members = path.split(".")
    if not members:
        return table["user_types"], type_name
    for member in members[:-1]:
        type_name = table["user_types"][type_name]["fields"][member]["type"]["name"]
    return table["user_types"][type_name]["fields"], members[-1]


def _forget(space: Any) -> None:
    space.clear_symbol_cache()
    space._resolved.clear()
    space._resolved_symbols.clear()
