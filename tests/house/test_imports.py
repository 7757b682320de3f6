# SPDX-License-Identifier: Apache-2.0
"""No test module is imported: what several tests share is in tests/support, or beside them under a name of its own."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.vol import CHECKOUT

TESTS = Path(__file__).parents[1]
IMPORTS = re.compile(r"^[ ]*(?:from|import) tests[.\w]*(?:[.]| import [^\n]*| import \([^)]*)\btest_\w+", re.MULTILINE)


def test_every_spelling_of_an_import_is_seen():
    for line in (
        "from tests.pdb import test_msf",
        "import tests.pdb.test_convert",
        "    from tests.pdb.test_omap import x",
        "from tests.pdb import (\n    x,\n    test_msf,\n)",
    ):
        assert IMPORTS.search(line)
    assert not IMPORTS.search("from tests.support.pdb_writer import Pdb\n\ndef test_a(): ...")


def test_no_test_module_is_imported():
    files = [*TESTS.rglob("*.py"), *TESTS.parent.glob("benchmarks/*.py")]
    found = {
        path.relative_to(TESTS.parent).as_posix(): IMPORTS.findall(path.read_text(encoding="utf-8")) for path in files
    }
    del found[Path(__file__).relative_to(TESTS.parent).as_posix()]
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_only_the_room_for_it_imports_volatility():
    """import-linter holds the engine's rooms; this holds what is outside them, and imports that are made by name."""
    allowed = ("throwstack/volatility/",)
    found = [
        path.relative_to(CHECKOUT).as_posix()
        for path in sorted((CHECKOUT / "throwstack").rglob("*.py"))
        if re.search(
            r"^\s*(from|import) volatility3|import_module\(.volatility3", path.read_text("utf-8"), re.MULTILINE
        )
    ]
    assert [name for name in found if not name.startswith(allowed)] == []
    assert found
