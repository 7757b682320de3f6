# SPDX-License-Identifier: Apache-2.0
"""What makes a scan examine a dump again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from throwstack.scan import scan_settings
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings, absolute_path, key_of

DUMP = DumpInput("/dumps/a.dmp", 100, 5)


def test_a_key_stays_the_same_as_long_as_nothing_changes():
    settings = ScanSettings(symbol_path="/nowhere")
    assert key_of(DUMP, settings.fingerprint()) == key_of(replace(DUMP), replace(settings).fingerprint())


@pytest.mark.parametrize("change", [{"path": "/dumps/b.dmp"}, {"size": 101}, {"modified": 6}])
def test_another_file_has_another_key(change):
    fingerprint = ScanSettings().fingerprint()
    assert key_of(DUMP, fingerprint) != key_of(replace(DUMP, **change), fingerprint)


@pytest.mark.parametrize("change", [{"offline": True}, {"pids": (4,)}, {"wow64": "x86"}, {"symbol_path": "/s"}])
def test_other_options_have_another_fingerprint(change):
    assert ScanSettings().fingerprint() != ScanSettings(**change).fingerprint()


def test_another_version_has_another_fingerprint(monkeypatch):
    before = ScanSettings().fingerprint()
    monkeypatch.setattr(scan_settings, "__version__", "9.9")
    ours = ScanSettings().fingerprint()
    monkeypatch.setattr(scan_settings, "version", {"volatility3": "9.9"}.get)
    assert len({before, ours, ScanSettings().fingerprint()}) == 3


@pytest.mark.parametrize("kind", ["symbols", "symbol_path", "store", "image_path", "page_files"])
def test_a_file_beside_the_dumps_counts(tmp_path: Path, kind: str):
    file = tmp_path / "app.pdb" / "1" / "app.pdb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    given = {
        "symbols": {"symbols": (str(tmp_path),)},
        "symbol_path": {"symbol_path": str(tmp_path)},
        "store": {"symbol_path": f"srv*{tmp_path}"},
        "image_path": {"image_path": f"/nowhere;{tmp_path}"},
        "page_files": {"page_files": (str(file),)},
    }
    settings = ScanSettings(**given[kind])
    seen = {settings.fingerprint()}
    file.write_bytes(b"other")
    seen.add(settings.fingerprint())
    os.utime(file, ns=(0, 0))
    seen.add(settings.fingerprint())
    assert len(seen) == 3


def test_what_the_scan_itself_downloads_does_not_count(tmp_path: Path):
    """Or a second run would find nothing done."""
    settings = ScanSettings(
        symbol_path=f"srv*{tmp_path}*https://server;cache*{tmp_path}/cache;srv*{tmp_path}/s*/nowhere"
    )
    before = settings.fingerprint()
    for name in ("new.pdb", "cache/new.pdb", "s/new.pdb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"downloaded")
    assert settings.fingerprint() == before


def test_paths_are_made_absolute_for_workers_that_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = "syms; srv*down*https://server/x;symsrv*symsrv.dll*c:\\cache;/abs;cache*"
    expected = f"{tmp_path}/syms;srv*{tmp_path}/down*https://server/x;symsrv*symsrv.dll*c:\\cache;/abs;cache*"
    assert absolute_path(given) == expected
    assert absolute_path("") == ""
