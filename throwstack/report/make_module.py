# SPDX-License-Identifier: Apache-2.0
"""Makes the reports on the modules that have frames on stacks."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from itertools import islice

from throwstack.core.guard import Guard
from throwstack.core.text import escape
from throwstack.images.file_version import file_version
from throwstack.images.image import Image
from throwstack.names.symbols import SymbolKind, Symbols
from throwstack.report.frame_report import WHOLE, FrameReport
from throwstack.report.module_report import ModuleReport, NamesFrom, PdbReport
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.unwind.target import Target

_MAX_MODULES = 256
"""The limit on the modules of one process that are reported."""
_FIRST_YEAR = datetime.datetime(1990, 1, 1, tzinfo=datetime.timezone.utc)
_KINDS = {
    SymbolKind.PDB: NamesFrom.PRIVATE_PDB,
    SymbolKind.ISF: NamesFrom.ISF,
    SymbolKind.CLR: NamesFrom.EXPORT,
    SymbolKind.EXPORT: NamesFrom.EXPORT,
}


def modules_of(
    target: Target, frames: Iterable[FrameReport], now: datetime.datetime | None, *, is_kernel: bool = False
) -> Iterator[ModuleReport]:
    """Yield the modules of `target` that have frames among `frames`, in the order of the frames, each once.

    `now` is the time of the dump. A timestamp after it is no time, as in a reproducible build, which has a hash there.
    """
    seen: dict[int, Image] = {}
    for frame in frames:
        image = target.images.find(int(frame.ip))
        if image is not None:
            seen.setdefault(image.base, image)
    for image in islice(seen.values(), _MAX_MODULES):
        with Guard(lambda _: None):
            yield _made(image, target.symbols, now, is_kernel=is_kernel)


def _made(image: Image, symbols: Symbols, now: datetime.datetime | None, *, is_kernel: bool) -> ModuleReport:
    module, headers, pdb = image.module, image.headers, image.pdb
    stamp = module.timestamp or None if headers is None else headers.timestamp
    return ModuleReport(
        name=escape(module.label, WHOLE),
        base=Hexadecimal(module.base),
        size=module.size,
        symbols=_names_from(image, symbols),
        path=escape(module.path or module.name, WHOLE),
        version=file_version(image),
        timestamp=hexadecimal(stamp),
        built=None if stamp is None else _time(stamp, now),
        checksum=hexadecimal(None if headers is None else headers.checksum),
        pdb=None if pdb is None else PdbReport(escape(pdb.name, WHOLE), pdb.guid, pdb.age),
        is_kernel=is_kernel,
    )


def _names_from(image: Image, symbols: Symbols) -> NamesFrom:
    table = symbols.table(image)
    if table.kind is SymbolKind.PDB and table.missing:
        return NamesFrom.PUBLIC_PDB
    return _KINDS[table.kind] if len(table) or table.kind is SymbolKind.PDB else NamesFrom.NONE


def _time(stamp: int, now: datetime.datetime | None) -> datetime.datetime | None:
    time = datetime.datetime.fromtimestamp(stamp, tz=datetime.timezone.utc)
    return time if time > _FIRST_YEAR and (now is None or time <= now) else None
