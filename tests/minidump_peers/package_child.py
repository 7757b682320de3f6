# SPDX-License-Identifier: Apache-2.0
"""Runs in an environment of its own: prints, as JSON, what one package says of a minidump.

python package_child.py minidump|udmp|symbolic FILE
"""

from __future__ import annotations

import json
import logging
import sys


def by_minidump(path: str) -> dict[str, object]:
    from minidump.minidumpfile import MinidumpFile  # noqa: PLC0415

    logging.disable(logging.ERROR)  # it misses the environment of a process that has none
    found = MinidumpFile.parse(path)
    raised = found.exception.exception_records[0] if found.exception else None
    return {
        "tid": raised and raised.ThreadId,
        "code": raised and raised.ExceptionRecord.ExceptionCode_raw,
        "address": raised and raised.ExceptionRecord.ExceptionAddress,
        "modules": [module.baseaddress for module in found.modules.modules],
    }


def by_udmp(path: str) -> dict[str, object]:
    import udmp_parser  # noqa: PLC0415

    parser = udmp_parser.UserDumpParser()
    if not parser.Parse(path):
        return {"problem": "refused"}
    return {"tid": parser.ForegroundThreadId(), "modules": list(parser.Modules())}


def by_symbolic(path: str) -> dict[str, object]:
    from symbolic import ProcessState  # noqa: PLC0415

    state = ProcessState.from_minidump(path)
    threads = list(state.threads())
    crashed = threads[state.requesting_thread] if state.requesting_thread >= 0 else None
    return {
        "tid": crashed and crashed.thread_id,
        "modules": [module.addr for module in state.modules()],
        "frames": [frame.instruction for frame in crashed.frames()] if crashed else [],
    }


def main() -> None:
    """Print the answer, or the problem."""
    kind, path = sys.argv[1:]
    try:
        answer = {"minidump": by_minidump, "udmp": by_udmp, "symbolic": by_symbolic}[kind](path)
    except Exception as error:  # noqa: BLE001 whatever the package raises is its answer
        answer = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main()
