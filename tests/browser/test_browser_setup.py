# SPDX-License-Identifier: Apache-2.0
"""The set-up of `make test-browser`, with programs of our own in the place of apt-get and chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser import browser_setup
from tests.support.vol import CHECKOUT

INSTALLS = """
for name in chromium chromedriver; do
  printf "#!/bin/sh\\n" > "$PROGRAMS/$name"; /bin/chmod +x "$PROGRAMS/$name"
done"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only directory with programs, of a machine without a browser, whose user is root."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PROGRAMS", str(tmp_path))
    monkeypatch.setattr(browser_setup.os, "geteuid", lambda: 0)
    return tmp_path


def apt_get(programs: Path, does: str) -> None:
    path = programs / "apt-get"
    path.write_text(f'#!/bin/sh\necho "$*" >> "$PROGRAMS/log"\n{does}\n')
    path.chmod(0o755)


def test_what_is_missing_is_installed_once(programs):
    apt_get(programs, f'case "$*" in *install*) {INSTALLS};; *) exit 100;; esac')
    browser_setup.install_packages()
    browser_setup.install_packages()
    asked = (programs / "log").read_text().splitlines()
    assert asked[0] == "update"
    assert asked[1].endswith("--no-install-recommends chromium chromium-driver fonts-dejavu-core")
    assert len(asked) == 2


def test_packages_that_cannot_be_had_are_one_line(programs):
    apt_get(programs, "exit 100")
    with pytest.raises(SystemExit, match="ended with status 100; SKIP_BROWSER=1 make test-browser leaves"):
        browser_setup.install_packages()


@pytest.mark.usefixtures("programs")
def test_on_another_system_the_needs_are_said_in_one_line():
    with pytest.raises(SystemExit, match=r"^missing: chromium, chromedriver, and apt-get, which would install them; "):
        browser_setup.install_packages()


@pytest.mark.usefixtures("programs")
def test_another_user_than_root_is_told_the_commands(monkeypatch):
    monkeypatch.setattr(browser_setup.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="As root: apt-get update && apt-get install --no-install-recommends chromium"):
        browser_setup.install_packages()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_browser_tests_are_skipped_loudly():
    variables = {**os.environ, "SKIP_BROWSER": "1", "MAKEFLAGS": ""}
    command = ["make", "-s", "-C", str(CHECKOUT), "--no-print-directory", "test-browser"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert "BROWSER TESTS SKIPPED" in done.stdout
