# SPDX-License-Identifier: Apache-2.0
"""Puts a program into a single-file host: takes the bundle off another program, and appends one of our own.

Such a file is a host with the runtime linked in, then the files of the bundle, then a table of them. The host finds the
table by its offset, which is in the eight bytes before a marker of 32 bytes, and the program by its name, which is in
the host in place of another marker (dotnet/runtime, docs/design/features/host-startup… and
src/native/corehost/bundle). Version 6 of the table:

    u32 major, u32 minor, i32 files, string identity
    i64 offset and size of deps.json, i64 offset and size of runtimeconfig.json, u64 flags
    for each file: i64 offset, i64 size, i64 compressed size (0: it is not), u8 type, string path

A string has its length before it, seven bits a byte.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MARKER = bytes.fromhex("8b1202b96a612038727b930214d7a03213f5b9e6efae3318ee3b2dce24b36aae")
MAJOR = 6
ASSEMBLY, DEPS_JSON, RUNTIME_CONFIG_JSON = 1, 3, 4
ALIGNMENT = 0x1000


@dataclass(frozen=True)
class Bundled:
    """A file of a bundle."""

    path: str
    data: bytes
    kind: int


def bundled_files(program: bytes) -> tuple[bytes, list[Bundled]]:
    """Return the host and the files of a single-file program. Raises ValueError when it is none of version 6."""
    try:
        table = struct.unpack_from("<q", program, program.index(MARKER) - 8)[0]
        major, _, count = struct.unpack_from("<IIi", program, table)
        if major != MAJOR:
            message = f"a bundle of version {major}"
            raise ValueError(message)
        _, at = _string(program, table + 12)
        at += 40
        files, first = [], len(program)
        for _ in range(count):
            offset, size, compressed, kind = struct.unpack_from("<qqqB", program, at)
            path, at = _string(program, at + 25)
            if not compressed:
                files.append(Bundled(path, program[offset : offset + size], kind))
            first = min(first, offset)
    except (struct.error, IndexError) as error:
        message = f"no bundle: {error}"
        raise ValueError(message) from error
    return program[:first], files


def single_file(host: bytes, old_name: str, name: str, assemblies: list[Bundled], version: str) -> bytes:
    """Return a program `name` of the assemblies, the first of which has Main, for the host of `old_name`.

    Raises ValueError when the host does not say `old_name` once.
    """
    old, new = f"{old_name}.dll".encode() + b"\0", f"{name}.dll".encode() + b"\0"
    if host.count(old) != 1:
        message = f"the host says {old_name}.dll {host.count(old)} times"
        raise ValueError(message)
    place = host.index(old)
    out = bytearray(host)
    # Zeros follow the name: the host keeps 1,024 bytes for it.
    size = max(len(old), len(new))
    out[place : place + size] = new.ljust(size, b"\0")
    files = [
        *assemblies,
        Bundled(f"{name}.deps.json", _deps(name, assemblies, version), DEPS_JSON),
        Bundled(f"{name}.runtimeconfig.json", _config(version), RUNTIME_CONFIG_JSON),
    ]
    offsets = []
    for file in files:
        out += bytes(-len(out) % ALIGNMENT)
        offsets.append(len(out))
        out += file.data
    struct.pack_into("<q", out, host.index(MARKER) - 8, len(out))
    deps, config = ((offsets[index], len(files[index].data)) for index in (-2, -1))
    out += struct.pack("<IIi", MAJOR, 0, len(files)) + _length("throwstack") + struct.pack("<4qQ", *deps, *config, 0)
    for file, offset in zip(files, offsets, strict=True):
        out += struct.pack("<qqqB", offset, len(file.data), 0, file.kind) + _length(file.path)
    return bytes(out)


def _config(version: str) -> bytes:
    framework = {"name": "Microsoft.NETCore.App", "version": version}
    options = {
        "tfm": f"net{version.rpartition('.')[0]}",
        "includedFrameworks": [framework],
        "configProperties": {"System.Globalization.Invariant": True},
    }
    return json.dumps({"runtimeOptions": options}).encode()


def _deps(name: str, assemblies: list[Bundled], version: str) -> bytes:
    target = f".NETCoreApp,Version=v{version.rpartition('.')[0]}/win-x64"
    program, pack = f"{name}/1.0.0", f"runtimepack/{version}"
    libraries = {
        program: {"runtime": {assemblies[0].path: {}}},
        pack: {"runtime": {file.path: {} for file in assemblies[1:]}},
    }
    described = {
        library: {"type": kind, "serviceable": False, "sha512": ""}
        for library, kind in ((program, "project"), (pack, "runtimepack"))
    }
    return json.dumps(
        {
            "runtimeTarget": {"name": target, "signature": ""},
            "compilationOptions": {},
            "targets": {target.partition("/")[0]: {}, target: libraries},
            "libraries": described,
        }
    ).encode()


def _string(data: bytes, at: int) -> tuple[str, int]:
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[at : at + length].decode(), at + length


def _length(text: str) -> bytes:
    encoded = text.encode()
    return bytes(_seven_bits(len(encoded))) + encoded


def _seven_bits(value: int) -> Iterator[int]:
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
