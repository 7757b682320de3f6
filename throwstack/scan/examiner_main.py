# SPDX-License-Identifier: Apache-2.0
"""The process that examines dumps one after the other, for one Dask worker; `throwstack.scan.examiner` starts it.

It takes a request (a line of JSON) from standard input, examines the dump, writes the part, and answers with a line of
JSON. It ends when its input ends, in the midst of a dump too: a worker that was killed leaves no process. After a while
without a request it ends as well, because workers of a cluster may live on for days after a scan.

Volatility keeps files of its own below one directory for the whole process. Here that is a private one, so no other
process reads or writes what this one has written.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from throwstack.scan.dump_record import DumpRecord
from throwstack.scan.part_store import PartStore, StorageFailed
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings

IDLE_SECONDS = 120.0
"""How long the process waits for a request."""

Examine = Callable[[DumpInput, str, ScanSettings], DumpRecord]


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the scan ends this one
    answers = _take_output()
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    from throwstack.volatility.opening.forget_dumps import forget_dumps  # noqa: PLC0415
    from throwstack.volatility.opening.private_cache import keep_files_in  # noqa: PLC0415 takes half a second to load

    keep_files_in(Path.cwd() / "volatility")
    while True:
        try:
            request = json.loads(requests.get(timeout=IDLE_SECONDS))
        except queue.Empty:
            return
        answers.write(json.dumps(_answer(request)).encode("ascii") + b"\n")
        answers.flush()
        forget_dumps()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    examine = _function(request["examine"])
    settings: Any = {name: _unlisted(value) for name, value in request["settings"].items()}
    try:
        record = examine(DumpInput(**request["dump"]), request["key"], ScanSettings(**settings))
    except MemoryError:
        sys.stderr.write("it needs more memory than there is\n")
        sys.exit(1)
    record = replace(record, attempts=request["attempt"])
    try:
        PartStore(Path(request["parts"])).write(record)
    except StorageFailed as error:
        return {"storage": str(error)}
    return {"outcome": record.outcome.value, "crashes": record.crashes, "seconds": record.seconds}


def _unlisted(value: object) -> object:
    """Return a list of JSON as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value


def _function(name: str) -> Examine:
    module, _, function = name.partition(":")
    found: Examine = getattr(importlib.import_module(module), function)
    return found


def _take_output() -> BinaryIO:
    """Return standard output for our answers alone; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _read(requests: queue.Queue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)
