# SPDX-License-Identifier: Apache-2.0
"""A name exists once: no two modules and no two public classes of the engine and the plugins share one.

So a reader who meets a name in an import, a traceback or a conversation knows which file it is in. Packages count as
modules. Names that are shared on purpose are listed here with the reason.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.vol import CHECKOUT

_ROOTS = ("throwstack", "plugins")

SHARED_MODULES = {
    "__init__": "Python's name for a package",
    "__main__": "Python's name for what `-m` runs",
    "x64": "per architecture: unwind/x64/ and what dispatch does on x64",
    "x86": "per architecture: unwind/x86/ and what dispatch does on x86",
    "unwinder": "per architecture: the entry point of unwind/x64/ and of unwind/x86/",
    "text": "core/text.py makes strings of a dump fit to show; the room report/text/ writes the report as text",
    "memory": "core/memory.py reads any memory; the room volatility/memory/ makes such memories of Volatility's layers",
}
SHARED_CLASSES = {
    "Unwinder": "per architecture, and the protocol in unwind/target.py that both follow",
}


def sources() -> Iterator[Path]:
    for root in _ROOTS:
        yield from sorted((CHECKOUT / root).rglob("*.py"))


def modules() -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each module; a package's name is its directory's."""
    for path in sources():
        yield path.stem, path.relative_to(CHECKOUT).as_posix()
        if path.stem == "__init__":
            yield path.parent.name, path.parent.relative_to(CHECKOUT).as_posix() + "/"


def public_classes() -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each class at the top of a module whose name has no underscore in front."""
    for path in sources():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path.relative_to(CHECKOUT).as_posix()


def shared(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that are there more than once, with the paths of each."""
    paths = defaultdict(list)
    for name, path in named:
        paths[name].append(path)
    return {name: where for name, where in paths.items() if len(where) > 1}


def test_no_two_modules_share_a_name():
    assert {name: where for name, where in shared(modules()).items() if name not in SHARED_MODULES} == {}


def test_no_two_public_classes_share_a_name():
    assert {name: where for name, where in shared(public_classes()).items() if name not in SHARED_CLASSES} == {}


def test_the_lists_of_shared_names_hold_no_name_that_is_unique():
    assert set(SHARED_MODULES) - {"__main__"} <= set(shared(modules()))
    assert set(SHARED_CLASSES) <= set(shared(public_classes()))
