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
    *("clang-19", "lld-19", "llvm-19", "mono-mcs"),
)
PROGRAMS = (
    *("wine", "wineserver", "unshare"),
    *("x86_64-w64-mingw32-gcc-posix", "i686-w64-mingw32-gcc-posix"),
    *("x86_64-w64-mingw32-g++-posix", "i686-w64-mingw32-g++-posix"),
    *("clang-19", "lld-link-19", "llvm-dlltool-19", "mcs"),
)
LOADERS = (Path("/usr/lib/wine/wine"), Path("/usr/lib/wine/wine64"))
RUNTIME = "vcruntime140.dll"


OS_RELEASE = Path("/etc/os-release")
INSTEAD = "SKIP_LIVE=1 make test-live leaves the live tests out"


def install_packages() -> None:
    """Install the Debian packages that are missing. Raises SystemExit, with one line, when that is not possible here.

    Debian's index of i386 packages is out of step with that of amd64 at times, for days in the security suite: then no
    version of wine32 fits. The release's own suite is always of one piece, so it is tried next.
    """
    if not _missing():
        return
    if os.geteuid() != 0:
        names = " ".join(PACKAGES)
        message = (
            f"missing: {', '.join(_missing())}. As root: dpkg --add-architecture i386 && apt-get update && "
            f"apt-get install --no-install-recommends {names}; or {INSTEAD}"
        )
        raise SystemExit(message)
    _apt("dpkg", "--add-architecture", "i386")
    # An index that is being replaced on the mirror fails the update; what it has already got mostly suffices.
    if _apt("apt-get", "update"):
        _say("apt-get update failed in part; installing from the indexes that are there")
    # A fresh machine may be updating itself: wait for its lock.
    install = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends")
    status, suite = _apt(*install, *PACKAGES), _release_suite()
    if status and suite:
        _say(f"the packages do not fit together; installing those of the suite {suite} instead, with downgrades")
        status = _apt(*install, "-t", suite, "--allow-downgrades", *PACKAGES)
    if status:
        message = f"Wine and the compilers cannot be installed: apt-get ended with status {status}; {INSTEAD}"
        raise SystemExit(message)
    if _missing():
        message = f"still missing: {', '.join(_missing())}; {INSTEAD}"
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


def _apt(*command: str) -> int:
    """Run a command of Debian's; return its exit status. It says itself, on stderr, what went wrong."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode
    except FileNotFoundError:
        message = f"missing: {', '.join(_missing())}, and {command[0]}, which would install them; {INSTEAD}"
        raise SystemExit(message) from None


def _release_suite() -> str | None:
    """Return the name of this machine's release, as apt knows it (`bookworm`), or None."""
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition("=")[2].strip("\"'") for line in lines if line.startswith("VERSION_CODENAME=")), None)


def _say(message: str) -> None:
    print(f"machine set-up: {message}", file=sys.stderr, flush=True)  # noqa: T201 - make shows it among apt's messages
