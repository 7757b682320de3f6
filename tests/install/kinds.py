# SPDX-License-Identifier: Apache-2.0
"""The kinds of installation: how each gets volatility3, how throwstack is added to it and taken away again.

All that they write is below the directory they are given; no index is asked, and the machine's own Python is only read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BIN = "Scripts" if os.name == "nt" else "bin"
PYTHON = Path(sys.executable)

Command = list[str]


def clean_environment(root: Path, wheels: Path) -> dict[str, str]:
    """Return variables for commands that find packages in `wheels` alone and have a home of their own."""
    ours = ("PIP", "PYTHON", "UV", "VIRTUAL", "XDG", "_NT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    home = root / "home"
    home.mkdir(exist_ok=True)
    return {
        **kept,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "APPDATA": str(home),
        "COLUMNS": "200",
        "PYTHONUSERBASE": str(root / "user"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CACHE_DIR": str(root / "pip-cache"),
        "UV_NO_CONFIG": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(wheels),
        "UV_CACHE_DIR": str(root / "uv"),
        "UV_PYTHON": str(PYTHON),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_TOOL_DIR": str(root / "tools"),
        "UV_TOOL_BIN_DIR": str(root / "bin"),
        "PIPX_HOME": str(root / "pipx"),
        "PIPX_BIN_DIR": str(root / "bin"),
        "PIPX_MAN_DIR": str(root / "man"),
        "PIPX_DEFAULT_PYTHON": str(PYTHON),
    }


class Kind:
    """An ordinary virtual environment; other kinds say what is different."""

    volatility: Sequence[str] = ("volatility3",)
    """What pip installs before us."""

    def __init__(self, root: Path, parts: Path, *, ours: Path) -> None:
        """Live below `root`, out of the `parts` that tests/install/__main__.py prepared; `ours` is wheel or sdist."""
        self.root, self.parts, self.ours = root, parts, ours
        self.environment = clean_environment(root, parts / "wheels")
        self.home = root / "environment"

    def run(self, *command: str | Path) -> str:
        """Run a command that has to succeed; return what it prints."""
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            encoding="utf-8",
            check=False,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )
        line = " ".join(map(str, command))
        assert done.returncode == 0, f"{line}\nexit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def pip(self, *arguments: str | Path) -> None:
        """Run the environment's pip."""
        self.run(self.home / BIN / "python", "-m", "pip", *arguments)

    def prepare(self) -> None:
        """Make the environment with volatility3 in it."""
        self.run(PYTHON, "-m", "venv", self.home)
        self.pip("install", *self.volatility)

    def add(self) -> None:
        """Install throwstack."""
        self.pip("install", self.ours)

    def remove(self) -> None:
        """Uninstall throwstack."""
        self.pip("uninstall", "--yes", "throwstack")

    @property
    def vol(self) -> Command:
        """Plain `vol`."""
        return [str(self.home / BIN / "vol")]

    @property
    def vol_with_plugins(self) -> Command:
        """The command that has our plugins."""
        return self.vol

    @property
    def throwstack(self) -> Path:
        """The command `throwstack`."""
        return self.home / BIN / "throwstack"


class EditableVolatility(Kind):
    """volatility3 from its source tree, as its own README recommends; `mode` is setuptools's `editable_mode`."""

    mode = ""

    def prepare(self) -> None:
        """Install a copy of the source."""
        (source,) = (self.parts / "volatility3").glob("volatility3-*/")
        shutil.copytree(source, self.root / "volatility3")
        settings = ("--config-settings", f"editable_mode={self.mode}") if self.mode else ()
        self.run(PYTHON, "-m", "venv", self.home)
        self.pip("install", *settings, "--editable", self.root / "volatility3")


class EditableVolatilityCompat(EditableVolatility):
    """By a path in a .pth file."""

    mode = "compat"


class EditableVolatilityStrict(EditableVolatility):
    """By a tree of links."""

    mode = "strict"


class EditableThrowstack(Kind):
    """throwstack from its source tree, as its developers may have it."""

    def add(self) -> None:
        """Install the unpacked sdist."""
        shutil.unpack_archive(next((self.parts / "dist").glob("*.tar.gz")), self.root)
        (source,) = self.root.glob("throwstack-*/")
        self.pip("install", "--editable", source)


class System(Kind):
    """A Python that is no virtual environment, with volatility3 in its own site-packages.

    It is made of the machine's: its executable copied, its library linked, but for what is installed in it.
    """

    def __init__(self, root: Path, parts: Path, *, ours: Path) -> None:
        super().__init__(root, parts, ours=ours)
        self.home = root / "system"

    def prepare(self) -> None:
        """Make the system with pip and volatility3."""
        real, library = Path(sys.base_prefix), Path(os.__file__).parent
        copied = self.home / library.relative_to(real)
        copied.mkdir(parents=True)
        for entry in library.iterdir():
            if entry.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED", "__pycache__"):
                (copied / entry.name).symlink_to(entry)
        (copied / "site-packages").mkdir()
        (self.home / BIN).mkdir()
        shutil.copy2(Path(getattr(sys, "_base_executable", sys.executable)).resolve(), self.home / BIN / "python")
        wheel = next((self.parts / "wheels").glob("pip-*.whl"))
        self.run(self.home / BIN / "python", wheel / "pip", "install", "pip")
        assert Path(self.run(self.home / BIN / "python", "-c", "import pip; print(pip.__file__)")).is_relative_to(
            copied
        )
        self.pip("install", *self.volatility)


class User(System):
    """throwstack by `pip install --user`, volatility3 in the system."""

    def add(self) -> None:
        """Install into the user's site directory."""
        self.pip("install", "--user", self.ours)

    @property
    def throwstack(self) -> Path:
        """The command, in the user's directory."""
        return self.root / "user" / BIN / "throwstack"


class UserBoth(User):
    """Both by `pip install --user`."""

    volatility = ("--user", "volatility3")

    @property
    def vol(self) -> Command:
        """The user's `vol`."""
        return [str(self.root / "user" / BIN / "vol")]


class SystemSitePackages(System):
    """throwstack in a virtual environment that sees the system's volatility3, whose `vol` does not see throwstack."""

    def add(self) -> None:
        """Install into the virtual environment."""
        self.run(self.home / BIN / "python", "-m", "venv", "--system-site-packages", self.root / "environment")
        self.run(self.root / "environment" / BIN / "python", "-m", "pip", "install", self.ours)

    def remove(self) -> None:
        """Uninstall from there."""
        self.run(self.root / "environment" / BIN / "python", "-m", "pip", "uninstall", "--yes", "throwstack")

    @property
    def vol_with_plugins(self) -> Command:
        """`throwstack vol`."""
        return [str(self.throwstack), "vol"]

    @property
    def throwstack(self) -> Path:
        """The command, in the virtual environment."""
        return self.root / "environment" / BIN / "throwstack"


class Pipx(Kind):
    """volatility3 by pipx, throwstack injected."""

    def __init__(self, root: Path, parts: Path, *, ours: Path) -> None:
        super().__init__(root, parts, ours=ours)
        self.home = root

    def _pipx(self, *arguments: str | Path) -> None:
        self.run(self.root / "pipx-itself" / BIN / "pipx", *arguments)

    def prepare(self) -> None:
        """Install pipx, and volatility3 by it."""
        self.run(PYTHON, "-m", "venv", self.root / "pipx-itself")
        self.run(self.root / "pipx-itself" / BIN / "python", "-m", "pip", "install", "pipx")
        self._pipx("install", "volatility3")

    def add(self) -> None:
        """Inject throwstack."""
        self._pipx("inject", "--include-apps", "volatility3", self.ours)

    def remove(self) -> None:
        """Take it out."""
        self._pipx("uninject", "volatility3", "throwstack")

    @property
    def vol(self) -> Command:
        """What pipx put on the path."""
        return [str(self.root / "bin" / "vol")]

    @property
    def throwstack(self) -> Path:
        """What pipx put on the path."""
        return self.root / "bin" / "throwstack"


class UvTool(Pipx):
    """volatility3 as a tool of uv, throwstack with it."""

    def _uv(self, *arguments: str | Path) -> None:
        self.run(self.root / "uv-itself" / BIN / "uv", "tool", "install", *arguments)

    def prepare(self) -> None:
        """Install uv, and volatility3 by it."""
        self.run(PYTHON, "-m", "venv", self.root / "uv-itself")
        self.run(self.root / "uv-itself" / BIN / "python", "-m", "pip", "install", "uv")
        self._uv("volatility3")

    def add(self) -> None:
        """Install the tool anew, with throwstack."""
        self._uv("volatility3", "--with-executables-from", f"throwstack @ {self.ours.as_uri()}")

    def remove(self) -> None:
        """Install the tool anew, without."""
        self._uv("volatility3")
