# SPDX-License-Identifier: Apache-2.0
"""MemProcFS on forged dumps, which shows that the fuller kernel is full enough; skipped where it is not installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.forge import compressed_store
from tests.forge.__main__ import forge
from tests.forge.cases import Case
from tests.forge.cases.more_x64 import peers
from tests.forge.cases.service_x64 import PID
from tests.forge.cases.service_x64 import build as service
from tests.forge.describe import Residency
from tests.forge.truth import TruthFrame
from tests.peers.listed_stubs import with_listed_stubs
from tests.peers.memprocfs import Frame, PeerFailed, is_installed, memprocfs_pages, memprocfs_stacks, memprocfs_walk
from tests.support.residency import all_in, spread_over

pytestmark = pytest.mark.skipif(not is_installed(), reason="MemProcFS is not installed: pip install '.[peers]'")

USER_END = 1 << 47
MACHINE_FRAME = "ntdll!KiUserExceptionDispatch+0x2e"


def user_half(frames: tuple[TruthFrame, ...]) -> list[Frame]:
    return [(frame.ip, frame.return_address, frame.child_sp) for frame in frames if frame.ip < USER_END]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    out = tmp_path_factory.mktemp("peers")
    case = peers(2, 8)
    forge(case, out, fuller=True)
    return case, out / "MEMORY.DMP"


def test_stacks_of_waiting_threads_are_whole(walked: tuple[Case, Path]):
    case, dump = walked
    walk = memprocfs_walk(dump, rounds=2)
    assert len(walk.rounds) == 2
    assert len(walk.stacks) == 16
    for key, frames in case.truth.stacks.items():
        pid, tid = map(int, key.split(":"))
        assert walk.stacks[pid, tid] == user_half(frames)


def test_a_stack_through_a_machine_frame_ends_there(walked: tuple[Case, Path]):
    case, dump = walked
    stuck = next(stuck for stuck in case.truth.stuck if stuck.code == 0xC0000005)
    expected = user_half(stuck.thread_stack)
    end = next(index for index, frame in enumerate(stuck.thread_stack) if frame.symbol == MACHINE_FRAME)
    inside = expected[: end - (len(stuck.thread_stack) - len(expected))]
    found = memprocfs_stacks(dump, pids=[stuck.pid])
    assert found[stuck.pid, stuck.tid][: len(inside)] == inside
    assert not set(found[stuck.pid, stuck.tid]) & set(expected[len(inside) + 1 :])
    assert {pid for pid, _ in found} == {stuck.pid}


def test_a_walk_begins_in_a_stub_only_when_that_is_listed(tmp_path: Path):
    case = service()
    expected = user_half(case.truth.stacks[f"{PID}:{0x14BC}"])
    forge(case, tmp_path / "as-it-is", fuller=True)
    assert memprocfs_stacks(tmp_path / "as-it-is" / "MEMORY.DMP")[PID, 0x14BC] == [(expected[0][0], 0, 0)]
    case.machine = with_listed_stubs(case.machine)
    forge(case, tmp_path / "listed", fuller=True)
    assert memprocfs_stacks(tmp_path / "listed" / "MEMORY.DMP")[PID, 0x14BC] == expected


@pytest.mark.parametrize("build", [17763, 18363, 19045, 22000])
def test_memprocfs_finds_the_same_pages_in_the_compressed_store(
    build: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All are stored as they are: on Linux it has nothing to decompress with.

    What it asks for before it has found the store it takes for missing ever after.
    """
    monkeypatch.setattr(compressed_store, "RAW_EACH", 1)
    case = service()
    case.machine = replace(case.machine, version=(10, 0, build))
    spread_over(case, all_in(Residency.IN_STORE), Residency.VALID)
    forge(case, tmp_path, fuller=True)
    pages = {
        region.base + at: region.data[at : at + 0x1000].ljust(0x1000, b"\0")
        for process in case.machine.processes
        if process.pid == PID
        for region in process.regions
        for at in range(0, len(region.data), 0x1000)
    }
    expected = {address: page for address, page in pages.items() if any(page)}
    found = memprocfs_pages(tmp_path / "MEMORY.DMP", PID, expected)
    assert len(found) >= len(expected) * 0.9
    assert all(page == expected[address] for address, page in found.items())


def test_a_failure_of_memprocfs_is_passed_on(tmp_path: Path, walked: tuple[Case, Path]):
    (tmp_path / "small").write_bytes(b"PAGEDU64")
    with pytest.raises(PeerFailed, match="exit code 1"):
        memprocfs_stacks(tmp_path / "small")
    with pytest.raises(PeerFailed, match="not done after 0 s"):
        memprocfs_stacks(walked[1], seconds=0.01)
