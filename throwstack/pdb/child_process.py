# SPDX-License-Identifier: Apache-2.0
"""Processes that we start: a Python that runs a module of ours, with nothing of where we are, and no longer than we do.

The current directory is often the folder of the evidence, and what is there may have been put there to be run. So a
child is started with `-I -S`: its module search path has the standard library alone, neither the current directory
nor what the environment or a user's own packages add. To that come the absolute directories of throwstack and of the
libraries that the module needs. It works in a directory of its own, never in ours.

The parent holds a pipe that the child reads: when it ends, in whatever way, the child notices and ends as well.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

_OURS = Path(__file__).resolve().parents[2]
_START = (
    "import sys; count = int(sys.argv[1]); sys.path += sys.argv[2 : 2 + count]; "
    "name, sys.argv[1:] = sys.argv[2 + count], sys.argv[3 + count :]; "
    "from importlib import import_module; sys.exit(import_module(name).main(sys.argv[1:]))"
)


def can_start() -> bool:
    """Say whether there is an interpreter to start: not so in a frozen program, nor where Python does not know it."""
    return not getattr(sys, "frozen", False) and bool(sys.executable) and Path(sys.executable).is_absolute()


def command(module: str, libraries: Iterable[str], arguments: Iterable[str]) -> list[str]:
    """Return the command that runs `main(arguments)` of a module of ours that imports these `libraries` as well."""
    directories = list(dict.fromkeys([str(_OURS), *_directories(libraries)]))
    return [sys.executable, "-I", "-S", "-c", _START, str(len(directories)), *directories, module, *arguments]


def end_with_parent(folder: Path) -> None:
    """In a child: end this process when its standard input does, and remove `folder`, where it works.

    Ctrl-C and the signals that end a group of processes are the parent's to answer: it ends, and so does this process.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, args=(folder,), daemon=True).start()


def _wait_for_parent(folder: Path) -> None:
    try:
        while os.read(0, 1):
            pass
    except OSError:
        pass
    os.chdir(folder.anchor)  # Windows removes no directory that a process is in
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _directories(libraries: Iterable[str]) -> Iterator[str]:
    """Yield where these top-level modules are, whether imported yet or not."""
    here = Path.cwd()
    trusted = [entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) not in (here, here.resolve())]
    for name in libraries:
        spec = PathFinder.find_spec(name, trusted)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            yield str(origin.parents[1 if spec.submodule_search_locations is not None else 0])
