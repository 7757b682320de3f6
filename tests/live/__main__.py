# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.live`: makes every fixture, runs the plugins on it and compares; or the steps one by one.

python -m tests.live make    [--only TEXT …]   build, crash, capture, forge: .live/out/FIXTURE/
python -m tests.live check   [--only TEXT …]   run the plugins on what was made, and compare with the truth
python -m tests.live all                       both; exit code 1 when something is not as it should be
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.live import check, make

WORK = Path(".live")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="tests.live", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("make", "check", "all"))
    parser.add_argument("--only", nargs="*", default=[], help="fixtures whose name contains one of these")
    parser.add_argument("--work", type=Path, default=WORK, help="directory for everything made (.live)")
    options = parser.parse_args()
    not_made = make.make(options.work, options.only) if options.step in {"make", "all"} else []
    code = check.check(options.work / "out", options.only) if options.step in {"check", "all"} else 0
    for line in not_made:
        print(line)  # noqa: T201 - said last, where whoever reads a failed run looks first
    return 1 if not_made else code


if __name__ == "__main__":
    sys.exit(main())
