# SPDX-License-Identifier: Apache-2.0
"""Writes the whole report of a dump as JSON: `python report_as_json.py MEMORY.DMP [SYMBOLS] > report.json`.

`docs/schema` describes the fields.
"""

from __future__ import annotations

import json
import sys

import throwstack


def main() -> int:
    """Return 0 if a thread is stuck, 1 if none is, 2 if the dump cannot be examined."""
    try:
        with throwstack.open(sys.argv[1], symbols=sys.argv[2:]) as dump:
            report = dump.report()
    except throwstack.ThrowstackError as error:
        print(error, file=sys.stderr)
        return 2
    json.dump(throwstack.to_json(report), sys.stdout, indent=2)
    return 0 if report.crashes else 1


if __name__ == "__main__":
    sys.exit(main())
