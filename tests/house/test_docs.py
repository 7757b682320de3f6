# SPDX-License-Identifier: Apache-2.0
"""What documents name exists: files, directories, the targets of links. A rename has to reach them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.vol import CHECKOUT

PATHS = re.compile(r"`((?:throwstack|tests|docs|plugins|symbols|benchmarks|distribution)/[\w./-]*)`")


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_that_a_document_names_exists(document: str):
    named = PATHS.findall((CHECKOUT / document).read_text("utf-8"))
    assert named
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


LINKS = re.compile(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)")
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "CHANGELOG.md"]
DOCUMENTS += sorted((CHECKOUT / "docs").rglob("*.md"))


def anchors(document: Path) -> set[str]:
    """Return the anchors that the headings of a document have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path):
    for target, anchor in LINKS.findall(document.read_text("utf-8")):
        path = (document.parent / target) if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}{anchor}"


def test_the_table_of_floors_has_every_room_in_the_order_that_the_linter_holds():
    text = (CHECKOUT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("## The floors")[2].partition("Inside `volatility/`")[0]
    layers = (CHECKOUT / "pyproject.toml").read_text("utf-8").partition("layers = [")[2].partition("]")[0]
    rooms = [name for name in re.findall(r'"(\w+)"', layers) if (CHECKOUT / "throwstack" / name).is_dir()]
    assert re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE) == rooms
