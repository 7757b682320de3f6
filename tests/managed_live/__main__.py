# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.managed_live`: crashes .NET processes, and compares what is said of them with what they printed.

python -m tests.managed_live make   [--only TEXT …] [--quick]   fetch, build, crash, capture: .live/managed/FIXTURE/
python -m tests.managed_live check  [--only TEXT …] [--quick]   run the plugin on what was made, and compare
python -m tests.managed_live all                                both; exit code 1 when something is not as it should be
python -m tests.managed_live dump   [--only TEXT …]             keep whole dumps: .live/managed/FIXTURE/MEMORY.DMP
python -m tests.managed_live table  [--out FILE]                write the table of docs/agreement.md, of the last check
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.managed_live import managed_check, managed_make, managed_table
from tests.support.document_sections import replace_section

WORK = Path(".live")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="tests.managed_live", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("make", "check", "all", "dump", "table"))
    parser.add_argument("--only", nargs="*", default=[], help="fixtures whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="two programs a runtime")
    parser.add_argument("--work", type=Path, default=WORK, help="directory for everything made (.live)")
    parser.add_argument("--out", type=Path, default=Path("docs/agreement.md"), help="the document of `table`")
    options = parser.parse_args()
    out = managed_make.out_folder(options.work)
    if options.step == "table":
        replace_section(options.out, managed_table.TITLE, managed_table.section(managed_table.results(out)))
        return 0
    if options.step == "dump":
        managed_check.write_dumps(out, options.only)
        return 0
    makes, checks = options.step in {"make", "all"}, options.step in {"check", "all"}
    not_made = managed_make.make(options.work, options.only, quick=options.quick) if makes else []
    code = managed_check.check(out, options.only, quick=options.quick) if checks else 0
    for line in not_made:
        print(line)  # noqa: T201 - said last, where whoever reads a failed run looks first
    return 1 if not_made else code


if __name__ == "__main__":
    sys.exit(main())
