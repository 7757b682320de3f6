# SPDX-License-Identifier: Apache-2.0
"""Compiles a large PDB, for `benchmarks/naming.py`: generated C++ of many units, linked into one DLL.

    python benchmarks/large_pdb.py DIRECTORY [--units 60] [--classes 3000]

Needs clang 19 and lld 19, as `make test-live` does; no headers and no libraries. Each unit has classes of its own, so
that the linker cannot merge their types, and in every class a function is inlined twice. 60 units of 3,000 classes make
a PDB of about 290 MB and take a few minutes of two cores. What is in DIRECTORY already is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_CLASS = """struct Record{n} : Base {{
  int first; double second; Record{n} *next; const char *name; int count[{size}];
  enum Kind {{ kSmall{n}, kLarge{n} }}; Kind kind;
  inline __attribute__((always_inline)) int step(int by) {{
    first += by;
    return first * {n};
  }}
  int run(int many, const char *text);
}};
int Record{n}::run(int many, const char *text) {{
  int total = 0;
  for (int at = 0; at < many; ++at) {{
    int part = step(at);
    total += part;
    if (text) total += text[at];
  }}
  return total;
}}
int call{n}(Record{n} *record) {{
  long sum = 0;
  sum += record->run({n}, record->name);
  sum += record->step({n});
  return (int)sum;
}}"""


def source(unit: int, classes: int) -> str:
    """Return the C++ of one unit."""
    parts = [
        f"namespace unit{unit}_of_a_generated_program {{",
        "struct Base { int a; long long b; virtual int f(int); };",
        *(_CLASS.format(n=n, size=n % 50 + 1) for n in range(classes)),
        "}",
    ]
    return "\n".join(parts)


def large_pdb(directory: Path, units: int, classes: int, jobs: int = 2) -> tuple[Path, Path]:
    """Return the DLL and its PDB in `directory`; compile and link what is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    dll, pdb = directory / "large.dll", directory / "large.pdb"
    if not pdb.exists():
        with ThreadPoolExecutor(jobs) as pool:
            objects = list(pool.map(lambda unit: _compiled(directory, unit, classes), range(units)))
        linked = directory / "linked.dll"
        options = ["/nologo", "/dll", "/noentry", "/debug", "/opt:noref", "/opt:noicf", "/nodefaultlib"]
        options += [
            "/force:unresolved",
            f"/out:{linked}",
            f"/pdb:{directory / 'linked.pdb'}",
            f"/pdbaltpath:{pdb.name}",
        ]
        _run(["lld-link-19", *options, *map(str, objects)])
        linked.replace(dll)
        linked.with_suffix(".pdb").replace(pdb)
        for path in objects:
            path.unlink()
    return dll, pdb


def _compiled(directory: Path, unit: int, classes: int) -> Path:
    """Return the object file of one unit."""
    out = directory / f"unit{unit}.obj"
    if not out.exists():
        text = directory / f"unit{unit}.cpp"
        text.write_text(source(unit, classes), encoding="utf-8")
        partial = out.with_suffix(".part")
        options = ["--target=x86_64-pc-windows-msvc", "-g", "-gcodeview", "-O0", "-c"]
        _run(["clang-19", *options, str(text), "-o", str(partial)])
        partial.replace(out)
        text.unlink()
    return out


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{command[0]} failed:\n{done.stderr[-2000:]}"
        raise SystemExit(message)


def main(arguments: list[str]) -> None:
    """Make the PDB and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--classes", type=int, default=3000)
    options = parser.parse_args(arguments)
    dll, pdb = large_pdb(options.directory, options.units, options.classes)
    print(f"{dll}\n{pdb}: {pdb.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
