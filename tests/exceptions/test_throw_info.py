# SPDX-License-Identifier: Apache-2.0
"""ThrowInfo as a compiler lays it out: clang compiles the throws for Windows, the linker's map says where."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pefile
import pytest

from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.exceptions.throw_info import CatchableType, read_throw_info

CLANG, LINK = shutil.which("clang-19") or shutil.which("clang"), shutil.which("lld-link-19") or shutil.which("lld-link")

FLAGS = ("/dll", "/noentry", "/nodefaultlib", "/force:unresolved", "/safeseh:no", "/opt:noref")
THROWS = """
struct Base { virtual ~Base(); int a; };
struct Other { int b; };
namespace app { template<class T> struct Error : Other, Base { T c; }; }
namespace std { class exception { public: virtual ~exception(); char const *w; bool f; };
                class runtime_error : public exception {}; }
struct Late : virtual Base {};
enum Color { red };
extern "C" __declspec(dllexport) void throws(int which) {
  switch (which) {
  case 0: throw app::Error<long>();
  case 1: throw std::runtime_error();
  case 2: throw Late();
  case 3: throw red;
  case 4: throw L"wide";
  default: throw 42;
  }
}
"""
RUNTIME = "void __stdcall _CxxThrowException(void *a, void *b) { for (;;); } int _fltused;"


@pytest.fixture(scope="module", params=Arch, ids=lambda arch: arch.value)
def thrown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[CatchableType, ...]]:
    """Return the types of every ThrowInfo in the compiled image, by the decorated name of the thrown type."""
    if CLANG is None or LINK is None:
        pytest.skip("needs clang and lld-link")
    arch, folder = request.param, tmp_path_factory.mktemp("throws")
    target = f"--target={'i686' if arch is Arch.X86 else 'x86_64'}-pc-windows-msvc"
    (folder / "throws.cpp").write_text(THROWS, encoding="utf-8")
    (folder / "runtime.c").write_text(RUNTIME, encoding="utf-8")
    for source in ("throws.cpp", "runtime.c"):
        flags = ["-fcxx-exceptions", "-fexceptions"] if source.endswith("cpp") else []
        subprocess.run([CLANG, target, *flags, "-O1", "-c", source, "-o", f"{source}.obj"], cwd=folder, check=True)
    subprocess.run(
        [LINK, *FLAGS, "/out:throws.dll", "/map:throws.map", "throws.cpp.obj", "runtime.c.obj"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return _types(arch, folder)


def _types(arch: Arch, folder: Path) -> dict[str, tuple[CatchableType, ...]]:
    pe = pefile.PE(str(folder / "throws.dll"))
    base = pe.OPTIONAL_HEADER.ImageBase
    memory = memory_of({base: pe.get_memory_mapped_image()})
    found = {}
    for name, address in re.findall(
        r"\b_*TI(?:C?)\d(\S+)\s+([0-9a-f]{16})", (folder / "throws.map").read_text(encoding="utf-8")
    ):
        info = read_throw_info(memory, arch, int(address, 16), base)
        assert info.note == ""
        found[f".{name}"] = info.types
    return found


def test_the_types_that_clang_wrote_are_those_of_the_source(thrown: dict[str, tuple[CatchableType, ...]]):
    pointer = ".PEA" if ".PEA_W" in thrown else ".PA"
    assert {name: [item.name for item in types] for name, types in thrown.items()} == {
        ".?AU?$Error@J@app@@": ["app::Error<long>", "Other", "Base"],
        ".?AVruntime_error@std@@": ["std::runtime_error", "std::exception"],
        ".?AULate@@": ["Late", "Base"],
        ".?AW4Color@@": ["Color"],
        f"{pointer}_W": ["wchar_t *", "void *"],
        ".H": ["int"],
    }


def test_names_sizes_and_offsets_of_the_types_that_clang_wrote(thrown: dict[str, tuple[CatchableType, ...]]):
    size = 8 if ".PEA_W" in thrown else 4
    own, other, base = thrown[".?AU?$Error@J@app@@"]
    assert (own.raw_name, own.offset, own.table_offset) == (".?AU?$Error@J@app@@", 0, -1)
    # The class with virtual functions comes first in the object: vftable, a (and padding), then Other's b.
    assert (base.offset, base.size) == (0, 2 * size)
    assert (other.offset, other.size) == (2 * size, 4)
    late = thrown[".?AULate@@"][1]
    assert (late.table_offset, late.table_index) == (0, 4)
