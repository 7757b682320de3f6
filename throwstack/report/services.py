# SPDX-License-Identifier: Apache-2.0
"""Says which service a process runs, by its command line.

Since Windows 10 1703, a service of svchost has a process to itself on machines with enough memory, and its command line
names it: `svchost.exe -k netsvcs -p -s Schedule`. Command lines of other services name none; what the service control
manager knows of them is read where the dump holds it (`throwstack.volatility.objects.service_manager`).
"""

from __future__ import annotations

import re

HOST = "svchost.exe"
_SERVICE = re.compile(r'(?<=\s)-s\s{1,16}"?([^\s"]{1,257})', re.IGNORECASE)
_LONGEST = 256
"""The most characters of a service's name (CreateService)."""


def service_named_by(image: str, command_line: str) -> str:
    """Return the name of the service that the command line of a process names; "" if it names none.

    `image` is the name of the process's image: what another program than svchost has on its command line is no service.
    """
    program, rest = _split(command_line)
    is_host = image.lower() == HOST and program.rpartition("\\")[2].lower() in {HOST, HOST.removesuffix(".exe")}
    found = _SERVICE.search(rest) if is_host else None
    return found[1] if found and len(found[1]) <= _LONGEST else ""


def _split(command_line: str) -> tuple[str, str]:
    """Return the first argument of a command line, without quotation marks, and what follows it."""
    if command_line.startswith('"'):
        program, _, rest = command_line[1:].partition('"')
    else:
        program, space, rest = command_line.partition(" ")
        rest = space + rest
    return program, rest
