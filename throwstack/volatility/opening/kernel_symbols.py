# SPDX-License-Identifier: Apache-2.0
"""Gets the kernel's symbols from Microsoft's server, converts them with Volatility, and keeps them in the user's cache.

Volatility writes a converted file into the first symbol directory that it can write to, and under its final name from
the start. So Volatility is given a private directory, and the finished file is renamed into the cache. In this way no
symbol directory of the user is written to, and no other run reads an unfinished file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import volatility3.symbols
from volatility3.framework import contexts
from volatility3.framework.symbols.windows import pdbutil

from throwstack.core.text import escape
from throwstack.files.cache_files import private_directory, put
from throwstack.files.user_cache import cache_directory, distrust, make_private
from throwstack.images.image import PdbIdentity
from throwstack.volatility.opening.isf import is_safe_name

log = logging.getLogger(__name__)


def isf_cache() -> Path:
    """Return the directory with the ISF files that were made here; it need not exist."""
    return cache_directory() / "isf"


def download_isf(pdb: PdbIdentity, progress: Callable[[float, str], None] | None = None) -> bool:
    """Fetch the PDB of a kernel and keep its ISF file in `isf_cache`; return whether that succeeded.

    `pdb` is the name, GUID and age of the PDB. `progress` is called with a percentage and a text.
    """
    cache = isf_cache()
    relative = Path(pdb.isf_path)
    if not is_safe_name(pdb.name):
        return False
    saved = volatility3.symbols.__path__
    try:
        make_private(cache_directory())
        if distrust(cache_directory()) is not None:
            return False
        with private_directory(cache) as directory:
            volatility3.symbols.__path__ = [str(directory)]
            pdbutil.PDBUtility.download_pdb_isf(contexts.Context(), pdb.guid, pdb.age, pdb.name, progress)
            made = directory / relative
            if not made.is_file():
                return False
            put(made, cache / relative, cache)
    except Exception as error:  # noqa: BLE001 a server's answer and its conversion fail in many ways
        log.warning("the kernel's symbols cannot be fetched: %s", escape(f"{type(error).__name__}: {error}", 512))
        return False
    finally:
        volatility3.symbols.__path__ = saved
    return True
