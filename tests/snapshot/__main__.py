# SPDX-License-Identifier: Apache-2.0
"""What the plugins and `throwstack doctor` print on every forged dump and live capture, to compare two commits.

    python -m tests.snapshot OUT                     of this checkout
    python -m tests.snapshot OUT --checkout DIR      of the product code of another one, on the same dumps
    python -m tests.snapshot --compare BEFORE AFTER

OUT gets a directory for each dump, with NAME.txt and NAME.json for each command (tests/snapshot/commands.py), without
paths. The forged dumps are kept in --dumps: remove that directory when the forge has changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.snapshot.compare import differences
from tests.snapshot.take import take

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the command; return its exit status: 1 where snapshots differ or a dump could not be looked at."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.snapshot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", metavar="OUT", type=Path)
    parser.add_argument("--checkout", metavar="DIR", type=Path, default=CHECKOUT, help="whose product code to run")
    parser.add_argument("--dumps", metavar="DIR", type=Path, default=CHECKOUT / "build/snapshot/dumps")
    parser.add_argument("--live", metavar="DIR", type=Path, default=CHECKOUT / ".live", help="of `make test-live`")
    parser.add_argument("--only", metavar="TEXT", action="append", default=[], help="dumps with this in their name")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="dumps looked at side by side")
    parser.add_argument("--compare", metavar=("BEFORE", "AFTER"), nargs=2, type=Path, help="print how two differ")
    parser.add_argument("--lines", metavar="N", type=int, default=40, help="of --compare: most lines for each file")
    options = parser.parse_args()
    if options.compare:
        for folder in options.compare:
            if not folder.is_dir():
                parser.error(f"no snapshot {folder}")
        found = list(differences(*options.compare, lines=options.lines))
        sys.stdout.writelines(f"{line}\n" for line in found or ["equal"])
        return 1 if found else 0
    if options.out is None:
        parser.error("OUT is needed (or --compare)")
    if not (options.checkout / "throwstack").is_dir():
        parser.error(f"{options.checkout} is no checkout")
    out, checkout, dumps = (path.resolve() for path in (options.out, options.checkout, options.dumps))
    return take(out, checkout, dumps, options.live.resolve(), jobs=options.jobs, only=options.only)


if __name__ == "__main__":
    sys.exit(main())
