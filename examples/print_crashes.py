# SPDX-License-Identifier: Apache-2.0
"""Prints type, message and throwing stack of every crash: `python print_crashes.py MEMORY.DMP [SYMBOLS]`."""

import sys

import throwstack

with throwstack.open(sys.argv[1], symbols=sys.argv[2:]) as dump:
    for crash in dump.crashes():
        if crash.exception:
            print(f"{crash.process.name}: {crash.exception.title} {crash.exception.message}".rstrip())
        for frame in crash.throwing.frames if crash.throwing else ():
            print(f"    {frame.name}")
