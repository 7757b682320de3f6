# SPDX-License-Identifier: Apache-2.0
"""What Volatility keeps of dumps that were closed."""

from __future__ import annotations

import gc

from volatility3.framework import contexts

import throwstack
from tests.conftest import Forge
from throwstack.volatility.opening.forget_dumps import forget_dumps


def alive() -> int:
    return sum(isinstance(each, contexts.Context) for each in gc.get_objects())


def test_nothing_is_left_of_a_dump_that_was_closed(forged: Forge):
    """Without this it would be alive: that is checked first, or the test could not fail."""
    out, _ = forged("service-x64")
    forget_dumps()
    before = alive()
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", offline=True) as dump:
        dump.report()
    del dump
    gc.collect()
    assert alive() > before
    forget_dumps()
    assert alive() == before
