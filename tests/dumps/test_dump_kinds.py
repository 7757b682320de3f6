# SPDX-License-Identifier: Apache-2.0
"""Kinds of crash dump that Volatility's own layer turns away, opened by `vol` with the plugins of this checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
from volatility3.framework import contexts
from volatility3.framework.layers import crash, physical

from tests.conftest import Forge
from tests.forge.dump_kinds import MoreKinds, rewrite
from tests.support.plugins_truth import expected_unhandled, only
from tests.support.vol import vol

READABLE = [kind for kind in MoreKinds if kind is not MoreKinds.TRIAGE]


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name.lower())
def test_a_dump_of_this_kind_gives_the_same_answer(forged: Forge, tmp_path: Path, kind: MoreKinds):
    out, truth = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, kind)
    expected = expected_unhandled(truth)
    assert only(vol(out, "windows.unhandled", dump=dump).rows, expected) == expected


@pytest.mark.parametrize("kind", [MoreKinds.SUMMARY, MoreKinds.BITMAP_KERNEL], ids=lambda kind: kind.name.lower())
def test_a_dump_of_this_kind_of_a_32bit_system_gives_the_same_answer(forged: Forge, tmp_path: Path, kind: MoreKinds):
    out, truth = forged("ftp-2003")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, kind)
    expected = expected_unhandled(truth)
    assert only(vol(out, "windows.unhandled", dump=dump).rows, expected) == expected


def test_volatilitys_own_plugins_open_such_a_dump_as_well(forged: Forge, tmp_path: Path):
    out, _ = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, MoreKinds.LIVE_USER)
    names = [row["ImageFileName"] for row in vol(out, "windows.pslist", dump=dump).rows]
    assert "ledgersvc.exe" in names


def test_a_saved_configuration_opens_such_a_dump_again(forged: Forge, tmp_path: Path):
    out, truth = forged("service-x64")
    dump, config = tmp_path / "MEMORY.DMP", tmp_path / "saved.json"
    rewrite(out / "MEMORY.DMP", dump, MoreKinds.BITMAP_KERNEL)
    first = vol(out, "windows.unhandled", dump=dump, more=("--save-config", str(config)))
    again = vol(out, "windows.unhandled", dump=dump, more=("-c", str(config)))
    expected = expected_unhandled(truth)
    assert only(first.rows, expected) == only(again.rows, expected) == expected


@pytest.mark.parametrize("kind", list(MoreKinds), ids=lambda kind: kind.name.lower())
def test_volatilitys_own_layer_turns_such_a_dump_away(forged: Forge, tmp_path: Path, kind: MoreKinds):
    out, _ = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, kind)
    context = contexts.Context()
    context.config["file.location"] = dump.as_uri()
    context.config["dump.base_layer"] = "file"
    context.add_layer(physical.FileLayer(context, "file", "file"))
    with pytest.raises(crash.WindowsCrashDumpFormatException, match="unsupported dump format"):
        crash.WindowsCrashDump64Layer(context, "dump", "dump")


def test_a_kernel_dump_says_that_processes_are_missing(forged: Forge, tmp_path: Path):
    out, _ = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, MoreKinds.LIVE_KERNEL)
    assert "a dump of the kernel's memory" in vol(out, "windows.unhandled", dump=dump).err


def test_a_small_dump_says_why_it_does_not_serve(forged: Forge, tmp_path: Path):
    out, _ = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    rewrite(out / "MEMORY.DMP", dump, MoreKinds.TRIAGE)
    done = vol(out, "windows.unhandled", dump=dump)
    assert done.status != 0
    assert "dump type 0x4 (a small dump, of one thread's kernel stack) holds no physical memory" in done.err
    assert "Traceback" not in done.err
