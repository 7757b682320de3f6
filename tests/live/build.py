# SPDX-License-Identifier: Apache-2.0
"""Builds the crashing programs: mingw gcc, and clang for the MSVC ABI with PDBs, each for x64 and x86.

A build is a directory: the programs and DLLs of `SOURCES` and, from clang, the PDBs in SymSrv layout under `pdb/`.
clang needs no SDK: the import libraries are made here from the names that the programs use.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pefile

PROGRAMS = Path(__file__).parent / "programs"
CLANG_VERSION = "19"


@dataclass(frozen=True)
class Build:
    """One compiler configuration. `label` names it in the tables, `flags` are the compiler's."""

    label: str
    is_64bit: bool
    compiler: str
    flags: tuple[str, ...]

    @property
    def has_pdb(self) -> bool:
        """Say whether the compiler writes PDBs."""
        return self.compiler == "clang"

    @property
    def has_throw(self) -> bool:
        """Say whether its C++ exceptions are Windows exceptions: gcc unwinds by DWARF on x86."""
        return self.compiler == "clang" or self.is_64bit


X64_BUILDS = (
    Build("gcc-O0", True, "gcc", ("-O0",)),
    Build("gcc-O2", True, "gcc", ("-O2",)),
    Build("clang-O0", True, "clang", ("-O0",)),
    Build("clang-O2", True, "clang", ("-O2",)),
)
X86_BUILDS = (
    Build("gcc-O0", False, "gcc", ("-O0",)),
    Build("gcc-O2", False, "gcc", ("-O2", "-fomit-frame-pointer")),
    Build("clang-O0", False, "clang", ("-O0",)),
    Build("clang-O2", False, "clang", ("-O2", "-fomit-frame-pointer")),
    Build("clang-O2-fp", False, "clang", ("-O2", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")),
)

# What the programs import, with the number of argument words (x86 decorates stdcall names with their size).
IMPORTS = {
    "kernel32.dll": {
        "AddVectoredExceptionHandler": 2,
        "ConvertThreadToFiber": 1,
        "CreateEventA": 4,
        "CreateFiber": 3,
        "CreateThread": 6,
        "ExitProcess": 1,
        "FreeLibrary": 1,
        "GetCommandLineA": 0,
        "GetCurrentThreadId": 0,
        "InitializeCriticalSection": 1,
        "EnterCriticalSection": 1,
        "LeaveCriticalSection": 1,
        "GetModuleHandleA": 1,
        "GetProcAddress": 2,
        "LoadLibraryA": 1,
        "OpenProcess": 3,
        "RaiseException": 4,
        "RtlPcToFileHeader": 2,
        "SetThreadStackGuarantee": 1,
        "SetUnhandledExceptionFilter": 1,
        "Sleep": 1,
        "SwitchToFiber": 1,
        "VirtualAlloc": 4,
        "VirtualFree": 3,
        "VirtualProtect": 4,
        "WaitForSingleObject": 2,
    },
    "msvcrt.dll": {"memset": None, "memcpy": None, "_except_handler3": None},
    "ntdll.dll": {"__chkstk": None, "_chkstk": None, "__C_specific_handler": None},
    "vcruntime140.dll": {"__CxxFrameHandler3": None},
}
ONLY_X86 = {"_chkstk", "_except_handler3"}
ONLY_X64 = {"__chkstk", "__C_specific_handler"}

COMMON = ("truth.c", "shapes.c")
SOURCES = {
    "crash.exe": ("crash.c", "faults.c", "filters.c", "deadlock.c", *COMMON),
    "throw.exe": ("throw.cpp", *COMMON),
    "rough.exe": (
        *("rough.c", "generated.c", "hooks.c", "strayed.c", "cold.c", "handlers.c", "faults.c", "filters.c"),
        *COMMON,
    ),
    "values.exe": ("values.c", "faults.c", "filters.c", *COMMON),
    "gone.dll": ("gone.c",),
    "ladder.dll": ("ladder.c",),
    "mscoree.dll": ("mscoree.c",),
}
# Where nothing else is put once it is unloaded: gcc's linker chooses such a place itself.
BASE_OF_GONE = 0x68000000


def build(config: Build, out: Path) -> Path:
    """Build all programs of a configuration into `out`; return it. Raises CalledProcessError."""
    out.mkdir(parents=True, exist_ok=True)
    for product, sources in SOURCES.items():
        if product == "throw.exe" and not config.has_throw:
            continue
        if config.compiler == "gcc":
            _build_gcc(config, product, sources, out)
        else:
            _build_clang(config, product, sources, out)
    return out


def build_sleeper(out: Path) -> Path:
    """Build the program that AeDebug starts."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "sleeper.exe"
    _run("x86_64-w64-mingw32-gcc-posix", "-O2", "-o", str(path), str(PROGRAMS / "sleeper.c"))
    return path


def _build_gcc(config: Build, product: str, sources: tuple[str, ...], out: Path) -> None:
    prefix = "x86_64" if config.is_64bit else "i686"
    is_cpp = any(name.endswith(".cpp") for name in sources)
    driver = f"{prefix}-w64-mingw32-{'g++' if is_cpp else 'gcc'}-posix"
    objects = [_compile_gcc(prefix, config, PROGRAMS / name, out) for name in sources]
    objects += _assembled(config, sources, out)
    options = ["-static", "-Wl,--no-insert-timestamp", "-Wl,--nxcompat", "-s"]
    if product.endswith(".dll"):
        options.append("-shared")
    if is_cpp:
        options.append("-Wl,--wrap=__cxa_throw")
    _run(driver, *config.flags, "-o", str(out / product), *map(str, objects), *options)


def _compile_gcc(prefix: str, config: Build, source: Path, out: Path) -> Path:
    is_cpp = source.suffix == ".cpp"
    driver = f"{prefix}-w64-mingw32-{'g++' if is_cpp else 'gcc'}-posix"
    target = out / f"{source.stem}.o"
    standard = "-std=gnu++17" if is_cpp else "-std=gnu11"
    _run(driver, standard, *config.flags, "-c", str(source), "-o", str(target))
    return target


def _assembled(config: Build, sources: tuple[str, ...], out: Path) -> list[Path]:
    """Assemble the hand-written functions, with clang for both compilers: gcc's assembler knows no chained data."""
    if not config.is_64bit or "shapes.c" not in sources:
        return []
    target = out / "chained.o"
    source = PROGRAMS / "chained.s"
    _run(f"clang-{CLANG_VERSION}", "--target=x86_64-pc-windows-msvc", "-c", str(source), "-o", str(target))
    return [target]


def _build_clang(config: Build, product: str, sources: tuple[str, ...], out: Path) -> None:
    objects = [_compile_clang(config, PROGRAMS / name, out) for name in sources]
    objects += _assembled(config, sources, out)
    libraries = [_import_library(dll, config.is_64bit, out) for dll in IMPORTS]
    pdb = out / f"{Path(product).stem}.pdb"
    options = ["/dll", "/noentry"] if product.endswith(".dll") else ["/subsystem:console", "/entry:main"]
    if product == "gone.dll":
        options.append(f"/base:{BASE_OF_GONE:#x}")
    if not config.is_64bit:
        options.append("/safeseh:no")
    _run(
        f"lld-link-{CLANG_VERSION}", "/nologo", "/Brepro", "/debug", "/opt:noref", "/opt:noicf", "/nodefaultlib",
        *options, f"/out:{out / product}", f"/pdb:{pdb}", "/pdbaltpath:%_PDB%", *map(str, objects + libraries),
    )  # fmt: skip
    _place_pdb(out / product, pdb, out / "pdb")


def _compile_clang(config: Build, source: Path, out: Path) -> Path:
    target = out / f"{source.stem}.obj"
    triple = f"{'x86_64' if config.is_64bit else 'i686'}-pc-windows-msvc"
    options = ["-std=gnu11"]
    if source.suffix == ".cpp":
        options = ["-std=gnu++17", "-fexceptions", "-fcxx-exceptions"]
    _run(
        f"clang-{CLANG_VERSION}", f"--target={triple}", "-fms-extensions", "-fms-compatibility", "-g", "-gcodeview",
        "-fasynchronous-unwind-tables", "-ffreestanding", "-D__GNUC_STDC_INLINE__", *options, *config.flags,
        "-c", str(source), "-o", str(target),
    )  # fmt: skip
    return target


def _import_library(dll: str, is_64bit: bool, out: Path) -> Path:
    """Make an import library from names alone."""
    unwanted = ONLY_X86 if is_64bit else ONLY_X64
    names = [
        name if words is None or is_64bit else f"{name}@{words * 4}"
        for name, words in IMPORTS[dll].items()
        if name not in unwanted
    ]
    definition = out / f"{dll}.def"
    definition.write_text(f"LIBRARY {dll}\nEXPORTS\n" + "".join(f"{name}\n" for name in names))
    library = out / f"{dll}.lib"
    machine = "i386:x86-64" if is_64bit else "i386"
    _run(f"llvm-dlltool-{CLANG_VERSION}", "-m", machine, "-k", "-d", str(definition), "-l", str(library))
    return library


def _place_pdb(image: Path, pdb: Path, store: Path) -> None:
    """Move a PDB to where a symbol server would keep it: `name/GUIDage/name`."""
    with pefile.PE(str(image), fast_load=True) as pe:
        pe.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_DEBUG"]])
        entry = next(e.entry for e in pe.DIRECTORY_ENTRY_DEBUG if e.entry and e.entry.name == "CV_INFO_PDB70")
        identity = entry.Signature_String
    target = store / pdb.name / identity / pdb.name
    target.parent.mkdir(parents=True, exist_ok=True)
    pdb.replace(target)


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        message = f"{result.stdout}{result.stderr}\nexit code {result.returncode} of {' '.join(command)}"
        raise RuntimeError(message)
