# SPDX-License-Identifier: Apache-2.0
"""Decode every RUNTIME_FUNCTION of the x64 images in the given directories and compare with LIEF.

    python -m tests.unwind.x64.compare_with_lief DIRECTORY…

Wheels in the directories are opened. The exit status says whether there was a difference, and whether there was
anything to compare.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.unwind.x64.lief_codes import Comparison, compare
from tests.unwind.x64.pe_files import find_files

_SHOWN = 20


def main(arguments: list[str]) -> int:
    total = Comparison()
    with tempfile.TemporaryDirectory() as unpacked:
        for path in find_files([Path(argument) for argument in arguments], Path(unpacked)):
            compare(path, total)
    print(f"{total.functions} functions of {total.images} images, {total.codes} codes: {total.by_op}")
    kinds = f"{total.version2} of version 2, {total.chained} chained, {total.indirect} indirect"
    print(f"{kinds}; {total.discarded} entries of discarded functions")
    print(f"{len(total.differences)} differences")
    for difference in total.differences[:_SHOWN]:
        print(f"  {difference}")
    return 0 if total.functions and not total.differences else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
