# SPDX-License-Identifier: Apache-2.0
"""The wheel has the engine, the plugins and the tables, and no file below volatility3/; the sdist has every file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import throwstack
from tests.support.vol import CHECKOUT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    subprocess.run(command, check=True, cwd=CHECKOUT, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def files(*directories: str) -> set[str]:
    """Return the files of the checkout below `directories`, without Python's caches."""
    found = (path for directory in directories for path in (CHECKOUT / directory).rglob("*") if path.is_file())
    return {path.relative_to(CHECKOUT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_every_file_of_the_engine_is_in_the_wheel(wheel: zipfile.ZipFile):
    assert files("throwstack") <= set(wheel.namelist())


def test_every_directory_with_modules_is_a_package_and_the_package_is_typed(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    modules = {PurePosixPath(name) for name in names if name.startswith("throwstack/") and name.endswith(".py")}
    directories = {module.parent for module in modules} - {PurePosixPath("throwstack/plugins/windows")}  # Volatility's
    assert {str(directory / "__init__.py") for directory in directories} <= names
    assert "throwstack/py.typed" in names


def test_plugins_and_symbol_tables_are_in_our_own_package_and_only_the_start_up_line_is_beside_it(
    wheel: zipfile.ZipFile,
):
    beside = {name for name in wheel.namelist() if not name.startswith("throwstack/") and ".dist-info/" not in name}
    assert beside == {"throwstack.pth"}
    ours = {name for name in wheel.namelist() if name.startswith(("throwstack/plugins/", "throwstack/isf/"))}
    plugins = {name.replace("plugins/", "throwstack/plugins/", 1) for name in files("plugins/windows")}
    tables = {name.replace("symbols/", "throwstack/isf/", 1) for name in files("symbols/windows")}
    assert ours == plugins | tables


def test_licences_are_in_the_wheel(wheel: zipfile.ZipFile):
    kept = {name.partition(".dist-info/licenses/")[2] for name in wheel.namelist()} - {""}
    assert kept == {"LICENSE", "plugins/LICENSE", "throwstack/exceptions/data/NOTICE"}


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="an unpacked sdist does not know its files")
def test_the_sdist_has_every_file_that_is_under_version_control(built: Path):
    """pyproject.toml lists the directories: a new one that is not in the list fails here."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, cwd=CHECKOUT, capture_output=True, text=True).stdout
    assert {name for name in listed.split("\0") if name and (CHECKOUT / name).is_file()} <= held


def description(wheel: zipfile.ZipFile) -> str:
    """Return the README as the package index shows it."""
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return wheel.read(metadata).decode("utf-8").partition("\n\n")[2]


def links(text: str) -> list[str]:
    """Return the targets of the links in a Markdown text."""
    return re.findall(r"\]\(([^)]+)\)", text)


def test_the_description_without_a_known_repository_names_files_and_links_none(wheel: zipfile.ZipFile):
    assert [link for link in links(description(wheel)) if not link.startswith(("https://", "#"))] == []
    assert "What it cannot do (`docs/limitations.md`)" in description(wheel)


def test_a_release_links_its_description_to_the_files_of_its_version(tmp_path: Path):
    variables = environment(THROWSTACK_REPOSITORY="https://example.org/owner/throwstack")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, check=True, cwd=CHECKOUT, capture_output=True, env=variables)
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    base = f"https://example.org/owner/throwstack/blob/v{throwstack.__version__}/"
    files = [link.removeprefix(base) for link in links(description(wheel)) if link.startswith(base)]
    assert "docs/limitations.md" in files
    assert all((CHECKOUT / name).is_file() for name in files)


UNINSTALLED = """
import sys
from importlib.machinery import PathFinder

INSTALLED = list(sys.path)

class Uninstalled(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "throwstack":
            path = [entry for entry in sys.path if entry not in INSTALLED]
        return super().find_spec(name, path, target)

sys.meta_path = [Uninstalled if finder is PathFinder else finder for finder in sys.meta_path]
from volatility3.cli import main
sys.argv[0] = "vol"
main()
"""
"""Runs `vol` in an environment without throwstack: a program that Volatility is frozen into is such a one."""


@pytest.mark.parametrize("directory", ["plugins", "throwstack/plugins"])
def test_the_engine_of_a_checkout_or_an_unpacked_wheel_is_found_beside_the_plugins_given_with_p(
    directory: str, wheel: zipfile.ZipFile, tmp_path: Path
):
    wheel.extractall(tmp_path / "wheel")
    plugins = (CHECKOUT if directory == "plugins" else tmp_path / "wheel") / directory
    command = [sys.executable, "-c", UNINSTALLED, "-p", str(plugins), "-h"]
    out = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment(), check=True, cwd=tmp_path
    ).stdout
    names = short_names(out.partition("could not be loaded")[0])
    assert {name for name in names if name.split(".")[1] in OURS} == {
        "windows.cxrstack.CxrStack",
        "windows.stackwalk.StackWalk",
        "windows.unhandled.Unhandled",
    }


OURS = {path.stem for path in (CHECKOUT / "plugins" / "windows").glob("*.py")}


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables without those of Python, which would make the checkout importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "COLUMNS": "200", **more}


def short_names(text: str) -> set[str]:
    """Return the names of the plugins in the output of `vol -h`."""
    return set(re.findall(r"^    ([a-z][\w.]+\.[A-Z]\w+)", text, flags=re.MULTILINE))


def test_no_short_name_that_worked_before_becomes_ambiguous():
    command = [sys.executable, "-c", "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"]
    variables = environment(PYTHONPATH=str(CHECKOUT))
    plain = subprocess.run([*command, "-h"], capture_output=True, encoding="utf-8", env=variables, check=True).stdout
    ours = [*command, "-p", str(CHECKOUT / "plugins"), "-h"]
    with_ours = subprocess.run(ours, capture_output=True, encoding="utf-8", env=variables, check=True).stdout
    before, after = short_names(plain), short_names(with_ours)
    assert len(before) > 50
    added = {name for name in after if name.split(".")[1] in OURS}
    assert {name.split(".")[1] for name in added} == OURS
    for name in before - added:
        short = name.rpartition(".")[0]
        assert not [other for other in added if short in other], f"{short} is ambiguous now"
    assert not any(f"windows.{stem}" in with_ours.partition("could not be loaded")[2] for stem in OURS)
