# SPDX-License-Identifier: Apache-2.0
"""Prepares what the environments are made of: `python -m tests.install DIR [--all]`.

DIR gets `dist/` (our wheel and sdist, as built), `wheels/` (all that is installed beside them, from the package index;
the environments then ask no index), `volatility3/` (its source) and `dump/` (a forged dump). With `--all` also the
releases of volatility3 between the oldest that is promised and the newest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tests.install.versions import BETWEEN, newest, oldest
from tests.support.vol import CHECKOUT

TRIES = 3
TOOLS = ("editables", "hatchling", "pip", "pipx", "setuptools", "uv", "wheel")


def main() -> int:
    """Prepare the directory that is named on the command line; return the exit status."""
    root = Path(sys.argv[1])
    shutil.rmtree(root / "dist", ignore_errors=True)
    shutil.rmtree(root / "volatility3", ignore_errors=True)
    for name in ("dist", "wheels", "volatility3"):
        (root / name).mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(root / "dist")], check=True, cwd=CHECKOUT)
    wheels = ("--dest", str(root / "wheels"), "--only-binary", ":all:")
    (ours,) = (root / "dist").glob("*.whl")
    for earlier in (root / "wheels").glob("volatility3-*.whl"):
        earlier.unlink()
    older = (oldest(), *(BETWEEN if "--all" in sys.argv else ()))
    for requirements in (
        (str(ours), f"volatility3=={newest()}", *TOOLS),
        *(("--no-deps", f"volatility3=={version}") for version in older),
    ):
        if not download(*wheels, *requirements):
            return 1
    (root / "wheels" / ours.name).unlink(missing_ok=True)  # it is installed from dist/
    source = ("--no-deps", "--no-binary", "volatility3", f"volatility3=={newest()}")
    if not download("--dest", str(root / "volatility3"), *source):
        return 1
    with tarfile.open(next((root / "volatility3").glob("*.tar.gz"))) as archive:
        archive.extractall(root / "volatility3", filter="data")
    subprocess.run([sys.executable, "-m", "tests.forge", "ftp-2003", str(root / "dump")], check=True, cwd=CHECKOUT)
    return 0


def download(*arguments: str) -> bool:
    """Let pip fetch; say so and return False where it cannot, after some tries."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *arguments]
    for attempt in range(TRIES):
        time.sleep(5 * attempt)
        if subprocess.run(command, check=False).returncode == 0:
            return True
    sys.stderr.write(f"tests.install: pip could not download, {TRIES} times: {' '.join(arguments)}\n")
    return False


if __name__ == "__main__":
    sys.exit(main())
