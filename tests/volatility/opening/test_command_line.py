# SPDX-License-Identifier: Apache-2.0
"""`throwstack vol`: Volatility's command line with our plugins, whether or not plain `vol` would find them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.vol import CHECKOUT

NO_HOOK = (
    "import sys; sys.meta_path = [f for f in sys.meta_path if getattr(f, '__name__', '') != 'ThrowstackPlugins']\n"
)
HOOK = (
    f"exec(open({str(CHECKOUT / 'distribution' / 'throwstack.pth')!r}).read())\n"
    "assert sys.meta_path[0].__name__ == 'ThrowstackPlugins'\n"
)
MAIN = "from throwstack.cli.main import main; sys.exit(main())"


def command(*arguments: str, before: str = NO_HOOK, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    """Run `throwstack` with `arguments`, in a process of its own, after the statements `before`."""
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}
    line = [sys.executable, "-c", before + MAIN, *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, cwd=cwd, env=variables)


@pytest.mark.parametrize("before", [NO_HOOK, NO_HOOK + HOOK], ids=["no hook", "hook"])
def test_the_help_of_throwstack_vol_is_volatilitys_with_our_plugins_once(before: str):
    done = command("vol", "-h", before=before)
    assert done.returncode == 0
    assert "usage: throwstack vol [-h]" in done.stdout
    plugins = re.findall(r"^    (windows\.\w+\.\w+)", done.stdout, flags=re.MULTILINE)
    assert plugins.count("windows.unhandled.Unhandled") == 1
    assert "windows.pslist.PsList" in plugins


def test_throwstack_vol_keeps_the_words_and_the_exit_status_of_wrong_usage():
    done = command("vol", "windows.nosuch")
    assert done.returncode == 2
    assert "invalid choice windows.nosuch" in done.stderr


def test_throwstack_vol_passes_options_on(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    options = ("-q", "--offline", "--cache-path", str(tmp_path), "-r", "csv", "-s", str(out / "isf"))
    done = command("vol", *options, "-f", str(out / "MEMORY.DMP"), "windows.unhandled", "--pid", "2564", cwd=tmp_path)
    assert done.returncode == 0
    assert re.findall(r"^0,(\d+),(\w+\.exe),", done.stdout, flags=re.MULTILINE) == [("2564", "iftpsvc.exe")]


def test_the_help_of_throwstack_names_vol():
    assert re.search(r"^    vol +run Volatility's vol", command("-h").stdout, flags=re.MULTILINE)


def test_throwstack_vol_without_volatility_ends_in_one_line():
    missing = NO_HOOK + "sys.modules['volatility3'] = None\n"  # what Python does then: ModuleNotFoundError
    done = command("vol", "-h", before=missing)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("throwstack vol: volatility3 cannot be imported here (")
    assert done.stderr.count("\n") == 1


def test_an_installation_without_its_plugins_says_so_in_one_line():
    lost = (
        NO_HOOK
        + "from pathlib import Path\nfrom throwstack import locations\nlocations._PACKAGE = Path('lost/throwstack')\n"
    )
    done = command("vol", "-h", before=lost)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"throwstack vol: windows/unhandled.py is in none of .*: reinstall throwstack\n", done.stderr)


def test_what_the_console_cannot_show_is_escaped(tmp_path: Path):
    """As on Windows, where a file or a pipe gets text in the machine's code page."""
    (tmp_path / "спам.dmp").write_bytes(b"")
    ascii_only = NO_HOOK + "sys.stdout.reconfigure(encoding='ascii', errors='strict')\n"
    done = command("doctor", str(tmp_path / "спам.dmp"), before=ascii_only)
    assert done.returncode == 2
    assert done.stderr == ""
    assert r"\u0441\u043f\u0430\u043c.dmp" in done.stdout
