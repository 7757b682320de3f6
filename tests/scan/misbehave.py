# SPDX-License-Identifier: Apache-2.0
"""Stands in for the examination of a dump: what a dump does to the process that examines it is in the file's name.

`abort` ends the process as a crash in native code does, `hang` never ends, `grow` takes memory, `once` aborts on the
first attempt only, `slow` takes a while, `worker` kills the Dask worker. Any other file has one stuck thread whose
signature is the name of the file.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings

EXAMINE = f"{__name__}:examine"


def examine(dump: DumpInput, key: str, _settings: ScanSettings) -> DumpRecord:
    path = Path(dump.path)
    name = path.name
    if "abort" in name:
        os.abort()
    if "worker" in name:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if "hang" in name:
        time.sleep(3600)
    if "grow" in name:
        held = [bytearray(os.urandom(1 << 20)) for _ in range(1024)]
        time.sleep(3600 + len(held))
    if "once" in name and not (seen := path.with_suffix(".seen")).exists():
        seen.touch()
        os.abort()
    if "slow" in name:
        time.sleep(0.3)
    return DumpRecord(dump.path, key, DumpOutcome.EXAMINED, dump.size, dump.modified, "raw", report=report(name))


def report(name: str, crashes: int = 1) -> dict[str, object]:
    """Return the least report that the schema allows, with stuck threads whose signature is `name`."""
    crash = {
        "process": {"pid": 4242, "name": "app.exe"},
        "tid": 7,
        "side": "native",
        "arch": "x64",
        "verdict": {"code": "crashed", "text": "crashed"},
        "signature": {"text": name, "digest": "00000000"},
    }
    return {
        "schema_version": "1.0",
        "file": {"name": name, "size": 1, "kind": "raw", "description": "raw image"},
        "machine": {"system": "Windows", "architecture": "x64"},
        "examined": {"processes": 1, "threads": 1},
        "crashes": [{**crash, "tid": 7 + number} for number in range(crashes)],
        "warnings": [],
        "unexamined": [],
    }
