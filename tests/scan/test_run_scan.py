# SPDX-License-Identifier: Apache-2.0
"""Scans on a cluster, and what may happen to one: workers that are killed, dumps that kill, disks that fill up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.scan.scans import external_cluster, outcomes, plan_of, records, workers_of
from tests.support.vol import CHECKOUT
from throwstack.scan import scan_cluster
from throwstack.scan.dump_record import DumpOutcome
from throwstack.scan.run_scan import PARTS, ScanCount, ScanStopped, scan
from throwstack.scan.scan_cluster import ClusterChoice, NoCluster

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def test_dumps_that_end_their_process_cost_nobody_else(tmp_path):
    """Each is tried twice; one that succeeds the second time counts as examined."""
    plan = plan_of(tmp_path, "a.dmp", "abort.dmp", "b.dmp", "c.dmp", "hang.dmp", "once.dmp", seconds=2.0)
    count = scan(plan)
    done = records(plan)
    assert outcomes(plan) == {
        "a.dmp": "examined",
        "abort.dmp": "killed",
        "b.dmp": "examined",
        "c.dmp": "examined",
        "hang.dmp": "timed-out",
        "once.dmp": "examined",
    }
    assert {name: record.attempts for name, record in done.items() if record.attempts > 1} == {
        "abort.dmp": 2,
        "hang.dmp": 2,
        "once.dmp": 2,
    }
    assert done["hang.dmp"].reason == "it took more than 2 s (in each of 2 attempts)"
    assert "in each of 2 attempts" in done["abort.dmp"].reason
    assert (count.done, count.failed, count.crashes) == (6, 2, 4)


def test_a_second_run_does_what_is_new_and_what_failed(tmp_path):
    plan = plan_of(tmp_path, "a.dmp", "abort.dmp", "b.dmp")
    scan(plan)
    (tmp_path / "dumps" / "b.dmp").write_bytes(b"another dump")
    seen: list[tuple[int, int]] = []
    again = plan_of(tmp_path, "c.dmp")
    count = scan(again, lambda count: seen.append((count.before, count.done)))
    assert count.before == 1
    assert count.outcomes == {DumpOutcome.EXAMINED: 2, DumpOutcome.KILLED: 1}
    assert seen == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert scan(plan_of(tmp_path, again=True)).done == 4


def test_nothing_is_started_if_all_is_done(tmp_path, monkeypatch):
    scan(plan_of(tmp_path, "a.dmp"))
    monkeypatch.setattr("throwstack.scan.run_scan.connected", lambda _: pytest.fail("a cluster is started"))
    assert scan(plan_of(tmp_path)) == ScanCount(1, before=1)


@posix
def test_workers_that_are_killed_every_few_seconds(tmp_path):
    names = [f"slow-{number}.dmp" for number in range(30)]
    plan = plan_of(tmp_path, *names)
    is_over = threading.Event()
    killed = []

    def kill() -> None:
        chosen = random.Random(7)
        while not is_over.wait(3):
            with contextlib.suppress(psutil.Error, IndexError):
                worker = chosen.choice(workers_of(psutil.Process()))
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        count = scan(plan)
    finally:
        is_over.set()
        killer.join()
    assert killed
    assert outcomes(plan) == dict.fromkeys(sorted(names), "examined")
    assert (count.done, count.failed) == (30, 0)


@posix
def test_a_dump_whose_workers_are_killed_each_time_is_given_up(tmp_path, monkeypatch):
    """Dask gives it up after as many workers as it allows for; it is given out once more, and then has its row."""
    monkeypatch.setitem(scan_cluster._SETTINGS, "distributed.scheduler.allowed-failures", 0)
    plan = plan_of(tmp_path, "a.dmp", "worker.dmp")
    assert scan(plan).failed == 1
    done = records(plan)["worker.dmp"]
    assert (done.outcome, done.reason) == (DumpOutcome.KILLED, "the workers that had it were killed, each time")
    assert outcomes(plan)["a.dmp"] == "examined"


@posix
def test_a_full_disk_stops_the_scan_and_the_next_run_goes_on(tmp_path):
    """The directory of the parts cannot be written to here, as on a full disk."""
    plan = plan_of(tmp_path, *(f"slow-{number}.dmp" for number in range(12)))
    full = tmp_path / "full"

    def fill(count: ScanCount) -> None:
        parts = plan.out / PARTS
        if count.done == 4 and not full.exists():
            parts.rename(full)
            parts.symlink_to("/dev/full")

    with pytest.raises(ScanStopped, match=r"parts"):
        scan(plan, fill)
    (plan.out / PARTS).unlink()
    full.rename(plan.out / PARTS)
    assert 4 <= len(records(plan)) < 12
    assert scan(plan).failed == 0
    assert len(records(plan)) == 12


SCANNER = """
import sys
from pathlib import Path
from tests.scan.scans import plan_of
from throwstack.scan.run_scan import scan
if __name__ == "__main__":
    scan(plan_of(Path(sys.argv[1])), lambda count: print(count.done, flush=True))
"""


@contextlib.contextmanager
def scanner(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a scan in a process group of its own, as a shell does."""
    script = directory / "scanner.py"
    script.write_text(SCANNER)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(process: subprocess.Popen[bytes], done: int) -> None:
    assert process.stdout is not None
    while int(process.stdout.readline()) < done:
        pass


@posix
def test_a_scan_that_is_killed_at_any_time_goes_on_from_there(tmp_path):
    names = [f"slow-{number}.dmp" for number in range(16)]
    plan = plan_of(tmp_path, *names)
    for done in (1, 4):
        before = len(records(plan))
        with scanner(tmp_path) as process:
            wait_for(process, done)
        assert before + done <= len(records(plan)) < 16
    assert scan(plan).before > 0
    assert outcomes(plan) == dict.fromkeys(sorted(names), "examined")


@posix
def test_ctrl_c_ends_the_scan_and_all_its_processes(tmp_path):
    """A terminal sends it to all of them at once."""
    plan = plan_of(tmp_path, *(f"slow-{number}.dmp" for number in range(30)), "hang.dmp")
    with scanner(tmp_path) as process:
        wait_for(process, 3)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 4  # two workers and their examining processes
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []
    assert said.decode().count("Traceback") == 1
    assert 3 <= len(records(plan)) < 31
    assert not list((plan.out / PARTS).glob("*.unfinished"))


def test_a_cluster_of_somebody_else(tmp_path):
    names = ["a.dmp", "abort.dmp", "b.dmp", "once.dmp"]
    with external_cluster(tmp_path) as address:
        plan = plan_of(tmp_path, *names, cluster=ClusterChoice(scheduler=address))
        assert scan(plan).done == 4
        assert outcomes(plan) == {
            "a.dmp": "examined",
            "abort.dmp": "killed",
            "b.dmp": "examined",
            "once.dmp": "examined",
        }
        assert scan(plan).done == 1  # the cluster is still there


@posix
def test_nothing_listens_but_on_loopback_and_nothing_beside_the_dumps_is_run(tmp_path, monkeypatch):
    """The user is in the directory with the dumps, which came from a suspect machine with some Python modules."""
    plan = plan_of(tmp_path, "a.dmp", "slow.dmp")
    for name in ("json", "pickle", "multiprocessing", "distributed", "dask", "tornado"):
        (tmp_path / "dumps" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path / "dumps")
    monkeypatch.setattr(sys, "path", [path or str(CHECKOUT) for path in sys.path])
    listening = set()

    def look(count: ScanCount) -> None:
        if count.done:
            me = psutil.Process()
            for process in (me, *me.children(recursive=True)):
                listening.update(
                    connection.laddr.ip for connection in process.net_connections() if connection.status == "LISTEN"
                )

    assert scan(plan, look).failed == 0
    assert "127.0.0.1" in listening
    assert listening <= {"127.0.0.1", "::1"}
    assert not (tmp_path / "ran").exists()


def test_a_cluster_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("throwstack.scan.scan_cluster._CONNECT_SECONDS", 1)
    with pytest.raises(NoCluster, match=r"no Dask scheduler answers at tcp://127.0.0.1:1"):
        scan(plan_of(tmp_path, "a.dmp", cluster=ClusterChoice(scheduler="tcp://127.0.0.1:1")))
