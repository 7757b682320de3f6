# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: a service with two stuck threads, one on a C++ exception, one on an access violation."""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases.machine_x64 import HEAP, Site

PID = 0x14B8


def build() -> Case:
    """Return the machine and the truth about it."""
    site = Site("service-x64")
    process, threads = site.service(PID)
    site.add(process, threads.idle(0x14BC, "main", 3000), threads.idle(0x14C0, "pool", 5100))
    site.add(process, threads.throw(0x14C8, HEAP, 6400), threads.fault(0x14CC, 6900))
    site.add(process, threads.recovered(0x14D0, 6000), threads.with_filter_address(0x14D4, 6100))
    site.add(process, threads.idle(0x14D8, "sleep", 7100))
    return site.case()
