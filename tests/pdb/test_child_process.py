# SPDX-License-Identifier: Apache-2.0
"""The process that reads PDBs imports nothing from the current directory, and ends when its parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.app_pdb import APP
from tests.support.vol import CHECKOUT
from throwstack.pdb import child_process as child
from throwstack.pdb.pdb_symbols import _LIBRARIES, _arguments

CONVERT = "throwstack.pdb.convert"
VOL = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()\n"
PLANTED = "open({proof!r}, 'a').write(__name__ + '\\n')\nraise ImportError('planted')\n"


def imported(pdb: Path, out: Path) -> set[str]:
    """Return every top-level module that the process imports while it reads a PDB."""
    python, *rest = child.command(CONVERT, _LIBRARIES, _arguments(pdb, out, (0, 0)))
    process = subprocess.Popen([python, "-X", "importtime", *rest], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = process.stderr.read().decode().splitlines()  # its input stays open: it ends when that does
    process.communicate()
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}


def plant(folder: Path, names: set[str]) -> Path:
    """Put a module of each name into `folder` that writes to a file if it runs; return the path of that file."""
    proof = folder.parent / "proof"
    for name in names:
        (folder / f"{name}.py").write_text(PLANTED.format(proof=str(proof)))
    return proof


@pytest.fixture
def evidence(forged: Forge, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return a folder with a dump and a module of each imported name, the dump, and the file that they write to."""
    out, _ = forged("ftp-2003")
    pdb = next(path for path in (out / "pdb").rglob("*.pdb") if path.is_file())
    names = imported(pdb, tmp_path / "x.symbols")
    assert {"symbolic", "pydemumble", "_cffi_backend", "throwstack", "struct"} <= names
    folder = tmp_path / "evidence"
    folder.mkdir()
    return folder, out, plant(folder, names | {"json", "sitecustomize", "usercustomize", "resource", "capstone"})


def test_no_module_in_the_folder_of_the_evidence_runs(evidence, tmp_path):
    """An installed `vol` is started in that folder and converts PDBs."""
    folder, dump, proof = evidence
    (tmp_path / "bin").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "bin" / "vol").write_text(VOL)
    run = subprocess.run(
        [
            *(
                sys.executable,
                str(tmp_path / "bin" / "vol"),
                "-q",
                "--offline",
                "--cache-path",
                str(tmp_path / "cache"),
            ),
            *("-p", str(CHECKOUT / "plugins"), "-s", f"{dump / 'isf'};{CHECKOUT / 'symbols'}"),
            *("-f", str(dump / "MEMORY.DMP"), "windows.cxrstack", "--symbol-path", str(dump / "pdb")),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "comraise.cpp @ 18" in run.stdout
    assert not proof.exists(), proof.read_text()
    assert list((tmp_path / "cache" / "throwstack" / "pdb").rglob("*.symbols"))


def test_the_environment_adds_no_modules_either(evidence, tmp_path, monkeypatch):
    folder, dump, proof = evidence
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "THROWSTACK_PATH"):
        monkeypatch.setenv(name, str(folder))
    pdb = next(path for path in (dump / "pdb").rglob("*.pdb") if path.is_file())
    assert "symbolic" in imported(pdb, tmp_path / "y.symbols")
    assert not proof.exists()


def test_only_absolute_directories_are_given_to_the_process(tmp_path, monkeypatch):
    """With `python -m` or `python -c`, our own module search path begins with the current directory."""
    (tmp_path / "symbolic.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), *sys.path, "relative"])
    python, *rest = child.command(CONVERT, ["symbolic", "pydemumble", "no_such_module"], ["a.pdb"])
    assert Path(python).is_absolute()
    assert rest[:3] == ["-I", "-S", "-c"]
    directories = rest[5 : 5 + int(rest[4])]
    assert directories[0] == str(CHECKOUT)
    assert [Path(directory, "symbolic").is_dir() for directory in directories].count(True) == 1
    assert all(Path(directory).is_absolute() and Path(directory) != tmp_path for directory in directories)
    assert rest[5 + int(rest[4]) :] == [CONVERT, "a.pdb"]


def test_a_python_that_does_not_know_its_interpreter_starts_no_process(monkeypatch):
    for executable in ("", "python3"):
        monkeypatch.setattr(child.sys, "executable", executable)
        assert not child.can_start()


PARENT = """
import subprocess, sys
from pathlib import Path
from throwstack.images.image import PdbIdentity
from throwstack.pdb import pdb_symbols as symbols

class Announced(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)

subprocess.Popen = Announced
pdbs = symbols.PdbSymbols(None, cache=Path(sys.argv[2]), say=print)
pdbs._table(Path(sys.argv[1]), PdbIdentity("app.pdb", "0" * 32, 1), (0, 0))
"""


def until(true: Callable[[], bool]) -> None:
    """Wait for what happens in another process; fail if it does not."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def has_ended(pid: int) -> bool:
    """Say whether a process has ended, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def ignores(pid: int, number: int) -> bool:
    """Say whether a process ignores this signal, which is so once it watches its parent."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(line.startswith("SigIgn:") and int(line.split()[1], 16) >> number - 1 & 1 for line in lines)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees the end of another's child in /proc")
@pytest.mark.parametrize("whom", ["parent", "group"])
@pytest.mark.parametrize("what", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_the_reader_ends_with_us_and_leaves_no_half_file(tmp_path, what, whom):
    """The reader is blocked. Ctrl-C, and SIGTERM of a service manager, go to the whole process group."""
    if (what, whom) == ("SIGKILL", "group"):
        pytest.skip("no process is left that could remove the files: a later run does")
    pdb, cache = tmp_path / "app.pdb", tmp_path / "cache"
    os.mkfifo(pdb)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(pdb), str(cache)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    reader = int(parent.stdout.readline())
    until(lambda: ignores(reader, signal.SIGTERM))
    assert [entry.name.startswith(".throwstack-") for entry in cache.iterdir()] == [True]
    (os.killpg if whom == "group" else os.kill)(parent.pid, getattr(signal, what))
    parent.communicate(timeout=30)
    until(lambda: has_ended(reader))
    assert list(cache.iterdir()) == []


def test_the_command_reads_a_pdb(tmp_path):
    (tmp_path / "app.pdb").write_bytes(APP.to_bytes())
    out = tmp_path / "private" / "app.symbols"
    out.parent.mkdir()
    command = child.command(CONVERT, _LIBRARIES, _arguments(tmp_path / "app.pdb", out, (1, 2)))
    process = subprocess.Popen(command, cwd=out.parent, stdin=subprocess.PIPE)
    process.wait(60)
    process.stdin.close()
    assert process.returncode == 0
    assert out.stat().st_size > 0
