# SPDX-License-Identifier: Apache-2.0
"""Builds the managed programs for each runtime: C# by Mono's compiler, and what is native beside them by mingw.

Mono's compiler takes a runtime's CoreLib as its only library. It knows that of 3.1, and what it compiles against that
runs on .NET 8 and 10 too; their own CoreLibs are newer than it. In 2.1 Thread is in a library of its own, and so the
libraries that the programs use are named.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.live.wine import windows_path
from tests.managed_live.runtimes import RUNTIMES, Runtime, cache
from tests.managed_live.single_file import ASSEMBLY, Bundled, bundled_files, single_file

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM = "Crashes"
HELP = "wine_help.dll"
COMMITTED = "committed.exe"
LIBRARIES_2_1 = (
    *("System.Runtime", "System.Runtime.Extensions", "System.Runtime.InteropServices"),
    *("System.Threading", "System.Threading.Thread", "System.Threading.ThreadPool", "System.Threading.Tasks"),
    *("System.Collections", "System.Reflection", "System.Reflection.Primitives"),
    *("System.Reflection.Emit.Lightweight", "System.Reflection.Emit.ILGeneration", "System.Private.CoreLib"),
)
LIBRARIES = {"2.1": LIBRARIES_2_1, "3.1": ("System.Private.CoreLib",)}
COMPILED_WITH = {"2.1": "2.1-x64", "3.1": "3.1-x64"}
APPS, RUNTIMES_LINK = "managed", "dotnet"
"""The directories below `drive_c` that are the apps' and the runtimes'."""


@dataclass(frozen=True)
class App:
    """How a runtime's program is started. `image` and `help` are paths below `drive_c`; `arguments` come first."""

    runtime: Runtime
    image: Path
    arguments: tuple[str, ...]
    help: Path


def build_apps(out: Path, folders: Mapping[str, Path]) -> tuple[list[App], list[str]]:
    """Build the programs of the runtimes in `folders` into `out`; return them, and why others could not be built."""
    apps, failures = [], []
    compiled: dict[str, Path] = {}
    for runtime in RUNTIMES:
        if runtime.label not in folders:
            continue
        try:
            if runtime.core_library not in compiled:
                compiled[runtime.core_library] = _compiled(runtime.core_library, out / "il", folders)
            apps.append(_app(runtime, folders[runtime.label], compiled[runtime.core_library], out / runtime.label))
        except (BuildError, OSError, ValueError) as error:
            failures.append(f"no program for .NET {runtime.version} ({runtime.label}): {error}")
    _native(True, COMMITTED, out)
    return apps, failures


class BuildError(Exception):
    """A program cannot be built; the message says why."""


def _compiled(core_library: str, out: Path, folders: Mapping[str, Path]) -> Path:
    label = COMPILED_WITH[core_library]
    if label not in folders:
        message = f"the library to compile against is that of {label}, which is not here"
        raise BuildError(message)
    runtime = next(r for r in RUNTIMES if r.label == label)
    framework = folders[label] / runtime.framework
    target = out / core_library / f"{PROGRAM}.dll"
    target.parent.mkdir(parents=True, exist_ok=True)
    references = [f"-r:{framework / name}.dll" for name in LIBRARIES[core_library]]
    sources = [str(path) for path in sorted(PROGRAMS.glob("*.cs"))]
    _run("mcs", "-noconfig", "-nostdlib", "-unsafe", "-optimize+", "-nologo", *references, f"-out:{target}", *sources)
    return target


def _app(runtime: Runtime, folder: Path, compiled: Path, out: Path) -> App:
    out.mkdir(parents=True, exist_ok=True)
    _native(runtime.is_64bit, HELP, out)
    place = Path(APPS) / runtime.label
    if runtime.host:
        host, files = bundled_files((folder / runtime.host).read_bytes())
        libraries = [file for file in files if file.kind == ASSEMBLY and file.path.startswith("System.")]
        assemblies = [Bundled(compiled.name, compiled.read_bytes(), ASSEMBLY), *libraries]
        program = single_file(host, Path(runtime.host).stem, PROGRAM, assemblies, runtime.version)
        (out / f"{PROGRAM}.exe").write_bytes(program)
        return App(runtime, place / f"{PROGRAM}.exe", (), place / HELP)
    shutil.copy(compiled, out)
    framework = {"name": "Microsoft.NETCore.App", "version": runtime.version}
    options = {"framework": framework, "configProperties": {"System.Globalization.Invariant": True}}
    (out / f"{PROGRAM}.runtimeconfig.json").write_text(json.dumps({"runtimeOptions": options}))
    dotnet = Path(RUNTIMES_LINK) / folder.relative_to(cache()) / runtime.home / "dotnet.exe"
    return App(runtime, dotnet, (windows_path(place / f"{PROGRAM}.dll"),), place / HELP)


def _native(is_64bit: bool, product: str, out: Path) -> None:
    """Build a native program or DLL from the source of its name."""
    prefix = "x86_64" if is_64bit else "i686"
    options = ["-shared"] if product.endswith(".dll") else []
    source = PROGRAMS / Path(product).with_suffix(".c")
    _run(f"{prefix}-w64-mingw32-gcc-posix", "-O2", "-s", "-static", *options, "-o", str(out / product), str(source))


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        said = [line for line in f"{result.stdout}{result.stderr}".splitlines() if "error" in line]
        message = f"{command[0]}, exit code {result.returncode}: {said[0] if said else 'it says nothing'}"
        raise BuildError(message)
