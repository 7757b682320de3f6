# SPDX-License-Identifier: Apache-2.0
"""Names of minidumps: portable, in the directory that was given, and never those of another file."""

from __future__ import annotations

import os

import pytest

from throwstack.minidump.new_file import minidump_name, open_new


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("iftpsvc.exe", "iftpsvc.exe-2564-3f2a9c01"),
        ("../../etc/passwd", "_.._etc_passwd-2564-3f2a9c01"),
        (r"..\x.exe", "_x.exe-2564-3f2a9c01"),
        ("-rf", "rf-2564-3f2a9c01"),
        ("магазин.exe", "_.exe-2564-3f2a9c01"),
        ("\x1b[31m\n", "_31m_-2564-3f2a9c01"),
        ("", "process-2564-3f2a9c01"),
        ("...", "process-2564-3f2a9c01"),
        ("con", "_con-2564-3f2a9c01"),
        ("COM1.exe", "_COM1.exe-2564-3f2a9c01"),
        ("console.exe", "console.exe-2564-3f2a9c01"),
        ("x" * 200, f"{'x' * 40}-2564-3f2a9c01"),
    ],
)
def test_names_are_portable(process: str, name: str):
    assert minidump_name(process, 2564, "3f2a9c01") == name


def test_without_a_signature_there_is_no_hash():
    assert minidump_name("a.exe", 4) == "a.exe-4"


def test_a_file_that_exists_is_never_replaced(tmp_path):
    first, out = open_new(tmp_path, "a")
    with out:
        out.write(b"evidence")
    second, out = open_new(tmp_path, "a")
    out.close()
    assert (first.name, second.name) == ("a.dmp", "a-2.dmp")
    assert first.read_bytes() == b"evidence"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions, and links need privileges")
def test_the_owner_alone_can_read_it_and_links_are_not_followed(tmp_path):
    (tmp_path / "a.dmp").symlink_to(tmp_path / "elsewhere")
    path, out = open_new(tmp_path, "a")
    out.close()
    assert path.name == "a-2.dmp"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "elsewhere").exists()
