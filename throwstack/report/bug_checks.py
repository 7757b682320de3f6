# SPDX-License-Identifier: Apache-2.0
"""Names of bug check codes, from the table `data/bugchecks.tsv`. A code that is not in the table has no name."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


def bug_check_name(code: int) -> str:
    """Return the name of a code, `KERNEL_DATA_INPAGE_ERROR` for 0x7A, or "" for a code that is not in the table."""
    return _names().get(code & 0xFFFFFFFF, "")


@cache
def _names() -> dict[int, str]:
    lines = (files("throwstack.report") / "data" / "bugchecks.tsv").read_text("ascii").splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return {int(code, 16): name for code, name in rows}
