# SPDX-License-Identifier: Apache-2.0
"""Walks the threads of a dump with MemProcFS: `-m tests.peers.memprocfs_child DUMP OUT ROUNDS [PID ...]`.

Runs in a process of its own, for the library is native code that a dump may take down. Writes JSON lines: the time that
opening took, one per thread, and the processor time of the rounds, which shows that nothing is missing.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import memprocfs

_NO_CACHE = 1
"""VMMDLL_FLAG_NOCACHE: a stack that was walked before is walked again. Pages stay cached."""


def frames(stack: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Return (ip, return address, rsp) of each frame.

    Entries go by return addresses: `va-retaddr` is where this entry's frame goes on, and the next one's `va-rsp` is
    that frame's rsp. The last entry ends the list and has no frame.
    """
    return [(entry["va-retaddr"], after["va-retaddr"], after["va-rsp"]) for entry, after in pairwise(stack)]


def main(dump: str, out: str, rounds: str, *pids: str) -> None:
    """Open, walk, write."""
    started = time.perf_counter()
    # Without `-waitinitialize` threads are there only some time later.
    vmm = memprocfs.Vmm(["-device", dump, "-disable-symbolserver", "-waitinitialize"])
    with Path(out).open("w", encoding="utf-8") as file:

        def write(**line: object) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        processes = [item for item in vmm.process_list() if not pids or str(item.pid) in pids]
        threads = [(item, thread["tid"]) for item in processes for thread in item.maps.thread()]
        write(opening=time.perf_counter() - started, processes=len(processes), threads=len(threads))
        seconds = []
        for number in range(max(1, int(rounds))):
            started = time.process_time()
            stacks = [(item.pid, tid, item.maps.thread_callstack(tid, _NO_CACHE)) for item, tid in threads]
            seconds.append(time.process_time() - started)
            for pid, tid, stack in stacks if number == 0 else ():
                write(pid=pid, tid=tid, frames=frames(stack))
        write(rounds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
