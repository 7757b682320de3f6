# SPDX-License-Identifier: Apache-2.0
"""The list of files to fetch for the stacks of a dump."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.pe_writer import X64, X86, Pe, Section
from tests.support.vol import CHECKOUT
from throwstack.core.memory import memory_of
from throwstack.core.text import escape
from throwstack.files.needed_files import NeededFile, manifest, needed_files
from throwstack.images.image import ImageMap, PdbIdentity
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable

GUID = "6192BFDB9F04442995FFCB0BE95172E1"
KEY = f"{GUID}12"
BASE = 0x10000000
CODE = Section(".text", 0x1000, b"\x90" * 0x1000)


def symbols_of(pe: Pe, *, without: tuple[int, ...] = (), timestamp: int = 0, source=None, path="") -> Symbols:
    """Make a process with `pe` loaded, without the pages at the RVAs `without`."""
    mapped = pe.mapped()
    present = {BASE + rva: mapped[rva : rva + 0x1000] for rva in range(0, pe.size, 0x1000) if rva not in without}
    module = Module("ntdll.dll", path, BASE, pe.size, timestamp)
    return Symbols(ImageMap(memory_of(present), ModuleMap([module])), source)


def needed(symbols: Symbols):
    return needed_files(symbols.images, symbols)


X86_APP = Pe(X86, BASE, 0x4A5BDADB, sections=[CODE], pdb=(GUID, 18, "ntdll.pdb"))


def test_a_missing_pdb_is_listed():
    (file,) = needed(symbols_of(X86_APP))
    assert file.manifest_line == f"ntdll.pdb,{GUID}12,1"
    assert (file.module, file.why) == ("ntdll", "function names (now from exports), source lines, frame data")


def test_a_pdb_that_was_found_is_not_listed():
    symbols = symbols_of(X86_APP, source=lambda _: SymbolTable(SymbolKind.PDB, [(0x1000, "f")]))
    assert needed(symbols) == ()


class Lacking(SymbolTable):
    """The table of a PDB that has less than it could have."""

    missing = "the PDB at hand has public symbols only"


def lacking(_) -> SymbolTable:
    return Lacking(SymbolKind.PDB, [(0x1000, "f")])


def test_a_pdb_with_less_than_it_could_have_is_listed_but_not_in_the_manifest():
    """A server that gave this one gives it again."""
    files = needed(symbols_of(X86_APP, source=lacking))
    (file,) = files
    assert (file.why, file.is_at_hand) == ("the PDB at hand has public symbols only", True)
    assert manifest(files) == ""


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("C:\\WINDOWS\\system32\\ntdll.dll", 0),
        ("\\SystemRoot\\System32\\ntoskrnl.exe", 0),
        ("\\??\\C:\\Windows\\System32\\win32k.sys", 0),
        ("D:\\WINNT\\system32\\ntdll.dll", 0),
        ("C:\\app\\windows\\app.exe", 1),
        ("C:\\Windows.old\\app.exe", 1),
        ("", 1),
    ],
)
def test_microsoft_gives_away_no_better_pdbs_of_windows(path, count):
    assert len(needed(symbols_of(X86_APP, source=lacking, path=path))) == count


def test_image_whose_unwind_data_is_absent():
    """Its .pdata is at 2000."""
    pe = Pe(X64, BASE, 0x4A5BDADB, sections=[CODE], functions=[(0x1000, 0x1100, 0x1800)])
    (file,) = needed(symbols_of(pe, without=(0x2000,)))
    assert file.manifest_line == "ntdll.dll,4A5BDADB3000,1"
    assert file.why == "its unwind data cannot be read"
    assert needed(symbols_of(pe)) == ()


def test_an_image_without_its_header_page_is_listed_by_its_loader_entry():
    files = needed(symbols_of(X86_APP, without=(0,), timestamp=0x4A5BDADB))
    assert manifest(files) == f"ntdll.dll,4A5BDADB{X86_APP.size:x},1\n"
    assert needed(symbols_of(X86_APP, without=(0,))) == ()


def test_each_file_is_listed_once():
    symbols = symbols_of(X86_APP)
    assert len(needed_files([*symbols.images, *symbols.images], symbols)) == 1


HOSTILE = (
    "a\nb.pdb",
    "a\r.pdb",
    "..",
    "a\x1b.pdb",
    'a".pdb',
    "a|b.pdb",
    "a:b.pdb",
    "a*.pdb",
    "a?.pdb",
    "nul",
    "a.pdb ",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_no_file_can_have_are_left_out_and_reported(name):
    """Names of the list go to a shell and become paths."""
    pe = Pe(X86, BASE, 0x4A5BDADB, sections=[CODE], pdb=(GUID, 18, name))
    symbols = symbols_of(pe)
    said: list[str] = []
    assert needed_files(symbols.images, symbols, said.append) == ()
    assert said == [f"a file for ntdll is not in the list: {escape(name)} is not a valid file name"]


ODD = (
    "a,b.pdb",
    "{a,b}.pdb",
    "[1-3].pdb",
    "a b.pdb",
    "a;b.pdb",
    "-o.pdb",
    "'.pdb",
    "$(id).pdb",
    "`id`.pdb",
    "%41#.pdb",
)
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]


def the_loop() -> str:
    """Return the loop that docs/symbols.md gives."""
    readme = (CHECKOUT / "docs" / "symbols.md").read_text()
    (loop,) = re.findall(r"^while .*?^done < symbols-needed.txt$", readme, re.DOTALL | re.MULTILINE)
    return loop


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; give the address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize("shell", SHELLS)
def test_the_readmes_loop_fetches_odd_names_as_they_are(tmp_path, shell):
    """A program called curl notes its arguments."""
    files = [NeededFile(PdbIdentity(name, GUID, 18), "m", "why") for name in ODD]
    (tmp_path / "symbols-needed.txt").write_text(manifest(files))
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$LOG"\n')
    curl.chmod(0o755)
    log = tmp_path / "log"
    path = f"{curl.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LOG": str(log)}
    done = subprocess.run(
        [shell, "-c", the_loop()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    expected = []
    for name in ODD:
        in_url = name.replace("%", "%25").replace(" ", "%20").replace("#", "%23")
        expected += ["-gfL", "--create-dirs", "-o", f"pdbs/{name}/{GUID}12/{name}"]
        expected += [f"https://SERVER/PATH/{in_url}/{GUID}12/{in_url}"]
    assert log.read_text().splitlines() == expected
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bin", "log", "symbols-needed.txt"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_takes_the_urls_as_they_are(tmp_path):
    """Curl expands braces and brackets to several URLs unless it has the option `-g`."""
    with served(tmp_path / "server") as address:
        for name in ODD:
            path = tmp_path / "server" / name / KEY / name
            path.parent.mkdir(parents=True)
            path.write_text(name)
        files = [NeededFile(PdbIdentity(name, GUID, 18), "m", "why") for name in ODD]
        (tmp_path / "symbols-needed.txt").write_text(manifest(files))
        loop = the_loop().replace("https://SERVER/PATH", address).replace("curl ", "curl --noproxy '*' ")
        subprocess.run(["sh", "-c", loop], cwd=tmp_path, capture_output=True, check=True)
    for name in ODD:
        assert (tmp_path / "pdbs" / name / KEY / name).read_text() == name
