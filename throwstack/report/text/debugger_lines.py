# SPDX-License-Identifier: Apache-2.0
"""The commands with which one goes on in WinDbg: the process, the thread, the CONTEXT, the stack."""

from __future__ import annotations

from throwstack.report.crash_report import CrashReport
from throwstack.report.text.spelling import bare_address, is_64bit_code, is_wide


def debugger_commands(crash: CrashReport) -> list[str]:
    """Return the commands, `.process /r /p 8948fa08` and so on; none if nothing is known that they take."""
    commands = []
    if crash.eprocess is not None:
        commands.append(f".process /r /p {_bare(crash.eprocess)}")
    if crash.ethread is not None:
        commands.append(f".thread {'/w ' if crash.arch == 'wow64' else ''}{_bare(crash.ethread)}")
    exception = crash.exception
    if exception is not None and exception.context_address is not None:
        context = bare_address(exception.context_address, is_64bit=is_64bit_code(crash))
        commands.append(f".cxr {context}")
    return [*commands, "k" if is_64bit_code(crash) else "kb"] if commands else []


def _bare(value: int) -> str:
    return bare_address(value, is_64bit=is_wide(value))
