# SPDX-License-Identifier: Apache-2.0
"""The command of `make mutants`."""

from __future__ import annotations

import argparse
import math
import sys

from tests.mutants.run import ROOMS, Results, candidates, rates, sample, try_all
from tests.support.vol import CHECKOUT

KEPT = CHECKOUT / "build" / "mutants"
"""What came of mutants. What is noticed is not tried again while its module is the same. Delete it to begin anew."""


def main() -> int:
    """Try mutants and print what survived. Returns 1 if fewer were noticed than `--least` asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", choices=[*ROOMS, []], help="default: all")
    parser.add_argument("--only", default="", help="modules whose path has this text")
    parser.add_argument("--sample", type=int, default=0, help="try so many of each room")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="try so many at a time")
    parser.add_argument("--quick", action="store_true", help="only the tests named after the module")
    parser.add_argument("--longest", type=float, default=math.inf, help="leave out tests that take more seconds")
    parser.add_argument("--least", type=float, default=0, help="percentage of a room that has to be noticed")
    options = parser.parse_args()
    is_good = True
    for room in options.rooms or ROOMS:
        chosen = sample(candidates(room, options.only), options.sample, options.seed)
        results = Results(KEPT / f"{room}.jsonl")
        tried = try_all(room, chosen, results, jobs=options.jobs, is_quick=options.quick, longest=options.longest)
        print(f"{room}:\n{rates(tried)}", flush=True)  # noqa: T201
        is_good &= 100 * sum(each.is_killed for each in tried) >= options.least * len(tried)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
