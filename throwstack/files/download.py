# SPDX-License-Identifier: Apache-2.0
"""Files from symbol servers: one GET each, resumable, with time limits, into place only when whole.

On urllib: what is needed is a GET with a Range header and a time-out on every wait, which the standard library has,
with proxies and redirects; a package would add a dependency to every installation for the few that go online.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar

from throwstack.files.symbol_path import Say

T = TypeVar("T")

_CHUNK = 1 << 16
_WAITS = 3
"""How many time-outs an answer may take in all to begin: redirections, and servers that send it byte by byte."""
_USER_AGENT = "Microsoft-Symbol-Server/10.0.0.0"
"""Some servers, Microsoft's among them at times, answer no other client."""

Progress = Callable[[float, str], None]
"""Takes the percentage done (0 where the whole size is not known) and a line of text."""


class Downloader:
    """Fetches files. A server that does not answer is said so once and not asked again."""

    def __init__(
        self,
        *,
        say: Say,
        progress: Progress | None = None,
        timeout: float = 10.0,
        time_limit: float = 900.0,
        max_size: int = 2 << 30,
    ) -> None:
        """Wait at most `timeout` seconds for any one answer, `time_limit` for a whole file; take `max_size` bytes."""
        self._say = say
        self._progress = progress
        self._timeout = timeout
        self._time_limit = time_limit
        self._max_size = max_size
        self._silent: set[str] = set()
        self._opener = urllib.request.OpenerDirector()
        for handler in (  # and none for file: or ftp:, to which a server could redirect
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def fetch(self, url: str, target: Path) -> bool:
        """Store what is at `url` as `target`, going on from an earlier partial download; say what prevents it."""
        server = url.split("/", 3)[2]
        if server in self._silent:
            return False
        part = target.with_name(target.name + ".part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _Claim(part) as own:
                return self._fetch(url, server, own, target)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (404, 410):
                self._say(f"{server} answers {error.code} to a request for {target.name}")
        except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, _Overdue) as error:
            self._silent.add(server)
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            self._say(f"symbol server {server} does not answer ({reason!s:.120}); it is not asked again in this run")
        except OSError as error:
            self._say(f"{target}: cannot be stored: {error.strerror or error}")
        except ValueError as error:  # an address that is none, given or redirected to
            self._silent.add(server)
            self._say(f"symbol server {server} cannot be asked ({error!s:.120})")
        except _Abandoned as error:
            self._say(f"{url}: {error}")
        _remove_empty(target.parent)
        return False

    def _fetch(self, url: str, server: str, part: Path, target: Path) -> bool:
        response, have = _in_time(_WAITS * self._timeout, lambda: self._open_from(url, part))
        length = response.headers.get("Content-Length", "")
        whole = have + int(length) if length.isdecimal() else None
        if whole is not None and whole > self._max_size:
            response.close()
            message = f"{whole >> 20} MB are more than the limit of {self._max_size >> 20} MB"
            raise _Abandoned(message)
        try:
            have = _in_time(self._time_limit, lambda: self._receive(response, part, have, whole, target.name))
        except _Overdue:
            self._silent.add(server)
            size = part.stat().st_size
            message = f"only {size >> 10} KB in {self._time_limit:.0f} s; the next run goes on from there"
            raise _Abandoned(message) from None
        if whole is not None and have != whole:
            message = f"the server stopped after {have} of {whole} bytes; the next run goes on from there"
            raise _Abandoned(message)
        part.replace(target)
        return True

    def _open_from(self, url: str, part: Path) -> tuple[HTTPResponse, int]:
        """Ask for what `part` lacks; return the answer and the offset at which it begins."""
        have = part.stat().st_size if part.exists() else 0
        try:
            response = self._open(url, have)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not have:
                raise
            error.close()  # `part` is longer than the file: not a beginning of it
            return self._open(url, 0), 0
        if response.status != 206:
            return response, 0
        if response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            return response, have
        response.close()
        return self._open(url, 0), 0

    def _open(self, url: str, offset: int) -> HTTPResponse:
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response: HTTPResponse = self._opener.open(
            urllib.request.Request(url, headers=headers),  # noqa: S310 the opener knows http and https only
            timeout=self._timeout,
        )
        return response

    def _receive(self, response: HTTPResponse, part: Path, have: int, whole: int | None, name: str) -> int:
        deadline = time.monotonic() + self._time_limit
        with response, part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while True:
                chunk = response.read1(_CHUNK)
                if not chunk:
                    return have
                file.write(chunk)
                have += len(chunk)
                if have > self._max_size:
                    message = f"more than the limit of {self._max_size >> 20} MB"
                    raise _Abandoned(message)
                if time.monotonic() > deadline:
                    raise _Overdue
                if self._progress is not None:
                    self._progress(100 * have / whole if whole else 0, f"Downloading {name} ({have >> 10} KB)")


class _Abandoned(Exception):
    """A download that was given up; the text says why."""


class _Overdue(Exception):
    """Something takes longer than it may."""

    def __str__(self) -> str:
        return "it takes too long"


def _in_time(limit: float, work: Callable[[], T]) -> T:
    """Return what `work` returns; raise what it raises, or `_Overdue` if it takes more than `limit` seconds.

    A time-out on a socket is one on each wait. A server that sends a header line, a chunk's length or `100 Continue`
    over and over keeps within it for ever, inside http.client, and looking a host up knows none. So it is done in a
    thread, which is left behind.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 raised where it is waited for
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    if failures:
        raise failures[0]
    if not results:
        raise _Overdue
    return results[0]


class _Claim:
    """Holds a partial file for one process: another one that wants it meanwhile works on a file of its own."""

    _STALE = 3600.0

    def __init__(self, part: Path) -> None:
        self._part = part
        self._lock = part.with_name(part.name + ".lock")
        self._own = False

    def __enter__(self) -> Path:
        try:
            if self._lock.exists() and time.time() - self._lock.stat().st_mtime > self._STALE:
                self._lock.unlink(missing_ok=True)  # its process is long gone
            os.close(os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            self._part = self._part.with_name(f"{self._part.name}-{os.getpid()}")
        else:
            self._own = True
        return self._part

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._lock.unlink(missing_ok=True)
        else:
            self._part.unlink(missing_ok=True)


def _remove_empty(directory: Path) -> None:
    """Remove the directories made for a file that did not come: `name/KEY`."""
    with suppress(OSError):
        directory.rmdir()
        directory.parent.rmdir()
