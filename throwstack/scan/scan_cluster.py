# SPDX-License-Identifier: Apache-2.0
"""The workers of a scan: a Dask cluster of this machine's own, or one whose scheduler's address is given.

The own cluster listens on the loopback interface only, and has no dashboard unless one is asked for. Its workers have
one thread each, so that each examines one dump at a time. Who can reach a Dask scheduler can run code on its workers:
docs/security.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape
from throwstack.scan.worker_processes import own_workers

_OF_WORKER = 120 << 20
"""Bytes of a worker's memory that Dask itself takes; the rest is for the process that examines dumps."""
_LEAST_MEMORY = 256 << 20
_SETTINGS: dict[str, object] = {
    # A worker that is killed from outside has not been killed by its dump, which is examined in another process.
    "distributed.scheduler.allowed-failures": 5,
    "distributed.admin.log-format": "%(message)s",
    "distributed.comm.timeouts.connect": "20s",
}
_NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": []}
"""Dask's scheduler listens for HTTP even without a dashboard: on loopback here, and it has no page then."""
_CONNECT_SECONDS = 20
_START_SECONDS = 120


class NoCluster(ThrowstackError):
    """There is no cluster to work on; the message says why."""


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """Which workers to use.

    `scheduler` is the address of a running scheduler, `tcp://host:8786`. Without one, `workers` says how many workers
    of our own there are (None: one a core), and `dashboard` the port of Dask's web page (None: there is none). `memory`
    says how many bytes a worker may take with its examining process (None: an equal share of nine tenths of the
    machine's; on another cluster as many as it takes).
    """

    scheduler: str = ""
    workers: int | None = None
    memory: int | None = None
    dashboard: int | None = None

    @property
    def worker_count(self) -> int:
        """Return how many workers the own cluster has."""
        return max(1, self.workers or _cores())

    @property
    def examiner_memory(self) -> int | None:
        """Return how many bytes an examining process may take; None on a cluster that is not ours."""
        if self.scheduler:
            return None if self.memory is None else max(_LEAST_MEMORY, self.memory - _OF_WORKER)
        return max(_LEAST_MEMORY, self._share() - _OF_WORKER)

    def _share(self) -> int:
        import psutil  # noqa: PLC0415 comes with distributed

        return self.memory or int(psutil.virtual_memory().total * 0.9) // self.worker_count


@contextlib.contextmanager
def connected(choice: ClusterChoice) -> Iterator[Any]:
    """Give a `distributed.Client`; at the end an own cluster is ended, and one of others is left as it is.

    Raises NoCluster.
    """
    try:
        import dask  # noqa: PLC0415 an extra
        import distributed  # noqa: PLC0415
    except ImportError as error:
        message = f"{error}: pip install 'throwstack[scan]'"
        raise NoCluster(message) from error
    for name in ("distributed", "tornado", "asyncio"):  # what they say of killed workers is our business
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = _SETTINGS if choice.dashboard is not None else {**_SETTINGS, **_NO_PAGES}
    with dask.config.set(settings), contextlib.ExitStack() as closing:
        address = choice.scheduler or closing.enter_context(_own_cluster(distributed, choice))
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            message = f"no Dask scheduler answers at {escape(str(choice.scheduler))}: {escape(str(error))}"
            raise NoCluster(message) from error
        closing.callback(client.close, timeout=5)
        if not choice.scheduler:
            _wait_for_worker(client)
        yield client


def _wait_for_worker(client: Any) -> None:  # noqa: ANN401 a module without types
    try:
        client.wait_for_workers(1, timeout=_START_SECONDS)
    except TimeoutError as error:
        message = f"no worker has started within {_START_SECONDS} s"
        raise NoCluster(message) from error


@contextlib.contextmanager
def _own_cluster(distributed: Any, choice: ClusterChoice) -> Iterator[Any]:  # noqa: ANN401 a module without types
    import dask  # noqa: PLC0415 an extra

    with (
        tempfile.TemporaryDirectory(prefix="throwstack-scan-", ignore_cleanup_errors=True) as scratch,
        # The scheduler puts its directory on the module search path, which workers get: it has to be a private one.
        dask.config.set({"temporary-directory": scratch}),
    ):
        cluster = distributed.LocalCluster(
            n_workers=0,
            processes=False,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=f"127.0.0.1:{choice.dashboard or 0}",
            scheduler_kwargs={"dashboard": choice.dashboard is not None},
            silence_logs=logging.CRITICAL,
        )
        try:
            with own_workers(cluster.scheduler_address, choice.worker_count, Path(scratch)):
                yield cluster
        finally:
            cluster.close(timeout=10)


def _cores() -> int:
    """Return how many processors this process may use."""
    ask = getattr(os, "sched_getaffinity", None)
    return len(ask(0)) if ask is not None else os.cpu_count() or 1
