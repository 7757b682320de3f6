# SPDX-License-Identifier: Apache-2.0
"""The files and directories that CONTRIBUTING and docs/architecture.md name exist: a rename has to reach them."""

from __future__ import annotations

import re

import pytest

from tests.support.vol import CHECKOUT

PATHS = re.compile(r"`((?:throwstack|tests|docs|plugins|symbols|benchmarks|distribution)/[\w./-]*)`")


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_that_a_document_names_exists(document: str):
    named = PATHS.findall((CHECKOUT / document).read_text("utf-8"))
    assert named
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


def test_the_table_of_floors_has_every_room_in_the_order_that_the_linter_holds():
    text = (CHECKOUT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("## The floors")[2].partition("Inside `volatility/`")[0]
    layers = (CHECKOUT / "pyproject.toml").read_text("utf-8").partition("layers = [")[2].partition("]")[0]
    rooms = [name for name in re.findall(r'"(\w+)"', layers) if (CHECKOUT / "throwstack" / name).is_dir()]
    assert re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE) == rooms
