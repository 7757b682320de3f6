# SPDX-License-Identifier: Apache-2.0
"""Opens the machine in a dump file, for the library and for `throwstack doctor`.

A crash dump is opened directly if its kernel was found through its header. For every other file Volatility searches for
the kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from throwstack.core.guard import reason_of
from throwstack.crashdump.dump_file import DumpFile
from throwstack.files.at_hand import FilesAtHand
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.opening.kernel_symbols import download_isf
from throwstack.volatility.opening.open_image import BadSymbols, CannotOpen, find_isf, open_crash_dump, open_image
from throwstack.volatility.opening.sources import Sources, paths

log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]


def isf_of(dump: DumpFile, files: FilesAtHand, progress: Progress | None = None) -> str | None:
    """Return the URL of the ISF file of the dump's kernel, or None if there is none.

    If the file is not at hand, it is made from the PDB on Microsoft's server, unless `files` says to stay offline.
    `progress` is called with a percentage and a text.
    """
    if dump.kernel is None:
        return None
    with examination():
        found = find_isf(dump.kernel.pdb)
        if found is None and not files.is_offline and download_isf(dump.kernel.pdb, progress):
            found = find_isf(dump.kernel.pdb)
        return found


def open_machine(dump: DumpFile, isf: str, files: FilesAtHand, progress: Progress | None = None) -> Machine:
    """Return the machine in a dump.

    `isf` is the URL of the ISF file of the kernel. `files` are the symbol, image and page files that the user gave.
    `progress` is called with a percentage and a text.

    Raises:
        BadSymbols: the ISF file cannot be used.
        CannotOpen: the dump's memory cannot be opened or examined.
    """
    header, kernel = dump.identity.header, dump.kernel
    if header is not None and kernel is not None and kernel.base:
        context, name = open_crash_dump(dump.path, header, kernel.base, isf, files.page_files)
    else:
        context, name = open_image(dump.path, files.page_files)
    with examination():
        sources = Sources(*paths(files.symbol_path, files.image_path), progress, is_offline=files.is_offline)
        return Machine(context, name, "throwstack", sources)


@contextmanager
def examination() -> Iterator[None]:
    """Turn an exception that concerns the machine as a whole into a `BadSymbols` or a `CannotOpen`."""
    try:
        yield
    except (LookupError, TypeError) as error:
        message = f"the ISF file is not of this kernel, or lacks what is needed: {error}"
        raise BadSymbols(message) from error
    except Exception as error:
        log.debug("the machine cannot be examined", exc_info=True)
        message = f"the machine cannot be examined: {reason_of(error)}"
        raise CannotOpen(message) from error
