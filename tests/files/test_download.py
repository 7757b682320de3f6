# SPDX-License-Identifier: Apache-2.0
"""Downloads, from a server of our own on this machine that behaves and misbehaves."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from throwstack.files.download import Downloader

DATA = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers by the path asked for: `/cut-short` is what `cut_short` does."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        getattr(self, self.path[1:].replace("-", "_"), self.absent)()

    def answer(self, status: int, data: bytes = b"", **headers: object):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def whole(self):
        if self.start >= len(DATA):
            self.answer(416)
        elif self.start:
            rest = f"bytes {self.start}-{len(DATA) - 1}/{len(DATA)}"
            self.answer(206, DATA[self.start :], Content_Length=len(DATA) - self.start, Content_Range=rest)
        else:
            self.no_ranges()

    def cut_short(self):
        if self.start:
            self.whole()
        else:
            self.answer(200, DATA[:100_000], Content_Length=len(DATA))

    def other_range(self):
        if self.start:
            self.answer(206, DATA[:10], Content_Range=f"bytes 0-9/{len(DATA)}")
        else:
            self.no_length()

    def no_ranges(self):
        self.answer(200, DATA, Content_Length=len(DATA))

    def no_length(self):
        self.answer(200, DATA)

    def huge(self):
        self.answer(200, Content_Length=1 << 40)

    def redirect(self):
        self.answer(302, Location="/whole")

    def to_a_file(self):
        self.answer(302, Location="file:///etc/passwd")

    def to_no_address(self):
        self.answer(302, Location="http://[")

    def over_and_over(self, data: bytes):
        with contextlib.suppress(OSError):
            while not self.server.released.wait(0.05):
                self.wfile.write(data)

    def endless_header(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.over_and_over(b"x")

    def endless_continue(self):
        self.over_and_over(b"HTTP/1.1 100 Continue\r\n\r\n")

    def endless_chunk_length(self):
        self.answer(200, Transfer_Encoding="chunked")
        self.over_and_over(b"0")

    def stalls(self):
        self.answer(200, DATA[:1000], Content_Length=len(DATA))
        self.server.released.wait(20)

    def drips(self):
        self.answer(200, Content_Length=len(DATA))
        while not self.server.released.wait(0.05):
            self.wfile.write(b"x")

    def broken(self):
        self.answer(503)

    def absent(self):
        self.answer(404)

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
    assert list(download.target.parent.iterdir()) == [download.target]
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


@pytest.mark.parametrize("path", ["/endless-header", "/endless-continue"])
def test_an_answer_that_never_begins_is_given_up(server, tmp_path, path):
    """Each byte comes within the time-out on a socket."""
    download = Download(server, path, tmp_path)
    assert not download.run()
    assert download.said == [
        f"symbol server {download.host} does not answer (it takes too long); it is not asked again in this run"
    ]


def test_an_answer_that_never_ends_is_given_up_and_its_server_not_asked_again(server, tmp_path):
    download = Download(server, "/endless-chunk-length", tmp_path, time_limit=0.5)
    assert not download.run()
    assert "the next run goes on from there" in download.said[0]
    assert not download.run()
    assert len(server.requests) == len(download.said) == 1


def test_a_redirection_to_what_is_no_address(server, tmp_path):
    download = Download(server, "/to-no-address", tmp_path)
    assert not download.run()
    assert len(download.said) == 1


@pytest.mark.parametrize("host", ["[::1", "a..b", "host:port", "a b", "127.0.0.1:1/\xe9"])
def test_what_is_no_address_is_said(server, tmp_path, host):
    download = Download(server, "/whole", tmp_path)
    download.host = host
    assert not download.run()
    assert len(download.said) == 1


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
    (tmp_path / "name").write_text("a file where a directory has to be", encoding="utf-8")
    assert not download.run()
    assert "cannot be stored" in download.said[0]
