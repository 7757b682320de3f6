# SPDX-License-Identifier: Apache-2.0
"""The worker processes of a scan's own cluster. One that ends, for whatever reason, is started anew.

Dask has a supervisor for workers, the nanny. It gives a worker up that is killed while it starts: where the system
kills processes time and again for lack of memory, a scan would end up without workers and wait for ever.

The processes are in a session or process group of their own, because a terminal sends Ctrl-C to all processes of its
group. They end when their scheduler is gone, within half a minute. Their current directory is a private one: Python
puts it on the module search path here and there, and a directory with dumps from a suspect machine may hold a
`pickle.py`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LOOK_SECONDS = 0.5
_BETWEEN_STARTS = 1.0
_END_SECONDS = 10
_START = """\
import sys
sys.path[:] = {path!r}
from distributed.cli.dask_worker import main
main()
"""
_OPTIONS = (
    "--host=127.0.0.1",
    "--nthreads=1",
    "--no-nanny",
    "--no-dashboard",
    "--dashboard-address=127.0.0.1:0",  # without a dashboard, too, Dask listens for HTTP: on all interfaces by default
    "--memory-limit=0",
    "--death-timeout=30",
)

_SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",  # a sample of the stack each 10 ms, which nobody looks at
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
}
"""Dask's settings for these processes, as it takes them from the environment."""


@dataclass(slots=True)
class _Place:
    """One of the workers: its process, and when that was started."""

    process: subprocess.Popen[bytes] | None = None
    started: float = field(default=-_BETWEEN_STARTS)


@contextlib.contextmanager
def own_workers(scheduler: str, count: int, scratch: Path) -> Iterator[None]:
    """Keep `count` workers running for the scheduler at this address; their files are in the directory `scratch`."""
    ended = threading.Event()
    places = [_Place() for _ in range(count)]
    keeper = threading.Thread(target=_keep, args=(places, scheduler, scratch, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        running = [place.process for place in places if place.process is not None]
        for process in running:
            process.kill()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)


def _keep(places: list[_Place], scheduler: str, scratch: Path, ended: threading.Event) -> None:
    while not ended.is_set():
        for place in places:
            has_ended = place.process is None or place.process.poll() is not None
            if has_ended and time.monotonic() - place.started >= _BETWEEN_STARTS:
                place.started = time.monotonic()
                with contextlib.suppress(OSError):  # too many processes, say: tried again
                    place.process = _started(scheduler, scratch)
        ended.wait(_LOOK_SECONDS)


def _started(scheduler: str, scratch: Path) -> subprocess.Popen[bytes]:
    path = [entry for entry in sys.path if entry]
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(  # noqa: S603 our own interpreter
        [sys.executable, "-c", _START.format(path=path), scheduler, *_OPTIONS, f"--local-directory={scratch}"],
        cwd=scratch,
        env={**os.environ, **_SETTINGS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=os.name != "nt",
        creationflags=group,
    )
