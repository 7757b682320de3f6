# SPDX-License-Identifier: Apache-2.0
"""Which files a scan examines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from throwstack.scan.scan_inputs import find_inputs


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    for name in ("b.dmp", "a.dmp", "notes.txt", "web/c.dmp", "web/deep/d.dmp", "results/parts/e.dmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return tmp_path


def names(root: Path, *arguments: str, **options) -> list[str]:
    found = find_inputs([str(root / argument) for argument in arguments], **options)
    return [Path(dump.path).relative_to(root).as_posix() for dump in found]


def test_a_file_is_itself_with_its_size_and_time(dumps):
    (dump,) = find_inputs([str(dumps / "a.dmp")])
    assert (dump.size, dump.modified, dump.problem) == (5, (dumps / "a.dmp").stat().st_mtime_ns, "")


def test_a_directory_is_the_files_in_it(dumps):
    assert names(dumps, "") == ["a.dmp", "b.dmp", "notes.txt"]
    assert names(dumps, "", pattern="*.dmp") == ["a.dmp", "b.dmp"]
    assert names(dumps, "web", is_recursive=True) == ["web/c.dmp", "web/deep/d.dmp"]


def test_the_results_are_not_searched_for_dumps(dumps):
    found = names(dumps, "", is_recursive=True, pattern="*.dmp", leave_out=dumps / "results")
    assert found == ["a.dmp", "b.dmp", "web/c.dmp", "web/deep/d.dmp"]
    assert "results/parts/e.dmp" not in names(dumps, "**/*.dmp", leave_out=dumps / "results")


def test_a_pattern_of_paths_and_a_file_that_looks_like_one(dumps):
    assert names(dumps, "?.dmp") == ["a.dmp", "b.dmp"]
    assert names(dumps, "**/*.dmp", leave_out=dumps / "results") == ["a.dmp", "b.dmp", "web/c.dmp", "web/deep/d.dmp"]
    (dumps / "[ab].dmp").touch()
    assert names(dumps, "[ab].dmp") == ["[ab].dmp"]


def test_a_list_of_paths(dumps, monkeypatch):
    monkeypatch.chdir(dumps)
    (dumps / "list").write_text("b.dmp\r\n\n@odd\nweb\n")
    (dumps / "@odd").touch()
    found = find_inputs(["@list"])
    assert [Path(dump.path).name for dump in found] == ["@odd", "b.dmp", "c.dmp"]


def test_a_file_that_is_named_twice_is_examined_once(dumps):
    assert names(dumps, "a.dmp", "web/../a.dmp", "*.dmp") == ["a.dmp", "b.dmp"]


def test_what_is_not_there(dumps):
    said = []
    found = find_inputs([str(dumps / "gone.dmp"), str(dumps / "*.raw"), f"@{dumps}/no-list"], say=said.append)
    assert [(Path(dump.path).name, dump.problem) for dump in found] == [("gone.dmp", "No such file or directory")]
    assert said == [f"{dumps}/*.raw: no file matches", f"{dumps}/no-list: No such file or directory"]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
def test_links_and_pipes_of_a_directory(dumps):
    """A broken link has its row; a pipe, which would wait for ever, and a link to a directory have none."""
    (dumps / "web" / "link.dmp").symlink_to(dumps / "a.dmp")
    (dumps / "web" / "broken.dmp").symlink_to(dumps / "gone")
    (dumps / "web" / "loop").symlink_to(dumps)
    os.mkfifo(dumps / "web" / "pipe.dmp")
    assert names(dumps, "web", is_recursive=True) == ["web/broken.dmp", "web/c.dmp", "web/deep/d.dmp", "web/link.dmp"]


@pytest.mark.skipif(os.name == "nt", reason="names of Windows are text")
def test_a_name_that_is_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.dmp")).touch()
    (dump,) = find_inputs([str(tmp_path)])
    assert os.fsencode(dump.path).endswith(b"caf\xe9.dmp")
    assert not dump.problem


def test_results_that_are_reached_by_a_link_are_not_searched_either(dumps):
    """`/dumps` is a link to a disk, and the results are given by the disk's own path, or the other way around."""
    (dumps / "link").symlink_to(dumps / "web", target_is_directory=True)
    assert names(dumps, "link", is_recursive=True, leave_out=dumps / "web" / "deep") == ["link/c.dmp"]
    assert names(dumps, "web", is_recursive=True, leave_out=dumps / "link" / "deep") == ["web/c.dmp"]


def test_dumps_beside_the_results_are_said_not_to_be_searched(dumps):
    said: list[str] = []
    assert find_inputs([str(dumps)], leave_out=dumps, say=said.append) == ()
    assert said == [f"{dumps}: nothing is searched there, because the results are written there"]


def test_a_list_that_powershell_wrote(dumps, monkeypatch):
    monkeypatch.chdir(dumps)
    (dumps / "list").write_bytes("b.dmp\r\ncaf\u00e9.dmp\r\n".encode("utf-16"))
    assert [Path(dump.path).name for dump in find_inputs(["@list"])] == ["b.dmp", "caf\u00e9.dmp"]
