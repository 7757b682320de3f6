# SPDX-License-Identifier: Apache-2.0
"""Says which service a process runs, by its command line.

Since Windows 10 1703, a service of svchost has a process to itself on machines with enough memory, and its command line
names it: `svchost.exe -k netsvcs -p -s Schedule`. Command lines of other services name none; what the service control
manager knows of them is read where the dump holds it (`throwstack.volatility.objects.service_manager`).
"""

from __future__ import annotations

import re

_SERVICE = re.compile(r"(?:^|[\\\s\"])svchost(?:\.exe)?\"?\s.*?-s\s+\"?([^\s\"]+)", re.IGNORECASE)
_LONGEST = 256
"""The most characters of a service's name (CreateService)."""


def service_named_by(command_line: str) -> str:
    """Return the name of the service that a command line of svchost names; "" if it names none."""
    found = _SERVICE.search(command_line)
    return found[1] if found and len(found[1]) <= _LONGEST else ""
