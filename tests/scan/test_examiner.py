# SPDX-License-Identifier: Apache-2.0
"""The process that examines dumps, and what a dump can do to it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from tests.scan.misbehave import EXAMINE
from throwstack.scan import examiner as examiner_module
from throwstack.scan.examiner import DumpLimits, Examiner, ExaminerEnded, OutOfTime
from throwstack.scan.part_store import PartStore
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings

LIMITS = DumpLimits(60)


@pytest.fixture
def examiner(tmp_path):
    made = Examiner(tmp_path)
    yield made
    made.close()


@pytest.fixture
def parts(tmp_path) -> PartStore:
    made = PartStore(tmp_path / "parts")
    made.prepare()
    return made


def request_of(name: str, parts: PartStore) -> dict[str, object]:
    dump = DumpInput(str(parts.directory.parent / name), 1, 1)
    settings = asdict(ScanSettings(symbols=("/s",)))
    return {
        "dump": asdict(dump),
        "key": "k",
        "settings": settings,
        "parts": str(parts.directory),
        "examine": EXAMINE,
        "attempt": 1,
    }


def pid_of(examiner: Examiner) -> int | None:
    return None if examiner._running is None else examiner._running.process.pid


def test_one_process_examines_dump_after_dump(examiner, parts):
    pids = set()
    for name in ("a.dmp", "b.dmp"):
        answer = examiner.ask(request_of(name, parts), LIMITS)
        assert (answer["outcome"], answer["crashes"]) == ("examined", 1)
        assert parts.read(str(parts.directory.parent / name)) is not None
        pids.add(pid_of(examiner))
    assert len(pids) == 1


def test_a_dump_that_aborts_the_process(examiner, parts):
    with pytest.raises(ExaminerEnded, match=r"ended by SIGABRT|ended with status 3"):
        examiner.ask(request_of("abort.dmp", parts), LIMITS)
    assert examiner.ask(request_of("a.dmp", parts), LIMITS)["outcome"] == "examined"


def test_a_dump_that_hangs_is_ended_in_time(examiner, parts):
    begun = time.monotonic()
    with pytest.raises(OutOfTime, match="it took more than 2 s"):
        examiner.ask(request_of("hang.dmp", parts), DumpLimits(2))
    assert time.monotonic() - begun < 10
    assert examiner.ask(request_of("a.dmp", parts), LIMITS)["outcome"] == "examined"


def test_a_dump_that_takes_too_much_memory(examiner, parts):
    with pytest.raises(ExaminerEnded, match="more than 200 MiB of memory"):
        examiner.ask(request_of("grow.dmp", parts), DumpLimits(60, 200 << 20))


def test_a_process_that_has_grown_is_replaced(examiner, parts, monkeypatch):
    monkeypatch.setattr(examiner_module, "_GROWN", 0)
    examiner.ask(request_of("a.dmp", parts), LIMITS)
    assert pid_of(examiner) is None
    assert examiner.ask(request_of("b.dmp", parts), LIMITS)["outcome"] == "examined"


def test_a_process_that_has_ended_while_idle_is_replaced(examiner, parts):
    examiner.ask(request_of("a.dmp", parts), LIMITS)
    examiner._running.process.kill()
    examiner._running.process.wait()
    assert examiner.ask(request_of("b.dmp", parts), LIMITS)["outcome"] == "examined"


@pytest.mark.skipif(os.name == "nt", reason="fork")
def test_a_worker_that_is_killed_leaves_no_process(parts, tmp_path):
    """In the midst of a dump that hangs."""
    worker = os.fork()
    if worker == 0:
        Examiner(tmp_path).ask(request_of("hang.dmp", parts), LIMITS)
        os._exit(1)
    children = []
    while not children:
        children = psutil.Process(worker).children()
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert (len(gone), alive) == (1, [])


def test_the_private_directory_is_gone_at_the_end(tmp_path):
    made = Examiner(tmp_path)
    assert list(tmp_path.iterdir()) == [Path(made._directory.name)]
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_code_beside_the_dumps_is_not_run(examiner, parts, tmp_path, monkeypatch):
    """A `json.py` in the directory where a user is."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "pefile", "volatility3"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend("")
    assert examiner.ask(request_of("a.dmp", parts), LIMITS)["outcome"] == "examined"
    assert not (tmp_path / "ran").exists()
