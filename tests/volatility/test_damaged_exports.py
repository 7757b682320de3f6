# SPDX-License-Identifier: Apache-2.0
"""Four bytes of a module's exports that once ended the run: an address that no 32-bit process can have."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.checkout_plugins import UNHANDLED
from tests.support.volatility_session import Session, open_dump

CRASHED = 2564
BEYOND = 0xF0000000
"""Added to KERNEL32's base it is more than 4 GiB."""


def place_of_export(session: Session, name: bytes) -> int:
    """Return where in the dump the RVA of an export of the crashed process's KERNEL32 is."""
    process = session.processes()[CRASHED]
    space = session.context.layers[process.add_process_layer()]
    memory = session.context.layers[session.kernel_layer.config["memory_layer"]]
    base = next(
        int(entry.DllBase)
        for entry in process.load_order_modules()
        if "kernel32" in entry.BaseDllName.get_string().lower()
    )

    def u32(rva: int) -> int:
        return struct.unpack("<I", space.read(base + rva, 4))[0]

    header = u32(0x3C)
    directory = u32(header + 24 + 96)
    addresses, names, ordinals = u32(directory + 28), u32(directory + 32), u32(directory + 36)
    for index in range(u32(directory + 24)):
        if space.read(base + u32(names + 4 * index), len(name) + 1) == name + b"\0":
            ordinal = struct.unpack("<H", space.read(base + ordinals + 2 * index, 2))[0]
            ((_, _, physical, _, _),) = space.mapping(base + addresses + 4 * ordinal, 4)
            ((_, _, offset, _, _),) = memory.mapping(physical, 4)
            return offset
    raise LookupError(name)


@pytest.mark.parametrize("name", [b"UnhandledExceptionFilter"])
def test_an_export_beyond_the_address_space_costs_its_name_alone(forged: Forge, tmp_path: Path, name: bytes):
    out, truth = forged("ftp-2003")
    dump = Path(shutil.copy(out / "MEMORY.DMP", tmp_path))
    with open_dump(dump, out / "isf") as session:
        place = place_of_export(session, name)
    with dump.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<I", BEYOND))
    with open_dump(dump, out / "isf") as session:
        (row,) = session.rows(UNHANDLED)
    assert (row["PID"], row["TID"]) == (truth.stuck[0].pid, truth.stuck[0].tid)
    assert "CorExitProcess" in row["Blocked In"]
