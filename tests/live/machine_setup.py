# SPDX-License-Identifier: Apache-2.0
"""What the live fixtures need of the machine: Debian packages, and Microsoft's C++ runtime from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = (
    *("wine", "wine64", "wine32:i386", "libwine"),
    *("gcc-mingw-w64-i686-posix", "gcc-mingw-w64-x86-64-posix"),
    *("g++-mingw-w64-i686-posix", "g++-mingw-w64-x86-64-posix"),
    *("clang-19", "lld-19", "llvm-19"),
)
PROGRAMS = (
    *("wine", "wineserver", "unshare"),
    *("x86_64-w64-mingw32-gcc-posix", "i686-w64-mingw32-gcc-posix"),
    *("x86_64-w64-mingw32-g++-posix", "i686-w64-mingw32-g++-posix"),
    *("clang-19", "lld-link-19", "llvm-dlltool-19"),
)
LOADERS = (Path("/usr/lib/wine/wine"), Path("/usr/lib/wine/wine64"))
RUNTIME = "vcruntime140.dll"


def install_packages() -> None:
    """Install the Debian packages that are missing. Raises SystemExit when that is not possible here."""
    if not _missing():
        return
    if os.geteuid() != 0:
        names = " ".join(PACKAGES)
        message = (
            f"missing: {', '.join(_missing())}. As root: dpkg --add-architecture i386 && apt-get update && "
            f"apt-get install --no-install-recommends {names}"
        )
        raise SystemExit(message)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _apt("dpkg", "--add-architecture", "i386", environment=environment)
    # An index that is being replaced on the mirror fails the update; what it has already got mostly suffices.
    _apt("apt-get", "update", environment=environment, may_fail=True)
    # A fresh machine may be updating itself: wait for its lock.
    _apt(
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=300",
        "install",
        "-y",
        "--no-install-recommends",
        *PACKAGES,
        environment=environment,
    )
    if _missing():
        message = f"still missing: {', '.join(_missing())}"
        raise SystemExit(message)


def fetch_runtime(folder: Path) -> Path:
    """Return Microsoft's x64 vcruntime140.dll out of PyPI's `msvc-runtime`, downloaded once into `folder`."""
    target = folder / RUNTIME
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run(
        [*pip, "--platform", "win_amd64", "--only-binary=:all:", "--dest", str(folder), "msvc-runtime"], check=True
    )
    wheel = next(folder.glob("msvc_runtime-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(f"/{RUNTIME}"))
        target.write_bytes(archive.read(member))
    return target


def _missing() -> list[str]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return missing + [str(loader) for loader in LOADERS if not loader.exists()]


def _apt(*command: str, environment: dict[str, str], may_fail: bool = False) -> None:
    subprocess.run(command, env=environment, check=not may_fail, stdout=subprocess.DEVNULL)
