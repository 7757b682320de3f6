# SPDX-License-Identifier: Apache-2.0
"""Which PDBs and image files the stacks of a dump call for: what to fetch where there is a network.

`manifest` writes them as `symchk /om` does, one file a line: `ntdll.pdb,6192BFDB9F04442995FFCB0BE95172E12,1` (GUID
and age) or `ntdll.dll,4A5BDADB13c000,1` (time stamp and SizeOfImage). `symchk /im` takes the list, and name and key
are the path of the file on any symbol server: `name/key/name`.

Names come from the dump, and the list goes to a shell: a name is in it only if it can be that of a file anywhere, which
rules out line ends, quotes and separators of paths. It may hold commas: key and `1` hold none, so a line is taken
apart from its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.files.symbol_path import Identity, ImageIdentity, Say, safe_name, store_key
from throwstack.images.image import Image
from throwstack.names.symbols import SymbolKind, Symbols


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A file that is not at hand: its identity, the module it is for, and what it would give."""

    identity: Identity
    module: str
    why: str

    @property
    def manifest_line(self) -> str:
        """Return `name,key,1`."""
        return f"{self.identity.name},{store_key(self.identity)},1"


def needed_files(images: Iterable[Image], symbols: Symbols, say: Say = lambda _: None) -> tuple[NeededFile, ...]:
    """Return what is missing for `images`, those that stacks run through, each file once, in the order of `images`.

    Images without an RSDS record that can be read have no PDB to name, and then their own file is wanted for it.
    Files whose names the manifest cannot hold are left out, and `say` is told.
    """
    found: dict[tuple[str, str], NeededFile] = {}
    for image in images:
        for needed in (_pdb(image, symbols), _image(image)):
            if needed is None:
                continue
            name = needed.identity.name
            if safe_name(name) == name:
                found.setdefault((name.lower(), store_key(needed.identity)), needed)
            else:
                module = escape(needed.module)
                say(f"a file that {module} calls for is not in the list: none can be called {escape(name)}")
    return tuple(found.values())


def manifest(files: Iterable[NeededFile]) -> str:
    """Return the list as text, a line for each file."""
    return "".join(f"{file.manifest_line}\n" for file in files)


def _pdb(image: Image, symbols: Symbols) -> NeededFile | None:
    kind = symbols.table(image).kind
    if image.pdb is None or kind is SymbolKind.PDB:
        return None
    have = {SymbolKind.ISF: "an ISF table", SymbolKind.EXPORT: "exports"}[kind]
    gives = "function names (now from " + have + "), source lines"
    if image.headers is not None and image.headers.arch is Arch.X86:
        gives += ", frame data"
    return NeededFile(image.pdb, image.module.label, gives)


def _image(image: Image) -> NeededFile | None:
    headers, module = image.headers, image.module
    if headers is None:
        if not module.timestamp:
            return None
        identity = ImageIdentity(module.name, module.timestamp, module.size)
        return NeededFile(identity, module.label, "its header page cannot be read")
    directories = {
        "unwind data": headers.exception_directory if headers.arch.facts.has_function_table else (0, 0),
        "exports": headers.export_directory,
        "PDB record": headers.debug_directory,
    }
    missing = [
        name
        for name, (rva, size) in directories.items()
        if size and not image.memory.is_readable(image.base + rva, size)
    ]
    if not missing:
        return None
    identity = ImageIdentity(module.name, headers.timestamp, headers.image_size)
    return NeededFile(identity, module.label, f"its {' and '.join(missing)} cannot be read")
