# SPDX-License-Identifier: Apache-2.0
"""Runs the programs under Wine and keeps what crashed waiting: prefixes, AeDebug, finding the process.

Two prefixes. In `classic`, 64-bit programs are 64-bit processes and 32-bit ones are 32-bit processes. In `wow64` the
32-bit loader is hidden (in a mount namespace of its own, so root is needed), and Wine runs 32-bit programs as Windows
does: a 64-bit process with wow64.dll and wow64cpu.dll.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

AEDEBUG = r"HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug"
LOADERS = Path("/usr/lib/wine")
I386_DLLS = Path("/usr/lib/i386-linux-gnu/wine/i386-windows")
HIDDEN_I386_DLLS = Path("/usr/lib/x86_64-linux-gnu/wine/i386-windows")


class WineError(Exception):
    """Wine did not do what was asked of it in time."""


@dataclass(frozen=True)
class Prefix:
    """A Wine prefix with AeDebug set to the sleeper. `is_wow64` chooses how 32-bit programs run."""

    path: Path
    is_wow64: bool

    def create(self, sleeper: Path) -> None:
        """Create the prefix, unless it is there, and set it up. What a broken run left running in it is ended."""
        self.stop()
        if self.is_wow64:
            self._copy_loaders()
        if not (self.path / "ready").exists():
            self._create()
        shutil.copy(sleeper, self.path / "drive_c" / "sleeper.exe")

    def _create(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run("wineboot", "-i", overrides="mscoree=;mshtml=", seconds=180)
        for view in ("64", "32"):
            for name, value in (("Debugger", r"c:\sleeper.exe %ld %ld"), ("Auto", "1")):
                self._run("reg", "add", AEDEBUG, "/v", name, "/t", "REG_SZ", "/d", value, "/f", f"/reg:{view}")
        (self.path / "ready").touch()

    def start(
        self,
        program: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        console: Path | None = None,
        overrides: str = "mscoree=n;mshtml=;vcruntime140=n,b",
    ) -> subprocess.Popen[bytes]:
        """Start a program, given by its path under `drive_c`. What it prints goes to the file `console`."""
        command = (windows_path(program), *arguments)
        if console is None:
            return self._popen(command, overrides, environment or {})
        with console.open("wb") as printed:
            return self._popen(command, overrides, environment or {}, printed)

    def stop(self) -> None:
        """End everything that runs in the prefix. Raises WineError when it does not end."""
        server = subprocess.Popen(["/usr/bin/wineserver", "-k"], env=self._environment(""), stderr=subprocess.DEVNULL)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            message = f"what runs in {self.path} does not end"
            raise WineError(message) from None

    def start_anew(self) -> None:
        """End everything that runs in the prefix, so that the next program gets a new server.

        A server that has stumbled over one program may do so with all that follow: it starts no debugger, for example.
        """
        with suppress(WineError):
            self.stop()

    def _run(self, *command: str, overrides: str = "mscoree=;mshtml=", seconds: float = 60) -> None:
        process = self._popen(command, overrides, {})
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = -1
        if code:
            message = f"{' '.join(command)} in {self.path}: {code}"
            raise WineError(message)

    def _popen(
        self, command: Sequence[str], overrides: str, more: Mapping[str, str], printed: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        if self.is_wow64:
            hide = f"mount --bind {self._loaders} {LOADERS} && mount --bind {I386_DLLS} {HIDDEN_I386_DLLS}"
            wrapped = ["unshare", "-m", "sh", "-c", f'{hide} && exec {LOADERS}/wine64 "$@"', "wine64", *command]
        else:
            wrapped = ["/usr/bin/wine", *command]
        return subprocess.Popen(
            wrapped,
            env={**self._environment(overrides), **more},
            stdin=subprocess.DEVNULL,
            stdout=printed or subprocess.DEVNULL,
            stderr=printed or subprocess.DEVNULL,
            start_new_session=True,
        )

    def _environment(self, overrides: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
        return {**kept, "WINEPREFIX": str(self.path), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": overrides}

    @property
    def _loaders(self) -> Path:
        return self.path.parent / "loaders-without-32-bit"

    def _copy_loaders(self) -> None:
        self._loaders.mkdir(parents=True, exist_ok=True)
        for name in ("wine64", "wineapploader", "wineserver", "wineserver64"):
            shutil.copy(LOADERS / name, self._loaders / name)


def windows_path(path: Path) -> str:
    """Return the Windows path of a file, given by its path below `drive_c`."""
    return "c:\\" + str(path).replace("/", "\\")


def find_process(program: Path, marker: str, seconds: float = 30) -> int:
    """Return the Linux pid of the Windows process that runs `program`; `marker` is in its environment.

    Wine's start.exe and loader carry the program's name as an argument: the process itself has it first.
    """
    name = str(program).replace("/", "\\").lower()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_process(entry, name, marker):
                return int(entry.name)
        time.sleep(0.05)
    message = f"{name} did not start"
    raise WineError(message)


def _is_process(entry: Path, name: str, marker: str) -> bool:
    try:
        first = (entry / "cmdline").read_bytes().split(b"\0")[0].decode("utf-8", "replace").lower()
        return first.startswith("c:") and name in first and marker.encode() in (entry / "environ").read_bytes()
    except OSError:
        return False


def end_process(pid: int) -> None:
    """Kill a process, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
