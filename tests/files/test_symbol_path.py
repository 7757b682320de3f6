# SPDX-License-Identifier: Apache-2.0
"""Symbol paths and the search along them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cabinet_writer import cabinet
from throwstack.files.symbol_path import (
    ImageIdentity,
    PathElement,
    Server,
    SymbolPath,
    parse_symbol_path,
    safe_name,
    store_key,
)
from throwstack.images.image import PdbIdentity

GUID = "0123456789ABCDEF00112233445566AA"
PDB = PdbIdentity("app.pdb", GUID, 10)
CACHE = Path("/default")
SITE = Server("https://symbols.example/download")


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", ()),
        (";;", ()),
        ("/a; /b", (PathElement((Path("/a"),), CACHE), PathElement((Path("/b"),), CACHE))),
        (
            "srv*/c*https://symbols.example/download/",
            (PathElement((Path("/c"), SITE), Path("/c"), is_store=True),),
        ),
        ("SRV*https://symbols.example/download", (PathElement((CACHE, SITE), CACHE, is_store=True),)),
        ("srv**https://symbols.example/download", (PathElement((CACHE, SITE), CACHE, is_store=True),)),
        (
            "symsrv*symsrv.dll*/c*/share*https://symbols.example/download",
            (PathElement((Path("/c"), Path("/share"), SITE), Path("/c"), is_store=True),),
        ),
        (
            "cache*/near;srv*https://symbols.example/download",
            (
                PathElement((Path("/near"),), is_store=True),
                PathElement((Path("/near"), SITE), Path("/near"), is_store=True),
            ),
        ),
        ("cache*", (PathElement((CACHE,), is_store=True),)),
        ("srv*", (PathElement((CACHE,), CACHE, is_store=True),)),
        ("unknown*/x", ()),
        ("https://symbols.example/download", (PathElement((CACHE, SITE), CACHE, is_store=True),)),
        ('"/a b"', (PathElement((Path("/a b"),), CACHE),)),
        ("cache*~/near", (PathElement((Path("~/near").expanduser(),), is_store=True),)),
    ],
)
def test_a_symbol_path_is_parsed_into_elements(text, elements):
    assert parse_symbol_path(text, CACHE) == elements


@pytest.mark.skipif(os.name == "nt", reason="they are Windows's")
@pytest.mark.parametrize(
    ("text", "elements", "dropped"),
    [
        (r"SRV*c:\symbols*https://symbols.example/download", (PathElement((CACHE, SITE), CACHE, is_store=True),), 1),
        (
            r"srv*/c*\\server\share*https://symbols.example/download",
            (PathElement((Path("/c"), SITE), Path("/c"), True),),
            1,
        ),
        (r"C:\pdbs;/pdbs;d:", (PathElement((Path("/pdbs"),), CACHE),), 2),
        (r"cache*c:\near", (PathElement((CACHE,), is_store=True),), 1),
        ("syv*/c*https://symbols.example/download", (), 1),
    ],
)
def test_elements_that_cannot_be_used_on_this_system_are_reported(text, elements, dropped):
    """If they were used, directories with these names would be made in the current directory."""
    said: list[str] = []
    assert parse_symbol_path(text, CACHE, said.append) == elements
    assert len(said) == dropped


def test_keys_as_symsrv_spells_them():
    assert store_key(PDB) == GUID + "a"
    assert store_key(ImageIdentity("ntdll.dll", 0x4A5BDADB, 0x13C000)) == "4A5BDADB13c000"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("app.pdb", "app.pdb"),
        (r"d:\build\app.pdb", "app.pdb"),
        ("../../etc/passwd", "passwd"),
        ("..", None),
        (".", None),
        ("", None),
        ("a/", None),
        ("a\0b", None),
        ("a\nb", None),
        ("a\x1b[31m", None),
        ("a:stream", None),
        ("a*", None),
        ("a.", None),
        ("NUL", None),
        ("com1.pdb", None),
        ("COM\u00b2.pdb", None),
        ("conout$", None),
        ("company.pdb", "company.pdb"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("é" * 65, None),
        ("\ud800", None),
        ("\u202efdp.exe", None),
        ("größe.pdb", "größe.pdb"),
    ],
)
def test_names_that_may_become_paths(name, safe):
    assert safe_name(name) == safe


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_no_name_leaves_its_directory(name):
    safe = safe_name(name)
    if safe is not None:
        assert (Path("/store") / safe).parent == Path("/store")
        assert "/" not in safe
        assert safe != ".."
    url = Server("https://x").file_url(PdbIdentity(name, GUID, 1))
    assert url is None or (url.isascii() and url.count("/") == 5)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def search(path: str, identity=PDB, fetcher=None):
    """Find the file whose text is "right"; return it and the messages."""
    said: list[str] = []
    symbol_path = SymbolPath(parse_symbol_path(path, CACHE), fetcher=fetcher, say=said.append)
    found = symbol_path.find(
        identity,
        lambda file: (
            None if file.read_text(encoding="utf-8") == "right" else f"it is {file.read_text(encoding='utf-8')}"
        ),
    )
    return found, said


@pytest.mark.parametrize(
    "layout",
    [
        "app.pdb",
        "pdb/app.pdb",
        "symbols/pdb/app.pdb",
        f"app.pdb/{GUID}a/app.pdb",
        "symbols/dll/app.pdb",
        "Symbols/EXE/app.pdb",
        f"APP.PDB/{GUID.lower()}A/App.pdb",
    ],
)
def test_a_file_is_found_in_each_layout_of_a_directory(tmp_path, layout):
    file = put(tmp_path / layout, "right")
    assert search(str(tmp_path)) == (file, [])


def test_a_file_is_found_in_a_two_tier_store(tmp_path):
    put(tmp_path / "index2.txt", "")
    file = put(tmp_path / "ap" / "app.pdb" / f"{GUID}a" / "app.pdb", "right")
    assert search(f"srv*{tmp_path}") == (file, [])


def test_two_spellings_of_one_name(tmp_path):
    """One program has put a file into the store as app.pdb, another as APP.PDB."""
    put(tmp_path / "app.pdb" / f"{GUID}9" / "app.pdb", "age 9")
    file = put(tmp_path / "APP.PDB" / f"{GUID}A" / "App.pdb", "right")
    assert search(f"srv*{tmp_path}") == (file, [])


def test_a_pointer_file_in_a_store_is_reported(tmp_path):
    put(tmp_path / "app.pdb" / f"{GUID}a" / "file.ptr", r"PATH:\\server\share\app.pdb")
    found, (said,) = search(str(tmp_path))
    assert found is None
    assert "file.ptr: points to a file in another place" in said


def test_a_store_is_not_searched_as_a_plain_directory(tmp_path):
    put(tmp_path / "app.pdb", "right")
    assert search(f"srv*{tmp_path}") == (None, [])


def test_a_refused_file_is_named_and_the_search_goes_on(tmp_path):
    wrong = put(tmp_path / "one" / "app.pdb", "age 3")
    right = put(tmp_path / "two" / "app.pdb", "right")
    assert search(f"{tmp_path / 'one'};{tmp_path / 'two'}") == (right, [f"{wrong}: refused: it is age 3"])


def test_compressed_file_is_unpacked_into_the_cache(tmp_path):
    store, cache = tmp_path / "store", tmp_path / "cache"
    put(store / "APP.PDB" / f"{GUID}A" / "app.pd_", "").write_bytes(cabinet(b"right"))
    for _ in range(2):
        found, said = search(f"srv*{cache}*{store}")
        assert (found, said) == (cache / "app.pdb" / f"{GUID}a" / "app.pdb", [])


def test_a_compressed_file_with_another_identity_is_refused(tmp_path):
    packed = put(tmp_path / "app.pdb" / f"{GUID}a" / "app.pd_", "")
    packed.write_bytes(cabinet(b"age 3"))
    assert search(f"srv*{tmp_path}") == (None, [f"{packed}: refused: it is age 3"])
    assert list(packed.parent.iterdir()) == [packed]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_fifo_in_place_of_a_compressed_file_is_not_waited_for(tmp_path):
    packed = tmp_path / "app.pdb" / f"{GUID}a" / "app.pd_"
    packed.parent.mkdir(parents=True)
    os.mkfifo(packed)
    assert search(f"srv*{tmp_path}") == (None, [f"{packed}: refused: not a regular file"])


@pytest.mark.parametrize("layout", ["app.pdb", f"app.pdb/{GUID}a/app.pdb", "app.pd_"])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "a directory"),
        (lambda path: path.symlink_to(path), "a symbolic link that leads to no file"),
        (lambda path: path.symlink_to("nowhere"), "a symbolic link that leads to no file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_what_is_no_file_is_said(tmp_path, layout, make, what):
    place = tmp_path / layout
    place.parent.mkdir(parents=True, exist_ok=True)
    make(place)
    assert search(str(tmp_path)) == (None, [f"{place}: refused: {what}"])


def test_a_compressed_file_in_a_plain_directory_is_unpacked(tmp_path):
    (tmp_path / "app.pd_").write_bytes(cabinet(b"right"))
    path = f"cache*{tmp_path / 'cache'};{tmp_path}"
    assert search(path) == (tmp_path / "cache" / "app.pdb" / f"{GUID}a" / "app.pdb", [])


def test_a_compressed_file_that_cannot_be_unpacked_is_reported(tmp_path):
    packed = put(tmp_path / "app.pdb" / f"{GUID}a" / "app.pd_", "MSCF")
    found, said = search(f"srv*{tmp_path}")
    assert found is None
    assert said == [f"{packed}: a damaged cabinet; unpack it (expand, cabextract) to app.pdb beside it"]


@pytest.mark.parametrize(
    "path", ["/absent/directory", "\0", "~nobody-here/symbols", "x" * 5000, "/etc/passwd", "srv*\0*\0"]
)
def test_paths_that_do_not_exist(path):
    found, said = search(path)
    assert found is None
    assert all("not a directory that can be read" in message for message in said)
    assert bool(said) == (path != "\0")


def test_hostile_name_is_not_looked_up(tmp_path):
    put(tmp_path / "x.pdb", "right")
    (tmp_path / "sub").mkdir()
    found, said = search(str(tmp_path / "sub"), PdbIdentity("..", GUID, 1))
    assert (found, said) == (None, ["'..': not a file name that can be looked up"])
    assert search(str(tmp_path), PdbIdentity("a\x1b[2J\n", GUID, 1))[1] == [
        r"'a\x1b[2J\n': not a file name that can be looked up"
    ]


class Store:
    """A `Fetcher` that writes the text it has for a file name."""

    def __init__(self, **files: str | bytes) -> None:
        self.files, self.asked = files, []

    def fetch(self, url: str, target: Path) -> bool:
        self.asked.append(url)
        data = self.files.get(url.rsplit("/", 1)[-1])
        if data is not None:
            put(target, "").write_bytes(data.encode() if isinstance(data, str) else data)
        return data is not None


def test_a_file_is_downloaded_once_into_the_cache(tmp_path):
    fetcher = Store(**{"app.pdb": "right"})
    found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=fetcher)
    assert found == tmp_path / "app.pdb" / f"{GUID}a" / "app.pdb"
    assert said == []
    assert fetcher.asked == [f"https://symbols.example/app.pdb/{GUID}a/app.pdb"]
    search(f"srv*{tmp_path}*https://symbols.example", fetcher=fetcher)
    assert len(fetcher.asked) == 1


def test_download_of_a_compressed_file(tmp_path):
    """Mozilla's server has compressed files only."""
    fetcher = Store(**{"app.pd_": cabinet(b"right")})
    found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=fetcher)
    assert (found, said) == (tmp_path / "app.pdb" / f"{GUID}a" / "app.pdb", [])
    assert fetcher.asked == [f"https://symbols.example/app.pdb/{GUID}a/app.{kind}" for kind in ("pdb", "pd_")]
    assert list(found.parent.iterdir()) == [found]


def test_a_bare_server_fills_the_default_cache(tmp_path):
    fetcher = Store(**{"app.pdb": "right"})
    for _ in range(2):
        path = SymbolPath(parse_symbol_path("https://symbols.example", tmp_path), fetcher=fetcher, say=pytest.fail)
        assert path.find(PDB, lambda _: None) == tmp_path / "app.pdb" / f"{GUID}a" / "app.pdb"
    assert len(fetcher.asked) == 1


def test_download_into_a_two_tier_cache(tmp_path):
    put(tmp_path / "index2.txt", "")
    fetcher = Store(**{"app.pdb": "right"})
    for _ in range(2):
        found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=fetcher)
        assert (found, said) == (tmp_path / "ap" / "app.pdb" / f"{GUID}a" / "app.pdb", [])
    assert len(fetcher.asked) == 1


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path):
    damaged = put(tmp_path / "app.pdb" / f"{GUID}a" / "app.pdb", "truncated")
    found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=Store(**{"app.pdb": "right"}))
    assert (found, said) == (damaged, [f"{damaged}: refused: it is truncated"])
    assert damaged.read_text(encoding="utf-8") == "right"


def test_a_download_of_another_file_is_refused_and_not_kept(tmp_path):
    found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=Store(**{"app.pdb": "an error page"}))
    assert found is None
    assert said == [f"https://symbols.example/app.pdb/{GUID}a/app.pdb: refused: it is an error page"]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_download_is_checked_before_it_gets_into_the_cache(tmp_path):
    """At no moment is there an unchecked file in the cache, not even one from a cabinet."""
    for files in ({"app.pdb": "right"}, {"app.pd_": cabinet(b"right")}):
        cache = tmp_path / next(iter(files))
        checked: list[Path] = []
        path = SymbolPath(
            parse_symbol_path(f"srv*{cache}*https://symbols.example", CACHE), fetcher=Store(**files), say=pytest.fail
        )
        path.find(PDB, checked.append)
        (file,) = checked
        assert file.parent.parent == cache
        assert file.parent.name.startswith(".throwstack-")
        assert [entry.name for entry in cache.iterdir()] == ["app.pdb"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("planted", ["app.pdb", "app.pdb.part", "app.pdb.part.lock", "app.pd_"])
def test_links_in_a_shared_cache_lead_nowhere(tmp_path, planted):
    precious = put(tmp_path / "precious", "precious")
    folder = tmp_path / "cache" / "app.pdb" / f"{GUID}a"
    folder.mkdir(parents=True)
    (folder / planted).symlink_to(precious)
    for files in ({"app.pdb": "right"}, {"app.pd_": cabinet(b"right")}, {"app.pdb": "wrong"}, {}):
        search(f"srv*{tmp_path / 'cache'}*https://symbols.example", fetcher=Store(**files))
        assert precious.read_text() == "precious"
    assert (folder / "app.pdb").read_text() == "right"
    assert not (folder / "app.pdb").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_directory_of_a_shared_cache_that_is_a_link_is_said(tmp_path):
    precious, cache = tmp_path / "precious", tmp_path / "cache"
    for folder in (precious, cache):
        folder.mkdir()
    (cache / "app.pdb").symlink_to(precious)
    found, said = search(f"srv*{cache}*https://symbols.example", fetcher=Store(**{"app.pdb": "right"}))
    assert found is None
    assert said == [
        f"{cache / 'app.pdb' / f'{GUID}a' / 'app.pdb'}: cannot be stored: {cache / 'app.pdb'} is a link or a file"
    ]
    assert not list(precious.iterdir())


def test_a_file_that_another_run_has_open_serves(tmp_path, monkeypatch):
    """Windows replaces no such file. It is the one that run has just put there."""

    def put_by_another_run(_, target: Path, __) -> None:
        put(target, "right")
        raise PermissionError

    monkeypatch.setattr("throwstack.files.symbol_path.put", put_by_another_run)
    found, said = search(f"srv*{tmp_path}*https://symbols.example", fetcher=Store(**{"app.pdb": "right"}))
    assert (found, said) == (tmp_path / "app.pdb" / f"{GUID}a" / "app.pdb", [])


def test_offline_asks_no_server(tmp_path):
    assert search(f"srv*{tmp_path}*https://symbols.example") == (None, [])
