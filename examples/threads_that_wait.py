# SPDX-License-Identifier: Apache-2.0
"""Prints what the threads of a process wait for, and where: `python threads_that_wait.py PID MEMORY.DMP [SYMBOLS]`."""

from __future__ import annotations

import sys

import throwstack


def main() -> None:
    """Print a line for each thread, and its innermost function outside the system's modules."""
    with throwstack.open(sys.argv[2], symbols=sys.argv[3:]) as dump:
        for thread in dump.threads(pids=[int(sys.argv[1])]):
            wait = thread.wait
            print(thread.tid, thread.state, *((wait.reason, wait.seconds, *wait.objects) if wait else ()))
            for _, frame in thread.frames:
                if frame.module.lower() not in {"nt", "ntdll", "kernel32", "kernelbase", "user32"}:
                    print(f"    {frame.name}")
                    break


if __name__ == "__main__":
    main()
