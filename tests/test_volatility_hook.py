# SPDX-License-Identifier: Apache-2.0
"""The start-up hook adds our plugins to `volatility3.plugins`, does nothing to other programs, and fails harmlessly.

Each test runs a program in a Python of its own, without site-packages' .pth files (`-S`), and installs the hook as
Python does: by a directory with `throwstack.pth` in it. `packages` is what is importable, in that order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.vol import CHECKOUT

PTH = CHECKOUT / "distribution" / "throwstack.pth"
INSTALL = "import site, sys; sys.path[:0] = {packages!r}; site.addsitedir({site!r})\n"
PLUGINS = "from volatility3 import plugins\n"


@pytest.fixture
def volatility(tmp_path: Path) -> Path:
    """Return a directory with a package like Volatility, as far as the hook uses it."""
    root = tmp_path / "volatility"
    for name, text in {
        "volatility3/__init__.py": "",
        "volatility3/framework/__init__.py": "",
        "volatility3/framework/constants.py": "PLUGINS_PATH = ['theirs']",
        "volatility3/plugins/__init__.py": "from volatility3.framework import constants\n"
        "__path__ = constants.PLUGINS_PATH",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a directory that holds the .pth file and nothing else, as site-packages does."""
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "throwstack.pth").write_bytes(PTH.read_bytes())
    return directory


def run(site: Path, packages: list[Path], program: str, *options: str) -> str:
    """Return what `program` prints after the hook was installed; nothing may come on stderr."""
    text = INSTALL.format(packages=[str(path) for path in packages], site=str(site)) + program
    command = [sys.executable, "-S", *options, "-c", text]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=site, env=variables)
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_file_is_one_line_and_names_no_module_but_sys_and_ours():
    text = PTH.read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert text.startswith("import sys; ")
    assert text.count("import ") == 2  # sys; and, inside the function, find_spec of ours


@pytest.mark.parametrize("options", [(), ("-I",), ("-E",)])
def test_a_program_without_volatility_has_no_module_more_than_it_would_have(site: Path, options: tuple[str, ...]):
    import_another = "before = set(sys.modules); import colorsys; print(sorted(set(sys.modules) - before))"
    assert run(site, [CHECKOUT], import_another, *options) == "['colorsys']"
    loaded = "print([name for name in sys.modules if 'throwstack' in name], sys.meta_path[0].__name__)"
    assert run(site, [CHECKOUT], loaded, *options) == "[] ThrowstackPlugins"


def test_the_plugins_are_on_the_path_after_volatilitys_own_also_when_p_makes_it_anew(site: Path, volatility: Path):
    program = PLUGINS + (
        "from volatility3.framework import constants\n"
        "print(plugins.__path__, constants.PLUGINS_PATH is plugins.__path__)"
    )
    ours = str(CHECKOUT / "plugins")
    assert run(site, [CHECKOUT, volatility], program) == f"{['theirs', ours]} True"


def test_the_package_keeps_its_own_loader(site: Path, volatility: Path):
    program = PLUGINS + "print(type(plugins.__loader__).__name__, plugins.__spec__.loader is plugins.__loader__)"
    assert run(site, [CHECKOUT, volatility], program) == "SourceFileLoader True"


def test_looking_for_the_package_does_not_import_it_and_what_is_found_can_be_copied_and_asked(
    site: Path, volatility: Path
):
    program = (
        "import copy, importlib.util, pickle\n"
        "spec = importlib.util.find_spec('volatility3.plugins')\n"
        "print('volatility3.plugins' in sys.modules, spec.loader.is_package(spec.name))\n"
        "again = pickle.loads(pickle.dumps(copy.copy(spec.loader)))\n"
        "print(again.get_source(spec.name).startswith('from volatility3'))\n"
        "from volatility3 import plugins\n"
        "import importlib; importlib.reload(plugins)\n"
        "print(len(plugins.__path__))"
    )
    assert run(site, [CHECKOUT, volatility], program).split("\n") == ["False True", "True", "2"]


def test_two_installations_on_one_path_add_one_directory(site: Path, volatility: Path, tmp_path: Path):
    second = tmp_path / "system"
    second.mkdir()
    (second / "throwstack.pth").write_bytes(PTH.read_bytes())
    program = f"site.addsitedir({str(second)!r})\n{PLUGINS}"
    program += "print(len(plugins.__path__), type(plugins.__loader__).__name__)"
    assert run(site, [CHECKOUT, volatility], program) == "2 SourceFileLoader"


def test_another_finder_that_has_the_package_is_asked_as_an_editable_installation_has_one(
    site: Path, volatility: Path, tmp_path: Path
):
    empty = tmp_path / "empty"
    empty.mkdir()
    program = (
        "from importlib.machinery import PathFinder\n"
        "class Editable:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(volatility)!r}]) if name == 'volatility3' else None\n"
        "sys.meta_path.append(Editable)\n" + PLUGINS + "print(len(plugins.__path__))"
    )
    assert run(site, [CHECKOUT, empty], program) == "2"


def test_without_throwstack_volatility_is_what_it_was(site: Path, volatility: Path):
    assert run(site, [volatility], PLUGINS + "print(plugins.__path__)") == "['theirs']"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("raise RuntimeError('broken')", id="hook module raises"),
        pytest.param("def find_spec(*_): raise OSError('broken')", id="finder raises"),
        pytest.param("syntax error", id="hook module is no Python"),
    ],
)
def test_a_broken_throwstack_leaves_volatility_what_it_was(site: Path, volatility: Path, tmp_path: Path, damage: str):
    broken = tmp_path / "broken" / "throwstack"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("", encoding="utf-8")
    (broken / "volatility_hook.py").write_text(damage, encoding="utf-8")
    assert run(site, [broken.parent, volatility], PLUGINS + "print(plugins.__path__)") == "['theirs']"


def test_an_installation_that_has_lost_its_plugins_leaves_volatility_what_it_was(
    site: Path, volatility: Path, tmp_path: Path
):
    half = tmp_path / "half" / "throwstack"
    half.mkdir(parents=True)
    for name in ("__init__.py", "volatility_hook.py", "locations.py"):
        (half / name).write_bytes((CHECKOUT / "throwstack" / name).read_bytes())
    assert run(site, [half.parent, volatility], PLUGINS + "print(plugins.__path__)") == "['theirs']"


def test_an_error_of_volatilitys_own_is_seen_as_ever(site: Path, volatility: Path):
    (volatility / "volatility3" / "plugins" / "__init__.py").write_text("raise OSError('theirs')", encoding="utf-8")
    program = "try:\n    from volatility3 import plugins\nexcept OSError as error:\n    print(error)"
    assert run(site, [CHECKOUT, volatility], program) == "theirs"


def test_directories_without_the_package_are_left_alone(site: Path, tmp_path: Path):
    """Python makes a namespace package of directories without `__init__.py`; Volatility has an `__init__.py`."""
    (tmp_path / "remains" / "volatility3" / "plugins").mkdir(parents=True)
    program = PLUGINS + "print(type(plugins.__path__).__name__, len(list(plugins.__path__)))"
    assert run(site, [CHECKOUT, tmp_path / "remains"], program) == "_NamespacePath 1"
