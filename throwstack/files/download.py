# SPDX-License-Identifier: Apache-2.0
"""Downloads files from symbol servers, each by one GET with limits on time and size. A failed download leaves no file.

urllib suffices: it does a GET with a time-out on every wait, and knows proxies and redirects. A better HTTP package
would be a dependency of every installation, while only few installations download anything.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape
from throwstack.files.cache_files import SPARE, free_space, new_file
from throwstack.files.symbol_path import Say

T = TypeVar("T")

_CHUNK = 1 << 16
_BETWEEN_LOOKS = 4 << 20
"""After how many bytes the free space is checked again: a quarter of the bytes that have to stay free."""
_WAITS = 3
"""Within how many time-outs an answer has to begin.

More than one is allowed because of redirects and servers that send the answer byte by byte.
"""
_USER_AGENT = "Microsoft-Symbol-Server/10.0.0.0"
"""The name by which the client is known to servers. Some servers, at times Microsoft's own, answer only this client."""

Progress = Callable[[float, str], None]
"""A function that is called with the percentage done (0 if the size is not known) and a line of text."""


class Downloader:
    """Downloads files. If a server does not answer, there is one message, and the server is not used again."""

    def __init__(
        self,
        *,
        say: Say,
        progress: Progress | None = None,
        timeout: float = 10.0,
        time_limit: float = 900.0,
        max_size: int = 2 << 30,
    ) -> None:
        """`say` is called with messages for the user, and `progress` during a download.

        Each wait is limited to `timeout` seconds, and each file to `time_limit` seconds and `max_size` bytes.
        """
        self._say = say
        self._progress = progress
        self._timeout = timeout
        self._time_limit = time_limit
        self._max_size = max_size
        self._silent: set[str] = set()
        self._opener = urllib.request.OpenerDirector()
        for handler in (  # none for file: and ftp:, or a server could redirect us to a local file
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def fetch(self, url: str, target: Path) -> bool:
        """Download `url` to the new file `target` and return True. If that fails, leave no file and return False.

        The user gets a message with the reason, unless the server does not have the file or has failed before.
        """
        server = url.split("/", 3)[2]
        if server in self._silent:
            return False
        try:
            self._fetch(url, server, target)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (404, 410):
                self._say(f"{server} answers {error.code} to a request for {target.name}")
        except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, _Overdue) as error:
            self._silent.add(server)
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            shown = escape(str(reason), 120)
            self._say(f"symbol server {server} does not answer ({shown}); it is not asked again in this run")
        except OSError as error:
            self._say(f"{target}: cannot be stored: {error.strerror or error}")
        except ValueError as error:  # the address, or the one it redirects to, is malformed
            self._silent.add(server)
            self._say(f"symbol server {server} cannot be asked ({escape(str(error), 120)})")
        except _Abandoned as error:
            self._say(f"{url}: {error}")
        else:
            return True
        return False

    def _fetch(self, url: str, server: str, target: Path) -> None:
        response = _in_time(_WAITS * self._timeout, lambda: self._open(url))
        length = response.headers.get("Content-Length", "")
        whole = int(length) if length.isdecimal() and len(length) < 20 else None
        given_up = threading.Event()
        try:
            self._look_at_size(whole or 0, 0, target.parent)
            _in_time(self._time_limit, lambda: self._receive(response, target, whole, given_up))
        except _Overdue:
            self._silent.add(server)
            with suppress(OSError):  # Windows cannot remove a file that the thread has open; the thread will
                target.unlink()
            message = f"it takes more than {self._time_limit:.0f} s"
            raise _Abandoned(message) from None
        finally:
            given_up.set()  # not response.close(), which could wait for the thread that reads

    def _look_at_size(self, size: int, have: int, directory: Path) -> None:
        """Raise `_Abandoned` if `size` bytes, of which `have` are stored, exceed the limit or the free space."""
        if size > self._max_size:
            message = f"{size >> 20} MB are more than the limit of {self._max_size >> 20} MB"
            raise _Abandoned(message)
        free = free_space(directory)
        if size - have > free:
            message = f"{size >> 20} MB do not fit: {free >> 20} MB are free beside {SPARE >> 20} MB in reserve"
            raise _Abandoned(message)

    def _open(self, url: str) -> HTTPResponse:
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        response: HTTPResponse = self._opener.open(
            urllib.request.Request(url, headers=headers),  # noqa: S310 the opener knows http and https only
            timeout=self._timeout,
        )
        return response

    def _receive(self, response: HTTPResponse, target: Path, whole: int | None, given_up: threading.Event) -> None:
        deadline = time.monotonic() + self._time_limit
        have, looked = 0, 0
        with response, new_file(target) as file:
            while True:
                chunk = response.read1(_CHUNK)
                if not chunk:
                    break
                have += len(chunk)
                if have > self._max_size or have - looked >= _BETWEEN_LOOKS:
                    looked = have
                    self._look_at_size(have, have - len(chunk), target.parent)
                file.write(chunk)
                if given_up.is_set() or time.monotonic() > deadline:
                    raise _Overdue
                if self._progress is not None:
                    done = 100 * have / whole if whole else 0
                    self._progress(done, f"Downloading {target.name} ({have >> 10} KB)")
            if whole is not None and have != whole:
                message = f"the server stopped after {have} of {whole} bytes"
                raise _Abandoned(message)


class _Abandoned(ThrowstackError):
    """A download was given up; the message says why."""


class _Overdue(ThrowstackError):
    """An operation takes longer than its limit."""

    def __str__(self) -> str:
        return "it takes too long"


def _in_time(limit: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, raise what it raises, or raise `_Overdue` after `limit` seconds.

    The time-out of a socket limits each wait, not the sum. A server that sends a header line every few seconds stays
    within this limit for ever, and http.client goes on reading; and the look-up of a host name has no time-out at all.
    So the work is done in a thread. After the limit the thread is abandoned: Python cannot end it.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 the waiting thread raises it
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    if failures:
        raise failures[0]
    if not results:
        raise _Overdue
    return results[0]
