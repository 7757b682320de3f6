# SPDX-License-Identifier: Apache-2.0
"""Says which functions of a published stack are exported, and as what: from `exports.tsv` and the stack's file."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

from tests.stacks.published import FOLDER, PublishedStack


@cache
def _rules() -> tuple[tuple[tuple[str, ...], str, str], ...]:
    """Return (module patterns, pattern of the function, name in the export table or "")."""
    rules = []
    for line in (FOLDER / "exports.tsv").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            modules, _, names = line.partition("\t")
            for item in names.split():
                name, _, decorated = item.partition("=")
                rules.append((tuple(modules.split()), name, decorated))
    return tuple(rules)


def export_name(stack: PublishedStack, module: str, function: str) -> str:
    """Return the name under which the export table has `function`, or "" if the function is not exported."""
    own = stack.exports.get(f"{module}!{function}")
    if own is not None:
        return own
    for modules, pattern, decorated in _rules():
        if fnmatchcase(function, pattern) and any(fnmatchcase(module.lower(), one) for one in modules):
            return decorated or function
    return ""
