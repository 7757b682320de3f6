# SPDX-License-Identifier: Apache-2.0
"""Attacks the engine and the plugins with mutants: `python -m tests.fuzz {engine,plugins}`.

A mutant is made from the seed and its number alone: `--seed S --only N` runs it again and shows what it is.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from tests.fuzz.outcome import Tally
from tests.fuzz.workers import Extent, Runs, outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["engine", "plugins"])
    parser.add_argument("names", nargs="*", help="families of the engine, or cases of the plugins; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--count", type=int, help="how many mutants")
    parser.add_argument("--seconds", type=float, help="how long")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="N", help="this mutant alone, and show it")
    options = parser.parse_args(arguments)
    logging.getLogger("throwstack").addHandler(logging.NullHandler())
    logging.lastResort = None
    tally = Tally(" ".join([options.what, *options.names]), options.seed)
    make = _maker(options.what, options.names, options.seed)
    if options.only is not None:
        with make() as runs:
            outcome = runs.run(options.only)
            outcome.changes = outcome.changes or runs.describe(options.only)
        tally.add(options.only, outcome)
        sys.stdout.write("".join(f"{line}\n" for line in [outcome.family, *outcome.changes, *outcome.silent]))
    else:
        count = options.count if options.count or options.seconds else 1000
        last = time.monotonic()
        with make() as runs:
            runs.prepare()
            for number, outcome in outcomes(runs, Extent(options.first, count, options.seconds), options.jobs):
                for fault in tally.add(number, outcome):
                    sys.stdout.write(tally.described(fault))
                if time.monotonic() - last > 60:
                    sys.stdout.write(f"... {sum(tally.mutants.values())} mutants\n")
                    last = time.monotonic()
                sys.stdout.flush()
    sys.stdout.write(tally.report())
    return int(tally.has_faults)


def _maker(what: str, names: list[str], seed: int) -> Callable[[], AbstractContextManager[Runs]]:
    if what == "plugins":
        from tests.fuzz.plugins import Attack  # noqa: PLC0415 - Volatility is not needed for the engine

        return partial(Attack, names, seed)
    from tests.fuzz.engine import Engine  # noqa: PLC0415

    return partial(Engine, names, seed)


if __name__ == "__main__":
    sys.exit(main())
