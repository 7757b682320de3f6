# SPDX-License-Identifier: Apache-2.0
"""Counts equal crashes over many dumps: `python group_by_signature.py SYMBOLS DUMP [DUMP …]`.

A dump that cannot be examined, and whatever may have hidden a crash, is said as well: no row is no proof.
"""

from __future__ import annotations

import sys
from collections import Counter

import throwstack


def main() -> None:
    """Print each signature with the number of its crashes, the most frequent first."""
    found: Counter[str] = Counter()
    for path in sys.argv[2:]:
        try:
            with throwstack.open(path, symbols=[sys.argv[1]]) as dump:
                report = dump.report()
        except throwstack.ThrowstackError as error:
            print(error, file=sys.stderr)
            continue
        found.update(str(crash.signature or crash.blocked_in) for crash in report.crashes)
        for hidden in (*report.warnings, *report.unexamined):
            print(f"{path}: {throwstack.to_json(hidden)}", file=sys.stderr)
    for signature, count in found.most_common():
        print(f"{count:5} {signature}")


if __name__ == "__main__":
    main()
