# SPDX-License-Identifier: Apache-2.0
"""A kernel's symbols without one of the members that are asked for: one clear line, or the rows without a column.

`THROWSTACK_EVERY_MEMBER=1` takes every member away in its turn; without it a sample does, another of each case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from volatility3.framework import exceptions

from tests.conftest import Forge
from tests.support.checkout_plugins import CXRSTACK, PLUGINS, STACKWALK, UNHANDLED
from tests.support.isf_members import recorded, without
from tests.support.volatility_session import Session, open_dump
from throwstack.volatility.memory.required import LIST_HEAD, REQUIRED

EVERY = {"service-x64": 4, "ftp-2003": 16, "wow64-service": 16}
"""Of the members that a case asks for, one in so many is taken away."""
SHARED = {"_TEB.ClientId.UniqueThread"}
"""Members of a structure that a required member is in too: `_ETHREAD.Cid` and `_TEB.ClientId` are of one type."""
IS_SAID = {"_EPROCESS.WoW64Process"}
"""Without it 32-bit processes are not looked at, and a warning says so."""
Row = dict[str, Any]


@pytest.fixture(scope="module", params=list(EVERY))
def case(request: pytest.FixtureRequest, forged: Forge) -> Iterator[tuple[Session, int]]:
    out, _ = forged(request.param)
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        yield session, 1 if os.environ.get("THROWSTACK_EVERY_MEMBER") else EVERY[request.param]


def identities(rows: list[Row]) -> set[tuple[Any, Any]]:
    return {(row["PID"], row["TID"]) for row in rows}


def test_a_member_that_is_required_is_named_in_one_line(case: tuple[Session, int]):
    session, _ = case
    for path in (*REQUIRED, f"!{LIST_HEAD}"):
        with without(session, path), pytest.raises(exceptions.SymbolSpaceError) as caught:
            session.rows(UNHANDLED)
        message = str(caught.value)
        assert message.startswith(f"the kernel's symbols have no {path.removeprefix('!')}: ")
        assert "make it anew from the kernel's PDB" in message
        assert "\n" not in message


def test_any_other_member_costs_its_column_or_its_route(case: tuple[Session, int], caplog: pytest.LogCaptureFixture):
    session, step = case
    with recorded() as asked:
        whole = [session.rows(plugin) for plugin in PLUGINS]
    assert caplog.messages == []
    others = [
        path
        for path in sorted(asked)
        if path not in SHARED and not any(name == path or name.startswith(f"{path}.") for name in REQUIRED)
    ]
    assert len(others) > 100
    for path in others[::step]:
        caplog.clear()
        with without(session, path):
            found = [session.rows(plugin) for plugin in PLUGINS]
        if path in IS_SAID and identities(found[0]) < identities(whole[0]):
            assert path in caplog.text
            continue
        for rows, before in zip(found, whole, strict=True):
            assert identities(rows) == identities(before), path
        for row, before in zip(found[0], whole[0], strict=True):
            for column in ("Code", "Address", "Exception", "Thrown At", "Record", "Context"):
                assert str(row[column]) == str(before[column]), (path, column)


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("_ETHREAD.Tcb.WaitTime", {"Blocked Since"}),
        ("_EPROCESS.ImageFileName", {"Process"}),
        ("_KUSER_SHARED_DATA.SystemTime", {"Blocked Since"}),
        ("_PEB.ProcessParameters", set()),
    ],
)
def test_a_missing_optional_member_costs_only_its_column(forged: Forge, path: str, columns: set[str]):
    out, _ = forged("service-x64")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        whole = session.rows(UNHANDLED)
        stacks = session.rows(CXRSTACK)
        with without(session, path):
            found = session.rows(UNHANDLED)
            assert len(session.rows(CXRSTACK)) == len(stacks)
            assert len(session.rows(STACKWALK)) > len(stacks)
    for row, before in zip(found, whole, strict=True):
        assert {name for name in row if str(row[name]) != str(before[name])} == columns
