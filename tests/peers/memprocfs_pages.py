# SPDX-License-Identifier: Apache-2.0
"""Reads pages of a process with MemProcFS: `-m tests.peers.memprocfs_pages DUMP OUT PID ADDRESS...`.

Writes JSON lines: one for each page that is not all zeros, and a last one, which shows that nothing is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import memprocfs

_PAGE = 0x1000


def main(dump: str, out: str, pid: str, *addresses: str) -> None:
    """Open, read, write."""
    memory = memprocfs.Vmm(["-device", dump, "-disable-symbolserver", "-waitinitialize"]).process(int(pid)).memory
    with Path(out).open("w", encoding="utf-8") as file:
        for address in map(int, addresses):
            page = memory.read(address, _PAGE)
            if any(page):
                file.write(json.dumps({"address": address, "page": page.hex()}) + "\n")
        file.write(json.dumps({"done": len(addresses)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
