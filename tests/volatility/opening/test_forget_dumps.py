# SPDX-License-Identifier: Apache-2.0
"""What Volatility keeps of dumps that were closed, in a process of its own: others keep dumps of other tests."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import Forge
from tests.support.vol import CHECKOUT

COUNTS = """
import gc, sys
from volatility3.framework import contexts
import throwstack
from throwstack.volatility.opening.forget_dumps import forget_dumps

def alive():
    return sum(isinstance(each, contexts.Context) for each in gc.get_objects())

before = alive()
with throwstack.open(sys.argv[1], symbols=sys.argv[2], offline=True) as dump:
    dump.report()
del dump
gc.collect()
kept = alive()
forget_dumps()
print(before, kept, alive())
"""


def test_nothing_is_left_of_a_dump_that_was_closed(forged: Forge):
    """Without this it would be alive: that is checked as well, or the test could not fail."""
    out, _ = forged("service-x64")
    command = [sys.executable, "-c", COUNTS, str(out / "MEMORY.DMP"), str(out / "isf")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    before, kept, left = map(int, done.stdout.split())
    assert kept > before
    assert left == before
