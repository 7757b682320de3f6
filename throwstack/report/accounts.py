# SPDX-License-Identifier: Apache-2.0
"""Names of accounts that have the same SID on every machine (MS-DTYP, section 2.4.2.4), in Windows' English spelling.

The accounts of people have SIDs of their machine or domain. Their names are in the registry or in no memory at all, so
that they have none here.
"""

from __future__ import annotations

import re

_WELL_KNOWN = {
    "S-1-5-7": r"NT AUTHORITY\ANONYMOUS LOGON",
    "S-1-5-17": r"NT AUTHORITY\IUSR",
    "S-1-5-18": r"NT AUTHORITY\SYSTEM",
    "S-1-5-19": r"NT AUTHORITY\LOCAL SERVICE",
    "S-1-5-20": r"NT AUTHORITY\NETWORK SERVICE",
}
_OF_DESKTOP = {"90": r"Window Manager\DWM-{}", "96": r"Font Driver Host\UMFD-{}"}
_ENDS = {"500": "Administrator", "501": "Guest", "503": "DefaultAccount", "504": "WDAGUtilityAccount"}
"""Accounts that each machine and domain has, by the last number of their SID."""
_DESKTOP = re.compile(r"S-1-5-(90|96)-0-(\d+)")
_OF_MACHINE = re.compile(r"S-1-5-21-\d+-\d+-\d+-(\d+)")


def account_name(sid: str) -> str:
    r"""Return the name of the account with a well-known SID, `NT AUTHORITY\SYSTEM` for `S-1-5-18`; "" for another."""
    desktop, machine = _DESKTOP.fullmatch(sid), _OF_MACHINE.fullmatch(sid)
    if desktop:
        return _OF_DESKTOP[desktop[1]].format(desktop[2])
    return _ENDS.get(machine[1], "") if machine else _WELL_KNOWN.get(sid, "")
