# SPDX-License-Identifier: Apache-2.0
"""Make the tables in throwstack/exceptions/data from the sources that maintain them. Run when a source has news.

    python tools/make_status_tables.py --impacket DIR --mingw DIR --coreclr DIR --minidump DIR

Nothing of this runs when throwstack is installed or used. The sources:

* `--impacket`: an unpacked impacket from PyPI (`pip download --no-deps impacket`). Its modules nt_errors,
  hresult_errors and system_errors are the lists of [MS-ERREF] as Python dictionaries: names and messages.
* `--mingw`: the folder `include` of mingw-w64 (Debian: mingw-w64-common). Headers in the public domain: names that
  [MS-ERREF] lacks (OLE DB, newer status codes).
* `--coreclr`: a checkout of .NET's runtime that has src/inc/corerror.xml and src/vm/rexcep.h. Numbers and symbols of
  the runtime's HRESULTs, and which exception class carries which.
* `--minidump`: a checkout of rust-minidump. Numbers and names of the fail-fast codes, and of status codes that neither
  of the first two has; both were taken from headers of the Windows SDK.
"""

from __future__ import annotations

import argparse
import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

DATA = Path(__file__).parents[1] / "throwstack" / "exceptions" / "data"
LONGEST_MESSAGE = 120
NAMESPACES = {
    "g_SystemNS": "System",
    "g_ReflectionNS": "System.Reflection",
    "g_IONS": "System.IO",
    "g_InteropNS": "System.Runtime.InteropServices",
    "g_ThreadingNS": "System.Threading",
    "g_SecurityNS": "System.Security",
    "g_CryptographyNS": "System.Security.Cryptography",
    "g_ResourcesNS": "System.Resources",
    "g_SerializationNS": "System.Runtime.Serialization",
    "g_CompilerServicesNS": "System.Runtime.CompilerServices",
    "g_CodeContractsNS": "System.Diagnostics.Contracts",
    "g_RuntimeNS": "System.Runtime",
}
NEWEST_FAST_FAIL = {77: "FAST_FAIL_KERNEL_POINTER_EXPECTED"}
"""Those of winnt.h that rust-minidump does not have yet."""
Table = dict[int, tuple[str, str]]


def main() -> None:
    """Write every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("impacket", "mingw", "coreclr", "minidump"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    options = parser.parse_args()
    tables = {
        "ntstatus": (erref(options.impacket / "impacket/nt_errors.py"), options.mingw / "ntstatus.h"),
        "hresult": (erref(options.impacket / "impacket/hresult_errors.py"), options.mingw / "oledberr.h"),
        "win32": (erref(options.impacket / "impacket/system_errors.py"), options.mingw / "winerror.h"),
    }
    prefixes = {"ntstatus": "STATUS_|DBG_|RPC_NT_", "hresult": "DB_", "win32": "ERROR_|RPC_[SX]_|WSA|EPT_S_|DNS_"}
    enums = (options.minidump / "minidump-common/src/errors/windows.rs").read_text("utf-8")
    for name, (table, header) in tables.items():
        for code, symbol in defines(header, prefixes[name]).items():
            table.setdefault(code, (symbol, ""))
        if name == "ntstatus":
            for symbol, number in re.findall(r"^    (STATUS_\w+) = (0x[0-9a-f]{8})", enums, re.MULTILINE):
                table.setdefault(int(number, 16), (symbol, ""))
        write(name, table)
    fast_fail = {int(code): name for name, code in re.findall(r"^    (FAST_FAIL_\w+) = (\d+),", enums, re.MULTILINE)}
    write("fastfail", {code: (name, "") for code, name in (NEWEST_FAST_FAIL | fast_fail).items()})
    write("clr", runtime_codes(options.coreclr))


def erref(path: Path) -> Table:
    """Return code -> (name, message) from one of impacket's modules."""
    found = runpy.run_path(str(path))["ERROR_MESSAGES"]
    return {code & 0xFFFFFFFF: (name, shorten(message)) for code, (name, message) in found.items()}


def shorten(message: str) -> str:
    """Return a message's first sentence without the closing dot; the title in braces where that has gaps to be filled.

    `{DLL Initialization Failed} Initialization of the dynamic link library %hs failed.`
    """
    title, body = re.match(r"\s*(?:\{([^}]*)\})?(.*)", message, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    for text in (body, "" if title == "EXCEPTION" else title):
        first = re.split(r"(?<=[a-z\"')])\. ", re.sub(r"\s+", " ", text).strip(), maxsplit=1)[0].rstrip(".")
        if first and "%" not in first and len(first) <= LONGEST_MESSAGE and first.isascii():
            return first
    return ""


def defines(header: Path, prefix: str) -> dict[int, str]:
    """Return value -> the first name of the `#define`s whose name begins with `prefix`."""
    found: dict[int, str] = {}
    pattern = re.compile(
        rf"^#define\s+((?:{prefix})\w+)\s+(?:\(+(?:NTSTATUS|HRESULT|DWORD)\)\s*|_HRESULT_TYPEDEF_\()?"
        r"(0x[0-9A-Fa-f]+|\d+)[uUlL]*\)*\s*$",
    )
    for line in header.read_text("latin-1").splitlines():
        match = pattern.match(line)
        if match:
            found.setdefault(int(match[2], 0) & 0xFFFFFFFF, match[1])
    return found


def runtime_codes(root: Path) -> Table:
    """Return HRESULT -> (symbol, exception classes separated by blanks) of the .NET runtime."""
    codes = {name: int(code, 16) for code, name in rows("hresult")}
    codes |= {f"HRESULT_FROM_WIN32({name})": 0x80070000 | int(code, 16) for code, name in rows("win32")}
    own: dict[int, str] = {}
    for entry in ET.parse(root / "src/inc/corerror.xml").getroot().iter("HRESULT"):  # noqa: S314 - a source we chose
        value, symbol = entry.get("NumericValue", ""), entry.findtext("SymbolicName", "").strip()
        if re.fullmatch("0x[0-9A-Fa-f]+", value):
            own.setdefault(int(value, 16) & 0xFFFFFFFF, symbol)
            codes[symbol] = int(value, 16) & 0xFFFFFFFF
        elif value in codes:
            codes[symbol] = codes[value]
    text = (root / "src/vm/rexcep.h").read_text("utf-8")
    classes: dict[int, list[str]] = {}
    for space, name, symbol in re.findall(
        r"^DEFINE_EXCEPTION\w*\(\s*(\w+),\s*(\w+),\s*\w+,\s*(\w+(?:\(\w+\))?)", text, re.MULTILINE
    ):
        if space in NAMESPACES and symbol in codes:
            known = classes.setdefault(codes[symbol], [])
            if f"{NAMESPACES[space]}.{name}" not in known:
                known.append(f"{NAMESPACES[space]}.{name}")
    wanted = sorted({*own, *classes})
    return {number: (own.get(number, ""), " ".join(classes.get(number, ()))) for number in wanted}


def rows(name: str) -> list[tuple[str, str]]:
    """Return the (code, name) pairs of a table written before."""
    lines = (DATA / f"{name}.tsv").read_text("ascii").splitlines()
    return [(line.split("\t")[0], line.split("\t")[1]) for line in lines if line[0] != "#"]


def write(name: str, table: Table) -> None:
    """Write one table, sorted by code: code in hex, name, text."""
    lines = [f"# Made by tools/{Path(__file__).name}; sources and terms in NOTICE beside this file.\n"]
    lines += [f"{code:08X}\t{symbol}\t{text}\n" for code, (symbol, text) in sorted(table.items())]
    (DATA / f"{name}.tsv").write_text("".join(lines), "ascii")


if __name__ == "__main__":
    main()
