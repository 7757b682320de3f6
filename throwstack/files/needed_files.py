# SPDX-License-Identifier: Apache-2.0
"""Lists the PDBs and image files that would improve the stacks of a dump, to be fetched on a machine with a network.

A PDB that is at hand is listed as well if a better one of the same identity can exist. Vendors give away PDBs with
public symbols only and keep the private ones, and a PDB that was linked with /DEBUG:FASTLINK has the rest in object
files. Microsoft gives away no better PDBs of Windows than its public ones, so those of modules in the Windows directory
are not listed.

`manifest` writes the list as `symchk /om` does, with one file in each line:
`ntdll.pdb,6192BFDB9F04442995FFCB0BE95172E12,1` (GUID and age) or `ntdll.dll,4A5BDADB13c000,1` (time stamp and
SizeOfImage). `symchk /im` reads such a list. On every symbol server the path of the file is `name/key/name`.

Names come from the dump, and people feed the list to a shell. So only names that are valid file names on every system
are listed, which rules out line ends, quotes and separators of paths. A name may contain a comma. Key and `1` contain
none, so a reader has to split a line from its end. PDBs that are at hand are not in the list that `manifest` writes: a
server that gave the lesser PDB would give it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.files.symbol_path import Identity, ImageIdentity, Say, safe_name, store_key
from throwstack.images.image import Image
from throwstack.names.symbols import SymbolKind, Symbols

_IN_WINDOWS = re.compile(r"(\\\?\?\\)?([a-z]:)?\\(windows|winnt|systemroot)\\", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A file that was not found, or of which a better one can exist.

    `identity` says which file it is, and `module` is the label of its module. `why` says what the file would give.
    """

    identity: Identity
    module: str
    why: str
    is_at_hand: bool = False
    """A file of this identity is at hand, and lacks what `why` says."""

    @property
    def manifest_line(self) -> str:
        """Return the file's line in the list: `name,key,1`."""
        return f"{self.identity.name},{store_key(self.identity)},1"


def needed_files(images: Iterable[Image], symbols: Symbols, say: Say = lambda _: None) -> tuple[NeededFile, ...]:
    """Return the files that are missing or lacking for `images`, the images in the stacks, in the order of `images`.

    Each file is listed once. If the RSDS record of an image cannot be read, its PDB is not known: then only the image's
    own file is listed, which has the record. A file whose name is not valid is left out, and `say` is called with the
    reason.
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
                say(f"a file for {module} is not in the list: {escape(name)} is not a valid file name")
    return tuple(found.values())


def files_for_variables(images: Iterable[Image], symbols: Symbols) -> tuple[NeededFile, ...]:
    """Return the PDBs with types that are not at hand for `images`, in their order.

    None is listed for modules in the Windows directory, whose PDBs with types Microsoft keeps.
    """
    wanted = (_pdb(image, symbols) for image in images if not _IN_WINDOWS.match(image.module.path))
    return tuple(file for file in wanted if file is not None and safe_name(file.identity.name) == file.identity.name)


def manifest(files: Iterable[NeededFile]) -> str:
    """Return the list as text, with one line for each file that is not at hand."""
    return "".join(f"{file.manifest_line}\n" for file in files if not file.is_at_hand)


def _pdb(image: Image, symbols: Symbols) -> NeededFile | None:
    table = symbols.table(image)
    if image.pdb is None:
        return None
    if table.kind is SymbolKind.PDB:
        if not table.missing or _IN_WINDOWS.match(image.module.path):
            return None
        return NeededFile(image.pdb, image.module.label, table.missing, is_at_hand=True)
    have = {SymbolKind.ISF: "an ISF table", SymbolKind.EXPORT: "exports"}[table.kind]
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
