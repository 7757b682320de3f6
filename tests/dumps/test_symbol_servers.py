# SPDX-License-Identifier: Apache-2.0
"""Symbol servers in the plugins, run through `vol` on the reference case: slow, absent, and one that serves."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.support.plugins_truth import expected_stacks, only
from tests.support.reference_pdbs import PDB, SOURCES, sources, stack, stored, tables


@pytest.fixture(scope="module")
def case(forged: Forge) -> tuple[Path, list[dict[str, Any]]]:
    """The reference case: its directory, and the frames that its throwing stack has."""
    out, truth = forged("ftp-2003")
    return out, expected_stacks(truth)


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that takes connections and never answers: its port, and the connections it got."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1], taken
        server.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()


def server_path(cache: Path, port: int) -> tuple[str, str]:
    return "--symbol-path", f"srv*{cache}*http://127.0.0.1:{port}"


def test_a_server_that_never_answers_is_given_up(case, tmp_path):
    out, frames = case
    with listening() as (port, taken):
        done = stack(out, *server_path(tmp_path, port), is_offline=False)
    assert len(taken) == 1
    assert f"symbol server 127.0.0.1:{port} does not answer" in done.err
    assert only(done.rows, frames) == frames
    assert tables(done.rows, "ftpsrvdata_pg") == {"isf"}


def test_a_server_that_is_not_there_is_said_once(case, tmp_path):
    out, frames = case
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = stack(out, *server_path(tmp_path, port), is_offline=False)
    assert done.err.count(f"symbol server 127.0.0.1:{port} does not answer") == 1
    assert only(done.rows, frames) == frames


def test_no_server_is_asked_when_offline(case, tmp_path):
    out, frames = case
    with listening() as (port, taken):
        done = stack(out, *server_path(tmp_path, port))
    assert not taken
    assert only(done.rows, frames) == frames


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_fills_the_cache_that_serves_from_then_on(case, tmp_path):
    out, _ = case
    handler = functools.partial(_Quiet, directory=str(out / "pdb"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = server_path(tmp_path / "downloads", server.server_port)
        online = stack(out, *path, is_offline=False)
        server.shutdown()
    assert sources(online.rows) == SOURCES
    assert stored(tmp_path / "downloads", PDB).read_bytes() == stored(out / "pdb", PDB).read_bytes()
    assert stack(out, *path).rows == online.rows
