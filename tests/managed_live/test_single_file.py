# SPDX-License-Identifier: Apache-2.0
"""A program put into a single-file host is found there again, and the host says its name."""

from __future__ import annotations

import json
import struct

import pytest

from tests.managed_live.single_file import ASSEMBLY, MARKER, Bundled, bundled_files, single_file

HOST = b"MZ host " + b"other.dll\0" + bytes(1014) + struct.pack("<q", 0) + MARKER + b" end"


def test_what_is_put_in_comes_out():
    assemblies = [Bundled("Crashes.dll", b"program", ASSEMBLY), Bundled("System.Long.dll", b"x" * 5000, ASSEMBLY)]

    host, files = bundled_files(single_file(HOST, "other", "Crashes", assemblies, "10.0.12"))

    assert files[:2] == assemblies
    assert [file.path for file in files[2:]] == ["Crashes.deps.json", "Crashes.runtimeconfig.json"]
    assert json.loads(files[3].data)["runtimeOptions"]["includedFrameworks"][0]["version"] == "10.0.12"
    assert b"Crashes.dll\0" in host
    assert b"other.dll" not in host


def test_a_host_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"another\.dll 0 times"):
        single_file(HOST, "another", "Crashes", [], "10.0.12")


def test_another_version_of_the_table_is_refused():
    program = bytearray(single_file(HOST, "other", "Crashes", [Bundled("Crashes.dll", b"", ASSEMBLY)], "10.0.12"))
    table = struct.unpack_from("<q", program, program.index(MARKER) - 8)[0]
    program[table] = 2

    with pytest.raises(ValueError, match="version 2"):
        bundled_files(bytes(program))
