# SPDX-License-Identifier: Apache-2.0
"""Putting files into a cache that other users may write to."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from throwstack.files.cache_files import free_space, new_file, private_directory, put

FILE = Path("app.pdb", "0123", "app.pdb")
links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")


def made(folder: Path) -> Path:
    path = folder / "made"
    path.write_text("made")
    return path


def interrupted(_: object, what: type[BaseException]) -> None:
    raise what


def test_a_private_directory_is_in_the_cache_and_is_removed_with_its_contents(tmp_path):
    cache = tmp_path / "cache"
    with private_directory(cache) as directory, private_directory(cache) as another:
        assert directory.parent == another.parent == cache
        assert directory != another
        if os.name != "nt":
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        made(directory)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("what", [OSError, KeyboardInterrupt, SystemExit])
def test_a_private_directory_is_removed_if_an_exception_comes(tmp_path, what):
    with pytest.raises(what), private_directory(tmp_path) as directory:
        interrupted(made(directory), what)
    assert list(tmp_path.iterdir()) == []


def test_an_old_private_directory_of_a_killed_process_is_removed(tmp_path):
    """A young directory may belong to a running process, and one with another name is not ours: both stay."""
    old, young, other = (tmp_path / name for name in (".throwstack-old", ".throwstack-young", "app.pdb"))
    for folder in (old, young, other):
        folder.mkdir()
        made(folder)
    for folder in (old, other):
        os.utime(folder, (1, 1))
    with private_directory(tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == [young, other]


@links
def test_a_link_with_the_name_of_a_private_directory_is_not_followed(tmp_path):
    cache, precious = tmp_path / "cache", tmp_path / "precious"
    for folder in (cache, precious):
        folder.mkdir()
    made(precious)
    link = cache / ".throwstack-old"
    link.symlink_to(precious)
    os.utime(link, (1, 1), follow_symlinks=False)
    os.utime(precious, (1, 1))
    with private_directory(cache):
        pass
    assert (precious / "made").exists()


def test_a_file_is_put_into_a_cache(tmp_path):
    (tmp_path / "cache").mkdir()
    put(made(tmp_path), tmp_path / "cache" / FILE, tmp_path / "cache")
    assert (tmp_path / "cache" / FILE).read_text() == "made"


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_no_directory_is_made_that_everybody_may_write_to(tmp_path):
    """The umask is 0 in some containers."""
    cache, before = tmp_path / "cache", os.umask(0)
    try:
        with private_directory(cache) as directory:
            put(made(directory), cache / FILE, cache)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(folder.stat().st_mode) & 0o2 for folder in (cache, *(cache / FILE).parents[:2])] == [0, 0, 0]


@links
def test_a_link_of_the_files_name_is_replaced(tmp_path):
    target, precious = tmp_path / FILE, tmp_path / "precious"
    target.parent.mkdir(parents=True)
    precious.write_text("precious")
    target.symlink_to(precious)
    put(made(tmp_path), target, tmp_path)
    assert target.read_text() == "made"
    assert not target.is_symlink()
    assert precious.read_text() == "precious"


@links
@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_is_written_through_a_directory_that_is_a_link(tmp_path, depth):
    cache, precious = tmp_path / "cache", tmp_path / "precious"
    (precious / "0123").mkdir(parents=True)
    (precious / "0123" / "app.pdb").write_text("precious")
    link = cache.joinpath(*FILE.parts[: depth + 1])
    link.parent.mkdir(parents=True)
    link.symlink_to(precious if depth == 0 else precious / "0123")
    file = made(tmp_path)
    with pytest.raises(OSError, match="is a link or a file"):
        put(file, cache / FILE, cache)
    assert (precious / "0123" / "app.pdb").read_text() == "precious"


@links
def test_a_cache_that_is_itself_a_link_is_the_users_choice(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    put(made(tmp_path), tmp_path / "cache" / FILE, tmp_path / "cache")
    assert (tmp_path / "disk" / FILE).read_text() == "made"


def test_a_new_file_must_not_exist_and_is_removed_if_writing_fails(tmp_path):
    path = tmp_path / "new"
    with pytest.raises(ZeroDivisionError), new_file(path) as file:
        interrupted(file.write(b"half"), ZeroDivisionError)
    assert not path.exists()
    path.write_text("there")
    with pytest.raises(FileExistsError), new_file(path):
        pass
    assert path.read_text() == "there"


def test_some_space_stays_free(tmp_path, monkeypatch):
    for free, usable in ((20 << 20, 4 << 20), (1 << 20, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert free_space(tmp_path) == usable
