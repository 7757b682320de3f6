# SPDX-License-Identifier: Apache-2.0
"""The machine set-up of `make test-live`, with programs of our own in the place of apt-get and dpkg."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live import machine_setup
from tests.support.vol import CHECKOUT

PROGRAM = "program-of-a-package"
LOG = 'echo "${0##*/} $*" >> "$LOG"\n'
INSTALL = f'printf "#!/bin/sh\\n" > "$PROGRAMS/{PROGRAM}"; /bin/chmod +x "$PROGRAMS/{PROGRAM}"\n'
BROKEN = "echo 'E: Unable to correct problems, you have held broken packages.' >&2; exit 100\n"


class Debian:
    """A machine without Wine, whose apt-get does what a shell script says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs, self.log = folder / "bin", folder / "log"
        self.programs.mkdir()
        self.log.touch()
        monkeypatch.setenv("PATH", f"{self.programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("LOG", str(self.log))
        monkeypatch.setenv("PROGRAMS", str(self.programs))
        monkeypatch.setattr(machine_setup.os, "geteuid", lambda: 0)
        monkeypatch.setattr(machine_setup, "PROGRAMS", (PROGRAM,))
        monkeypatch.setattr(machine_setup, "LOADERS", ())
        monkeypatch.setattr(machine_setup, "OS_RELEASE", folder / "os-release")
        (folder / "os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
        self.program("dpkg", "")
        self.program("apt-get", BROKEN)

    def program(self, name: str, does: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{LOG}{does}")
        path.chmod(0o755)

    @property
    def commands(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    return Debian(tmp_path, monkeypatch)


def test_packages_are_installed_from_all_suites(debian, capfd):
    debian.program("apt-get", INSTALL)
    machine_setup.install_packages()
    assert [command.split()[0] for command in debian.commands] == ["dpkg", "apt-get", "apt-get"]
    assert "-t" not in debian.commands[-1].split()
    assert capfd.readouterr().err == ""
    machine_setup.install_packages()
    assert len(debian.commands) == 3


def test_an_index_that_is_out_of_step_is_answered_with_the_releases_own_suite(debian, capfd):
    """The security suite has a new libc for amd64 and still the old one for i386: wine32 has nothing to stand on."""
    debian.program("apt-get", f'case "$*" in *"-t bookworm --allow-downgrades"*) {INSTALL};; *) {BROKEN};; esac\n')
    machine_setup.install_packages()
    assert "-t" not in debian.commands[-2].split()
    assert "-t bookworm --allow-downgrades wine wine64 wine32:i386" in debian.commands[-1]
    said = capfd.readouterr().err
    assert "apt-get update failed in part" in said
    assert "installing those of the suite bookworm instead, with downgrades" in said


@pytest.mark.usefixtures("debian")
def test_without_wine_there_is_one_line_and_no_traceback():
    with pytest.raises(SystemExit) as ended:
        machine_setup.install_packages()
    assert ended.value.code == (
        "Wine and the compilers cannot be installed: apt-get ended with status 100; "
        "SKIP_LIVE=1 make test-live leaves the live tests out"
    )


def test_a_release_without_a_name_is_not_asked_for(debian):
    machine_setup.OS_RELEASE.write_text("ID=other\n")
    with pytest.raises(SystemExit):
        machine_setup.install_packages()
    assert len(debian.commands) == 3


def test_on_another_system_the_needs_are_said_in_one_line(debian, monkeypatch):
    (debian.programs / "dpkg").unlink()
    monkeypatch.setenv("PATH", str(debian.programs))
    with pytest.raises(SystemExit, match=f"^missing: {PROGRAM}, and dpkg, which would install them; SKIP_LIVE=1 "):
        machine_setup.install_packages()


def test_packages_that_lack_their_programs_are_named(debian):
    debian.program("apt-get", "")
    with pytest.raises(SystemExit, match=f"^still missing: {PROGRAM}; SKIP_LIVE=1 "):
        machine_setup.install_packages()


def test_another_user_than_root_is_told_the_commands(debian, monkeypatch):
    monkeypatch.setattr(machine_setup.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="As root: dpkg --add-architecture i386 && apt-get update"):
        machine_setup.install_packages()
    assert debian.commands == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_live_tests_are_skipped_loudly(tmp_path):
    variables = {**os.environ, "SKIP_LIVE": "1", "MAKEFLAGS": ""}
    command = ["make", "-s", "-C", str(CHECKOUT), "--no-print-directory", "test-live", f"LIVE={tmp_path / 'live'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert "LIVE TESTS SKIPPED" in done.stdout
    assert not list(tmp_path.iterdir())
