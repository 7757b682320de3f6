# SPDX-License-Identifier: Apache-2.0
"""Keeps track of the processes and threads that a user asked for: which there are, and which are not stuck."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from throwstack.core.text import escape

_NAME_LENGTH = 14
"""How many characters of an image name EPROCESS.ImageFileName keeps."""
_SEE_PROCESSES = "windows.pslist shows those there are"


class AskedFor:
    """The processes and threads that were asked for; without any, all of them."""

    def __init__(self, pids: Collection[int], tids: Collection[int], names: Collection[str]) -> None:
        """Ask for processes by PID and by image name (with or without `.exe`, in any case), and for threads by TID."""
        self._pids = frozenset(pids)
        self.tids = frozenset(tids)
        self._names = {name: _kept_of(name) for name in names}
        self._kept = frozenset(kept for of_name in self._names.values() for kept in of_name)
        self._seen: set[int | str] = set()
        self._unproven: set[int] = set()

    @property
    def has_names(self) -> bool:
        """Say whether processes were asked for by name."""
        return bool(self._names)

    @property
    def has_processes(self) -> bool:
        """Say whether processes were asked for, by PID or by name."""
        return self.has_pids or self.has_names

    @property
    def has_pids(self) -> bool:
        """Say whether processes were asked for by PID."""
        return bool(self._pids)

    @property
    def has_seen_any(self) -> bool:
        """Say whether there is any process at all."""
        return bool(self._seen)

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()

    def process(self, pid: int, name: str) -> bool:
        """Say whether a process of the machine was asked for; `name` is "" if names are not known."""
        kept = name.lower()[:_NAME_LENGTH]
        self._seen.update((pid, kept))
        return (not self._pids or pid in self._pids) and (not self._names or kept in self._kept)

    def thread(self, tid: int) -> bool:
        """Say whether a thread of such a process was asked for."""
        return not self.tids or tid in self.tids

    def absent_processes(self) -> Iterator[tuple[int | None, str]]:
        """Yield (PID, sentence) for each process that was asked for and is not there."""
        for pid in sorted(self._pids.difference(self._seen)):
            yield pid, f"there is no process with PID {pid}: {_SEE_PROCESSES}"
        for name, kept in self._names.items():
            if not kept & self._seen:
                yield None, f"there is no process called {escape(name)}: {_SEE_PROCESSES}"

    def absent_threads(self, seen: Collection[int]) -> Iterator[tuple[int, str]]:
        """Yield (TID, sentence) for each thread that was asked for and is not in `seen`."""
        for tid in sorted(self.tids.difference(seen)):
            yield tid, f"there is no thread with TID {tid} among the processes looked at"

    def may_be_stuck(self, tids: Iterable[int]) -> None:
        """Take note that threads are stuck, or that it is not known whether they are."""
        if self.tids:
            self._unproven.update(self.tids.intersection(tids))

    def not_stuck(self, seen: Collection[int]) -> Iterator[str]:
        """Yield a sentence for each thread that was asked for, is in `seen`, and is not stuck."""
        for tid in sorted(self.tids.intersection(seen) - self._unproven):
            yield f"thread {tid} is not stuck on an exception: windows.stackwalk --tid {tid} shows where it is"


def _kept_of(name: str) -> frozenset[str]:
    """Return what the kernel may keep of an image name that was given with or without `.exe`."""
    return frozenset({name.lower()[:_NAME_LENGTH], f"{name.lower()}.exe"[:_NAME_LENGTH]})
