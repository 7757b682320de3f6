# SPDX-License-Identifier: Apache-2.0
"""Files for results: looked at before the work, written whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from throwstack.cli.result_files import ResultNotWritten, check, check_all, write


def test_a_file_that_can_be_made(tmp_path: Path):
    check(tmp_path / "new.json", force=False)
    write(tmp_path / "new.json", "one\n", force=False)
    assert (tmp_path / "new.json").read_bytes() == b"one\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [("old.json", "is there already"), ("", "is a directory"), ("no/new.json", "is not a directory")],
)
def test_what_is_said_before_the_work(tmp_path: Path, name: str, words: str):
    (tmp_path / "old.json").write_text("kept", "utf-8")
    with pytest.raises(ResultNotWritten, match=words):
        check(tmp_path / name, force=False)


def test_force_overwrites(tmp_path: Path):
    target = tmp_path / "old.json"
    target.write_text("old", "utf-8")
    check(target, force=True)
    write(target, "new", force=True)
    assert target.read_text("utf-8") == "new"


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_force_overwrites_what_a_link_leads_to(tmp_path: Path):
    (tmp_path / "old.json").write_text("old", "utf-8")
    (tmp_path / "link").symlink_to("old.json")
    check(tmp_path / "link", force=True)
    write(tmp_path / "link", "new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old.json").read_text("utf-8") == "new"


def test_a_file_that_has_appeared_during_the_work_is_left_alone(tmp_path: Path):
    target = tmp_path / "late.json"
    target.write_text("another's", "utf-8")
    with pytest.raises(ResultNotWritten, match=r"late\.json"):
        write(target, "ours", force=False)
    assert target.read_text("utf-8") == "another's"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_file_may_be_read_as_any_new_file(tmp_path: Path):
    (tmp_path / "plain").touch()
    write(tmp_path / "ours", "", force=False)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_half_a_surrogate_pair_does_not_end_the_writing(tmp_path: Path):
    write(tmp_path / "a", "\ud800", force=False)
    assert (tmp_path / "a").read_text("ascii") == r"\ud800"


@pytest.mark.skipif(os.name == "nt", reason="devices and pipes of POSIX")
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path):
    """`--json /dev/stdout`, or `>(gzip)` of a shell. With --force, /dev/null would else become a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")))
    reader.start()
    check(pipe, force=False)
    write(pipe, "one\n", force=False)
    reader.join()
    assert read == ["one\n"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str):
    with pytest.raises(ResultNotWritten, match=name[:1]):
        check_all([tmp_path / name], [tmp_path / "MEMORY.DMP"], force=True)
