# SPDX-License-Identifier: Apache-2.0
"""Starts a Python process that runs a module of throwstack without the current directory, and ends with its parent.

The current directory is often the folder of the evidence, where an attacker may have put a `struct.py` to be imported.
So the child is started with `-I -S`: its module search path is the standard library alone, without the current
directory, PYTHONPATH or a user's own packages. The absolute directories of throwstack and of the needed libraries are
added to it. The child works in a directory of its own.

The child reads a pipe whose other end the parent has open. However the parent ends, the pipe then closes, and the child
ends as well.
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
    """Say whether there is a Python interpreter that can be started.

    A frozen program (made by PyInstaller, for example) has none.
    """
    return not getattr(sys, "frozen", False) and bool(sys.executable) and Path(sys.executable).is_absolute()


def command(module: str, libraries: Iterable[str], arguments: Iterable[str]) -> list[str]:
    """Return the command line that runs `main(arguments)` of throwstack's module `module` in a new process.

    `libraries` are the top-level modules from outside the standard library that the new process may import.
    """
    directories = list(dict.fromkeys([str(_OURS), *_directories(libraries)]))
    return [sys.executable, "-I", "-S", "-c", _START, str(len(directories)), *directories, module, *arguments]


def end_with_parent(folder: Path) -> None:
    """End this process, a child, once its standard input closes, and remove `folder`, its working directory.

    This process ignores Ctrl-C and other signals to the whole process group. The parent ends on such a signal, and this
    process ends after it.
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
    """Yield the directories from which the top-level modules `libraries` can be imported.

    The modules need not be imported yet. The current directory is not searched.
    """
    here = Path.cwd()
    trusted = [entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) not in (here, here.resolve())]
    for name in libraries:
        spec = PathFinder.find_spec(name, trusted)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            yield str(origin.parents[1 if spec.submodule_search_locations is not None else 0])
