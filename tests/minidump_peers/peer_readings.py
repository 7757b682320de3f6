# SPDX-License-Identifier: Apache-2.0
"""What each reader says of a minidump: the exception, its thread, registers there, modules, and the frames it walks."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.minidump_peers.peer_symbols import WalkerFiles
from tests.minidump_peers.peer_tools import PeerTools

_CHILD = Path(__file__).with_name("package_child.py")
_TIMEOUT = 120
_NUMBER = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True)
class PeerReading:
    """A reader's answer; what it does not say is None or empty. `frames` are instruction pointers, innermost first.

    `are_calls` says that the frames further out have the address of the call and not the one that it returns to.
    """

    reader: str
    problem: str = ""
    tid: int | None = None
    code: int | None = None
    address: int | None = None
    registers: dict[str, int] = field(default_factory=dict)
    modules: frozenset[int] = frozenset()
    frames: tuple[int, ...] = ()
    are_calls: bool = False
    seconds: float = 0.0


def readings(tools: PeerTools, path: Path, files: WalkerFiles) -> list[PeerReading]:
    """Return what all readers say; the walkers among them have `files`."""
    readers: list[tuple[str, Callable[[], PeerReading]]] = [
        ("lldb", lambda: _lldb(tools, path, files.images)),
        ("breakpad", lambda: _breakpad(tools, path, files.symbols)),
        ("rust-minidump", lambda: _rust(tools, path, files.symbols)),
        ("minidump", lambda: _package(tools.python, "minidump", path)),
        ("udmp-parser", lambda: _package(tools.python, "udmp", path)),
        ("symbolic", lambda: _package(tools.symbolic, "symbolic", path, files.symbols)),
    ]
    found = []
    for name, read in readers:
        began = time.monotonic()
        try:
            reading = read()
        except (subprocess.SubprocessError, ValueError, LookupError) as error:
            reading = PeerReading(name, f"{type(error).__name__}: {error}"[:300])
        given = {**vars(reading), "reader": name, "seconds": time.monotonic() - began}
        found.append(PeerReading(**given))
    return found


def _run(command: list[object]) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode < 0:
        message = f"{command[0]} ended by signal {-done.returncode}"
        raise ValueError(message)
    return done.stdout


def _package(python: Path, kind: str, path: Path, *symbols: Path) -> PeerReading:
    answer = json.loads(_run([python, _CHILD, kind, path, *symbols]))
    answer["modules"] = frozenset(answer.get("modules", ()))
    answer["frames"] = tuple(answer.get("frames", ()))
    return PeerReading(kind, **answer)


def _lldb(tools: PeerTools, path: Path, images: Sequence[Path]) -> PeerReading:
    commands = [
        f"settings set target.exec-search-paths {' '.join(map(str, images)) or '/nowhere'}",
        "settings set symbols.enable-external-lookup false",
        f'target create --core "{path}"',
        "thread list",
        "register read",
        "image list --header",
        "bt",
    ]
    text = _run([tools.lldb, "-b", *(part for command in commands for part in ("-o", command))])
    if "was loaded" not in text:
        return PeerReading("lldb", text[-300:])
    thread = re.search(r"^\* thread #\d+: tid = (0x[0-9a-f]+), (.*)$", text, re.MULTILINE)
    stopped = re.search(r"Exception (0x[0-9a-f]+) encountered at address (0x[0-9a-f]+)", thread[2] if thread else "")
    registers = {name: int(value, 16) for name, value in re.findall(r"^ *(\w+) = (0x[0-9a-f]+)", text, re.MULTILINE)}
    frames = re.findall(r"^ +(?:\* )?frame #\d+: (0x[0-9a-f]+)", text.partition("(lldb) bt")[2], re.MULTILINE)
    listed = text.partition("image list --header")[2].partition("(lldb) bt")[0]
    modules = re.findall(r"^\[ *\d+\] +(?:[0-9A-F-]+ +)?(0x[0-9a-f]+)", listed, re.MULTILINE)
    return PeerReading(
        "lldb",
        tid=int(thread[1], 16) if thread else None,
        code=int(stopped[1], 16) if stopped else None,
        address=int(stopped[2], 16) if stopped else None,
        registers=registers,
        modules=frozenset(int(base, 16) for base in modules),
        frames=tuple(int(ip, 16) for ip in frames),
    )


def _breakpad(tools: PeerTools, path: Path, symbols: Path) -> PeerReading:
    text = _run([tools.dump, path])
    walked = _run([tools.stackwalk, path, symbols])
    exception = text.partition("MDException\n")[2].partition("MDRawMiscInfo")[0]
    values = dict(re.findall(r"^ *(?:exception_record\.)?(\w+) += (0x[0-9a-f]+)", exception, re.MULTILINE))
    crashed = walked.partition("(crashed)")[2].partition("\nThread ")[0]
    frames = re.findall(r"\b[er]ip = (0x[0-9a-f]+)", crashed)
    modules = re.findall(r"^ +base_of_image += (0x[0-9a-f]+)", text, re.MULTILINE)
    inner = crashed.partition("\n 1 ")[0]
    return PeerReading(
        "breakpad",
        "" if walked else "no stack",
        _hexadecimal(values.get("thread_id")),
        _hexadecimal(values.get("exception_code")),
        _hexadecimal(values.get("exception_address")),
        {name: int(value, 16) for name, value in re.findall(r"\b(\w+) = (0x[0-9a-f]+)", inner)},
        frozenset(int(base, 16) for base in modules),
        tuple(int(ip, 16) for ip in frames),
    )


def _rust(tools: PeerTools, path: Path, symbols: Path) -> PeerReading:
    answer = json.loads(_run([tools.rust_stackwalk, "--json", "--symbols-path", symbols, path]))
    thread = answer.get("crashing_thread") or {}
    frames = thread.get("frames", [])
    registers = frames[0].get("registers", {}) if frames else {}
    modules = answer.get("modules") or []
    return PeerReading(
        "rust-minidump",
        tid=thread.get("thread_id"),
        registers={name: int(value, 16) for name, value in registers.items()},
        modules=frozenset(int(module["base_addr"], 16) for module in modules),
        frames=tuple(int(frame["offset"], 16) for frame in frames),
        are_calls=True,
    )


def _hexadecimal(text: str | None) -> int | None:
    return None if text is None else int(text, 16)
