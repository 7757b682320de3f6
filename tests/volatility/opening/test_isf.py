# SPDX-License-Identifier: Apache-2.0
"""Names of user-mode modules from ISF files."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma

import pytest
from volatility3 import symbols
from volatility3.framework import constants

from throwstack.core.memory import memory_of
from throwstack.images.image import Image, PdbIdentity
from throwstack.images.modules import Module
from throwstack.volatility.opening.isf import IsfSource

GUID = "0123456789ABCDEF00112233445566AA"
FILE = json.dumps({"symbols": {f"f{index}": {"address": 0x1000 + index} for index in range(500)}}).encode()


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Put one file where Volatility looks for symbols, and ask for the table of its PDB."""
    monkeypatch.setattr(symbols, "__path__", [str(tmp_path)])
    monkeypatch.setattr(constants, "CACHE_PATH", str(tmp_path))
    directory = tmp_path / "windows" / "app.pdb"
    directory.mkdir(parents=True)

    def table(extension: str, data: bytes):
        (directory / f"{GUID}-10.json{extension}").write_bytes(data)
        image = Image(Module("app.dll", "app.dll", 0x10000000, 0x10000), memory_of({}))
        image._pdb, image._pdb_parsed = PdbIdentity("app.pdb", GUID, 10), True
        return IsfSource()(image)

    return table


PACKED = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("extension", PACKED)
def test_symbols_are_read_from_an_isf_file(put, extension):
    assert put(extension, PACKED[extension](FILE)).nearest(0x1002) == ("f2", 0x1002)


@pytest.mark.parametrize("extension", PACKED)
@pytest.mark.parametrize(
    "cut", [lambda data: data[: len(data) // 2], lambda data: data[:99] + b"\xff" * 99, lambda _: b""]
)
def test_a_damaged_isf_file_is_a_warning(put, extension, cut, caplog):
    with caplog.at_level(logging.WARNING):
        assert put(extension, cut(PACKED[extension](FILE))) is None
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b"[]", b'{"symbols": {"f": {"address": 1e400}}}', b'{"symbols": {"f": {"address": [1]}}}']
)
def test_a_file_that_is_no_isf_table_is_a_warning(put, data, caplog):
    with caplog.at_level(logging.WARNING):
        assert put("", data) is None
    assert "cannot be used" in caplog.text
