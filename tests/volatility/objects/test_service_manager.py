# SPDX-License-Identifier: Apache-2.0
"""Service records in the memory of services.exe, laid out as Windows 10 x64 and Server 2003 x86 have them."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.forge.describe import Process, Region
from throwstack.volatility.objects.service_manager import _records

HEAP = 0x00260000
SHARED, OWN, DRIVER = 0x20, 0x10, 1
RUNNING, STOPPED = 4, 1


class Manager:
    """A page of the manager's heap, with records put into it one after the other."""

    def __init__(self, pointer: int, record: dict[str, int], pid_at: int, mark: tuple[int, bytes]) -> None:
        self.pointer, self.record, self.pid_at, self.mark = pointer, record, pid_at, mark
        self.page = bytearray(0x1000)
        self.next = 0x40
        self.last = 0

    def put(self, at: int, value: int, size: int) -> None:
        self.page[at : at + size] = value.to_bytes(size, "little")

    def add(self, name: str, pid: int, kind: int = SHARED, state: int = RUNNING) -> None:
        """Add a record, its name and its process."""
        record, text, process = self.next, self.next + 0x180, self.next + 0x1C0
        self.next += 0x200
        encoded = f"{name}\0".encode("utf-16-le")
        self.page[text : text + len(encoded)] = encoded
        self.put(process + self.pid_at, pid, 4)
        for member, value in (("name", HEAP + text), ("process", HEAP + process)):
            self.put(record + self.record[member], value, self.pointer)
        self.put(record + self.record["type"], kind, 4)
        self.put(record + self.record["state"], state, 4)
        if "before" in self.record:
            self.put(record + self.record["before"], self.last, self.pointer)
        else:
            self.page[record + self.mark[0] : record + self.mark[0] + 4] = self.mark[1]
        self.last = HEAP + record

    def region(self) -> Region:
        """Return the heap; a header points to the last record where records are linked backwards."""
        if "before" in self.record:
            self.page[0xF00:0xF04] = self.mark[1]
            self.put(0xF10, self.last, self.pointer)
        return Region(HEAP, bytes(self.page))


def xp() -> Manager:
    members = {"name": 8, "type": 40, "state": 44, "process": 36}
    return Manager(4, members, 12, (24, b"sErv"))


def win10() -> Manager:
    members = {"name": 56, "type": 72, "state": 76, "process": 296, "before": 16}
    return Manager(8, members, 40, (0, b"serH"))


@pytest.mark.parametrize(("case", "manager"), [("ftp-2003", xp()), ("service-x64", win10())], ids=["2003", "10"])
def test_the_services_of_a_crashed_process(tmp_path: Path, case: str, manager: Manager):
    made = builders()[case][0]()
    pid = made.truth.stuck[0].pid
    manager.add("iFtpSvc", pid)
    manager.add("Alerter", pid, kind=OWN)
    manager.add("Stopped", pid, state=STOPPED)
    manager.add("Driver", pid, kind=DRIVER)
    manager.add("Another", 4444)
    services = next((one for one in made.machine.processes if one.name == "services.exe"), None)
    if services is None:
        services = Process(724, "services.exe", 600, 0x7FF5_00000000, create_seconds=5)
        made.machine.processes.insert(0, services)
    services.regions.append(manager.region())
    forge(made, tmp_path)
    with throwstack.open(tmp_path / "MEMORY.DMP", symbols=tmp_path / "isf", symbol_path="", offline=True) as dump:
        (process,) = dump.report(pids=[pid]).processes
    assert process.services == ("Alerter", "iFtpSvc")


def test_a_program_with_the_name_of_the_manager_names_no_services(tmp_path: Path):
    """It was started later. What it has in its memory says nothing of other processes."""
    made = builders()["service-x64"][0]()
    pid = made.truth.stuck[0].pid
    for number, name in enumerate(("True", "Fake")):
        manager = win10()
        manager.add(name, pid)
        one = Process(
            724 + 8 * number, "services.exe", 600, 0x7FF5_00000000 + (number << 24), create_seconds=5 + number
        )
        one.regions.append(manager.region())
        made.machine.processes.insert(number, one)
    forge(made, tmp_path)
    with throwstack.open(tmp_path / "MEMORY.DMP", symbols=tmp_path / "isf", symbol_path="", offline=True) as dump:
        (process,) = dump.report().processes
    assert process.services == ("True",)


def test_a_page_of_marks_that_is_mapped_thousands_of_times_takes_a_moment():
    """16,384 pages of 1,024 marks, each of which leads to no record."""
    read: list[int] = []
    machine = SimpleNamespace(pointer=lambda _, address: read.append(address) or 0)
    view = SimpleNamespace(start=0, end=1 << 26, is_private=True)
    pages = SimpleNamespace(views=(view,), page=lambda _: b"serH" * 1024)
    offsets = SimpleNamespace(tag=0, first=16, before=16)
    assert list(_records(machine, None, pages, offsets, has_headers=True)) == []
    assert 1000 < len(read) < 20_000


def test_marks_without_records_name_nothing(tmp_path: Path):
    """A heap full of marks: what they lead to is absent, or no record."""
    made = builders()["service-x64"][0]()
    services = Process(724, "services.exe", 600, 0x7FF5_00000000, create_seconds=5)
    services.regions.append(Region(HEAP, struct.pack("<4s12xQ", b"serH", HEAP) * 0x155))
    made.machine.processes.insert(0, services)
    forge(made, tmp_path)
    with throwstack.open(tmp_path / "MEMORY.DMP", symbols=tmp_path / "isf", symbol_path="", offline=True) as dump:
        (process,) = dump.report().processes
    assert process.services == ()
