# SPDX-License-Identifier: Apache-2.0
"""What the tests of pages need of the machine: the Debian packages chromium and chromium-driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = ("chromium", "chromium-driver", "fonts-dejavu-core")
PROGRAMS = ("chromium", "chromedriver")
INSTEAD = "SKIP_BROWSER=1 make test-browser leaves these tests out"


def missing() -> list[str]:
    """Return the names of the programs that are not there."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def install_packages() -> None:
    """Install the Debian packages if a program is missing. Raises SystemExit, with one line, if it cannot be."""
    if not missing():
        return
    needs = f"missing: {', '.join(missing())}"
    names = " ".join(PACKAGES)
    if os.geteuid() != 0:
        message = f"{needs}. As root: apt-get update && apt-get install --no-install-recommends {names}; or {INSTEAD}"
        raise SystemExit(message)
    # An index that is being replaced on the mirror fails the update; what it has already got mostly suffices.
    _apt("update")
    # A fresh machine may be updating itself: wait for its lock.
    status = _apt("-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *PACKAGES)
    if status or missing():
        message = f"{needs}, and apt-get install {names} ended with status {status}; {INSTEAD}"
        raise SystemExit(message)


def _apt(*arguments: str) -> int:
    """Run apt-get; return its exit status. It says itself, on stderr, what went wrong."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(("apt-get", *arguments), env=environment, check=False, stdout=sys.stderr).returncode
    except FileNotFoundError:
        message = f"missing: {', '.join(missing())}, and apt-get, which would install them; {INSTEAD}"
        raise SystemExit(message) from None
