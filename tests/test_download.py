# SPDX-License-Identifier: Apache-2.0
"""Downloads, from a server of our own on this machine that behaves and misbehaves."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from throwstack.download import Downloader

DATA = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        match self.path:
            case "/whole" | "/cut-short":
                if start >= len(DATA):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(DATA) - start))
                self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
                self.end_headers()
                end = len(DATA) if start or self.path == "/whole" else 100_000
                self.wfile.write(DATA[start:end])
            case "/no-ranges":
                self.send_response(200)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA)
            case "/other-range" if start:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes 0-9/{len(DATA)}")
                self.end_headers()
                self.wfile.write(DATA[:10])
            case "/no-length" | "/other-range":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(DATA)
            case "/huge":
                self.send_response(200)
                self.send_header("Content-Length", str(1 << 40))
                self.end_headers()
            case "/redirect":
                self.send_response(302)
                self.send_header("Location", "/whole")
                self.end_headers()
            case "/to-a-file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "/stalls":
                self.send_response(200)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA[:1000])
                self.wfile.flush()
                self.server.released.wait(20)
            case "/drips":
                self.send_response(200)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                while not self.server.released.wait(0.05):
                    self.wfile.write(b"x")
            case "/broken":
                self.send_error(503)
            case _:
                self.send_error(404)
        return None

    def log_message(self, *_):
        pass


@contextmanager
def running() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests = []
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as it:
        yield it


class Download:
    """One download and what was said about it."""

    def __init__(self, server, path: str, tmp_path, **options) -> None:
        self.said: list[str] = []
        self.target = tmp_path / "name" / "key" / "app.pdb"
        self.part = self.target.with_name("app.pdb.part")
        self.host = "{}:{}".format(*server.server_address)
        self.downloader = Downloader(say=self.said.append, timeout=0.5, **options)
        self.path = path

    def run(self) -> bool:
        return self.downloader.fetch(f"http://{self.host}{self.path}", self.target)


@pytest.mark.parametrize("path", ["/whole", "/no-length", "/redirect", "/no-ranges"])
def test_a_file_is_put_in_place_whole(server, tmp_path, path):
    download = Download(server, path, tmp_path)
    assert download.run()
    assert download.target.read_bytes() == DATA
    assert os.listdir(download.target.parent) == ["app.pdb"]
    assert download.said == []


def test_progress_is_told(server, tmp_path):
    told = []
    assert Download(server, "/whole", tmp_path, progress=lambda done, text: told.append((done, text))).run()
    assert told[-1] == (100, "Downloading app.pdb (250 KB)")


def test_a_cut_connection_is_gone_on_from(server, tmp_path):
    download = Download(server, "/cut-short", tmp_path)
    assert not download.run()
    assert not download.target.exists()
    assert download.part.read_bytes() == DATA[:100_000]
    assert "the server stopped after 100000 of 256000 bytes" in download.said[0]
    assert download.run()
    assert download.target.read_bytes() == DATA
    assert [requested for _, requested in server.requests] == [None, "bytes=100000-"]


@pytest.mark.parametrize("path", ["/no-ranges", "/other-range"])
def test_a_server_without_ranges_starts_afresh(server, tmp_path, path):
    download = Download(server, path, tmp_path)
    download.part.parent.mkdir(parents=True)
    download.part.write_bytes(b"old" * 1000)
    assert download.run()
    assert download.target.read_bytes() == DATA


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    download.part.parent.mkdir(parents=True)
    download.part.write_bytes(b"x" * (len(DATA) + 1))
    assert download.run()
    assert download.target.read_bytes() == DATA


def test_absent_file_is_no_matter_for_words(server, tmp_path):
    download = Download(server, "/absent", tmp_path)
    assert not download.run()
    assert download.said == []
    assert not list(tmp_path.iterdir())


def test_error_of_the_server_is_told(server, tmp_path):
    download = Download(server, "/broken", tmp_path)
    assert not download.run()
    assert download.said == [f"{download.host} answers 503 to a request for app.pdb"]


@pytest.mark.parametrize("path", ["/huge", "/no-length"])
def test_a_file_over_the_limit_is_given_up(server, tmp_path, path):
    download = Download(server, path, tmp_path, max_size=100_000)
    assert not download.run()
    assert "limit" in download.said[0]


def test_a_server_that_stalls_is_given_up_and_not_asked_again(server, tmp_path):
    download = Download(server, "/stalls", tmp_path)
    assert not download.run()
    assert f"symbol server {download.host} does not answer" in download.said[0]
    assert not download.run()
    assert len(server.requests) == len(download.said) == 1


def test_a_server_that_drips_is_given_up(server, tmp_path):
    download = Download(server, "/drips", tmp_path, time_limit=0.3)
    assert not download.run()
    assert "the next run goes on from there" in download.said[0]


def test_a_server_that_is_not_there(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        download.host = f"127.0.0.1:{free.getsockname()[1]}"
        assert not download.run()
    assert f"symbol server {download.host} does not answer" in download.said[0]


def test_a_redirection_to_a_file_of_this_machine_is_not_followed(server, tmp_path):
    download = Download(server, "/to-a-file", tmp_path)
    assert not download.run()
    assert not download.target.exists()
    assert len(download.said) == 1


def test_another_process_at_work_on_the_same_file_is_left_alone(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    download.part.parent.mkdir(parents=True)
    download.part.write_bytes(b"theirs")
    lock = download.part.with_name("app.pdb.part.lock")
    lock.touch()
    assert download.run()
    assert download.target.read_bytes() == DATA
    assert download.part.read_bytes() == b"theirs"
    assert lock.exists()


def test_a_lock_that_was_left_behind_is_broken(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    lock = download.part.with_name("app.pdb.part.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    long_ago = time.time() - 10_000
    os.utime(lock, (long_ago, long_ago))
    assert download.run()
    assert not lock.exists()


def test_a_cache_that_cannot_be_written(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    (tmp_path / "name").write_text("a file where a directory has to be")
    assert not download.run()
    assert "cannot be stored" in download.said[0]
