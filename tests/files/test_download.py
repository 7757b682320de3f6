# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server in this process, which answers correctly or misbehaves, depending on the path."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from throwstack.files import download as download_module
from throwstack.files.download import Downloader

DATA = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers a request for `/cut-short` by the method `cut_short`."""

    def do_GET(self):
        self.server.requests.append(self.path)
        getattr(self, self.path[1:].replace("-", "_"), self.absent)()

    def answer(self, status: int, data: bytes = b"", **headers: object):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def whole(self):
        self.answer(200, DATA, Content_Length=len(DATA))

    def cut_short(self):
        self.answer(200, DATA[:100_000], Content_Length=len(DATA))

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
    """One download, and the messages about it."""

    def __init__(self, server, path: str, tmp_path, **options) -> None:
        self.said: list[str] = []
        self.target = tmp_path / "private" / "app.pdb"
        self.target.parent.mkdir()
        self.host = "{}:{}".format(*server.server_address)
        self.downloader = Downloader(say=self.said.append, timeout=0.5, **options)
        self.path = path

    @property
    def left(self) -> list[Path]:
        return list(self.target.parent.iterdir())

    def run(self) -> bool:
        return self.downloader.fetch(f"http://{self.host}{self.path}", self.target)


@pytest.mark.parametrize("path", ["/whole", "/no-length", "/redirect"])
def test_a_file_is_put_in_place_whole(server, tmp_path, path):
    download = Download(server, path, tmp_path)
    assert download.run()
    assert download.target.read_bytes() == DATA
    assert download.left == [download.target]
    assert download.said == []


def test_the_progress_of_a_download_is_reported(server, tmp_path):
    told = []
    assert Download(server, "/whole", tmp_path, progress=lambda done, text: told.append((done, text))).run()
    assert told[-1] == (100, "Downloading app.pdb (250 KB)")


def test_a_cut_connection_leaves_no_file(server, tmp_path):
    download = Download(server, "/cut-short", tmp_path)
    assert not download.run()
    assert "the server stopped after 100000 of 256000 bytes" in download.said[0]
    assert download.left == []


def test_a_file_that_is_there_is_not_written_to(server, tmp_path):
    """Another user may have planted a link with the name of the target: the file it leads to stays as it is."""
    download = Download(server, "/whole", tmp_path)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    download.target.symlink_to(precious)
    assert not download.run()
    assert "File exists" in download.said[0]
    assert precious.read_text() == "precious"
    assert download.target.is_symlink()


def test_a_file_that_the_server_does_not_have_gives_no_message(server, tmp_path):
    download = Download(server, "/absent", tmp_path)
    assert not download.run()
    assert download.said == []
    assert download.left == []


def test_error_of_the_server_is_told(server, tmp_path):
    download = Download(server, "/broken", tmp_path)
    assert not download.run()
    assert download.said == [f"{download.host} answers 503 to a request for app.pdb"]


@pytest.mark.parametrize("path", ["/huge", "/no-length"])
def test_a_file_over_the_limit_is_given_up(server, tmp_path, path):
    download = Download(server, path, tmp_path, max_size=100_000)
    assert not download.run()
    assert "limit" in download.said[0]
    assert download.left == []


@pytest.mark.parametrize("path", ["/whole", "/no-length"])
def test_a_file_that_does_not_fit_on_the_disk_is_given_up(server, tmp_path, monkeypatch, path):
    """Free space is checked before, if the server gives the length, and during: other programs use the disk, too."""
    monkeypatch.setattr(download_module, "_BETWEEN_LOOKS", 1 << 16)
    monkeypatch.setattr(download_module, "free_space", lambda _: 100_000 if path == "/whole" else 0)
    download = Download(server, path, tmp_path)
    assert not download.run()
    assert "do not fit" in download.said[0]
    assert download.left == []


@pytest.mark.parametrize("what", [KeyboardInterrupt, MemoryError])
def test_an_exception_during_a_download_leaves_no_file(server, tmp_path, what):
    def interrupt(*_):
        raise what

    download = Download(server, "/whole", tmp_path, progress=interrupt)
    with pytest.raises(what):
        download.run()
    assert download.left == []


def test_a_server_that_stalls_is_given_up_and_not_asked_again(server, tmp_path):
    download = Download(server, "/stalls", tmp_path)
    assert not download.run()
    assert f"symbol server {download.host} does not answer" in download.said[0]
    assert not download.run()
    assert len(server.requests) == len(download.said) == 1


def test_a_server_that_sends_single_bytes_is_given_up(server, tmp_path):
    download = Download(server, "/drips", tmp_path, time_limit=0.3)
    assert not download.run()
    assert "it takes more than" in download.said[0]
    assert download.left == []


@pytest.mark.parametrize("path", ["/endless-header", "/endless-continue"])
def test_an_answer_that_never_begins_is_given_up(server, tmp_path, path):
    """Each byte comes within the time-out of the socket."""
    download = Download(server, path, tmp_path)
    assert not download.run()
    assert download.said == [
        f"symbol server {download.host} does not answer (it takes too long); it is not asked again in this run"
    ]


def test_an_answer_that_never_ends_is_given_up_and_its_server_not_asked_again(server, tmp_path):
    download = Download(server, "/endless-chunk-length", tmp_path, time_limit=0.5)
    assert not download.run()
    assert "it takes more than" in download.said[0]
    assert download.left == []
    assert not download.run()
    assert len(server.requests) == len(download.said) == 1


def test_a_redirection_to_a_malformed_address(server, tmp_path):
    download = Download(server, "/to-no-address", tmp_path)
    assert not download.run()
    assert len(download.said) == 1


@pytest.mark.parametrize("host", ["[::1", "a..b", "host:port", "a b", "127.0.0.1:1/\xe9"])
def test_a_malformed_address_is_reported(server, tmp_path, host):
    download = Download(server, "/whole", tmp_path)
    download.host = host
    assert not download.run()
    assert len(download.said) == 1


def test_a_server_that_does_not_exist(server, tmp_path):
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


def test_a_target_in_a_directory_that_does_not_exist(server, tmp_path):
    download = Download(server, "/whole", tmp_path)
    download.target = tmp_path / "absent" / "app.pdb"
    assert not download.run()
    assert "No such file" in download.said[0]
