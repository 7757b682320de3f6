# SPDX-License-Identifier: Apache-2.0
"""Runs in an environment of its own: prints, as JSON, what one package says of a minidump.

python package_child.py minidump|udmp|symbolic FILE [SYMBOLS]
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path


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


def by_symbolic(path: str, symbols: str) -> dict[str, object]:
    from symbolic import FrameInfoMap, ProcessState  # noqa: PLC0415

    state = ProcessState.from_minidump(path, frame_infos=_frame_infos(path, symbols, FrameInfoMap))
    threads = list(state.threads())
    crashed = threads[state.requesting_thread] if state.requesting_thread >= 0 else None
    return {
        "tid": crashed and crashed.thread_id,
        "modules": [module.addr for module in state.modules()],
        "frames": [frame.return_address for frame in crashed.frames()] if crashed else [],
    }


def _frame_infos(path: str, symbols: str, new_map):
    """Return unwind data for the modules of a minidump whose symbol files are in `symbols`."""
    from symbolic import Archive, CfiCache, ProcessState  # noqa: PLC0415

    found = new_map.new()
    for module in ProcessState.from_minidump(path).modules():
        name = (module.debug_file or "").replace("\\", "/").rpartition("/")[2]
        if not module.debug_id or not name:
            continue
        for file in Path(symbols).glob(f"{name}/{module.debug_id.replace('-', '').upper()}*/*.sym"):
            found.add(module.debug_id, CfiCache.from_object(next(Archive.open(str(file)).iter_objects())))
            break
    return found


def main() -> None:
    """Print the answer, or the problem."""
    kind, path, *symbols = sys.argv[1:]
    try:
        answer = {"minidump": by_minidump, "udmp": by_udmp, "symbolic": by_symbolic}[kind](path, *symbols)
    except Exception as error:  # noqa: BLE001 whatever the package raises is its answer
        answer = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main()
