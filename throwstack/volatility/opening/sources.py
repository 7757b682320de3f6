# SPDX-License-Identifier: Apache-2.0
"""The sources of names and of missing image pages: the symbol path, the image path, ISF files, the exports.

The symbol path is the option `--symbol-path`, else `symbol_path` in Volatility's settings file (`vol.json`), else the
environment variable `_NT_SYMBOL_PATH`. The image path is `--image-path`, else `image_path` in the settings file, else
`_NT_EXECUTABLE_IMAGE_PATH`. Both have WinDbg's syntax. If a file is refused, a warning says why, once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from volatility3 import cli
from volatility3.framework import constants

from throwstack.core.text import escape
from throwstack.files.image_path import ImageStore
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.files.user_cache import cache_directory
from throwstack.images.image import Image, PdbIdentity
from throwstack.names.frame_records import FrameDataSource
from throwstack.names.symbols import SymbolSource, SymbolTable, export_table, first_of
from throwstack.volatility.opening.isf import IsfSource

if TYPE_CHECKING:
    from throwstack.pdb.pdb_symbols import PdbSymbols

log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]


class Sources:
    """The symbol and image files at hand, which all processes of a dump share."""

    def __init__(
        self, symbol_path: str, image_path: str, progress: Progress | None = None, *, is_offline: bool | None = None
    ) -> None:
        """Keep the symbol path and the image path, of which an empty one is not used.

        `progress` is called with a percentage and a text. Servers are asked unless `is_offline` is true; None means
        Volatility's own setting.
        """
        self._is_offline = constants.OFFLINE if is_offline is None else is_offline
        self._said: set[str] = set()
        self._progress = progress
        self._isf = IsfSource()
        self._symbol_path = self._path(symbol_path)
        self._image_path = self._path(image_path)

    def _path(self, text: str) -> SymbolPath | None:
        if not text.strip():
            return None
        from throwstack.files.download import Downloader  # noqa: PLC0415 urllib and ssl: for those who give a path

        fetcher = None if self._is_offline else Downloader(say=self._say, progress=self._progress)
        try:
            return SymbolPath(parse_symbol_path(text, cache_directory(), self._say), fetcher=fetcher, say=self._say)
        except ValueError as error:
            self._say(f"the path {text!r} cannot be used: {error}")
            return None

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", escape(message, 512))

    @cached_property
    def _pdbs(self) -> PdbSymbols | None:
        if self._symbol_path is None:
            return None
        from throwstack.pdb.pdb_symbols import PdbSymbols  # noqa: PLC0415 for those who give a path

        return PdbSymbols(
            self._symbol_path,
            say=self._say,
            identify=self._identify,
        )

    def close(self) -> None:
        """Close the PDBs, which have no more names from now on."""
        pdbs: PdbSymbols | None = vars(self).get("_pdbs")
        if pdbs is not None:
            pdbs.close()

    @cached_property
    def image_store(self) -> ImageStore | None:
        """Return the image files at hand, or None if no image path was given."""
        return None if self._image_path is None else ImageStore(self._image_path, say=self._say)

    @cached_property
    def symbols(self) -> SymbolSource:
        """Return the source of names that is asked before the exports in memory: PDBs, then ISF tables."""
        return self._isf if self._pdbs is None else first_of(self._pdbs, self._isf)

    @property
    def symbols_at_hand(self) -> SymbolSource | None:
        """Return the source of the PDBs in directories of the symbol path, or None if there is no symbol path."""
        return None if self._pdbs is None else self._pdbs.at_hand

    @property
    def frame_data(self) -> FrameDataSource | None:
        """Return the source of x86 frame data, or None if there is no symbol path."""
        return self._pdbs

    def exports_on_disk(self, image: Image) -> SymbolTable | None:
        """Return the exports of the image's file, for an image whose exports are not in memory."""
        file = self.image_store.image(image) if self.image_store is not None else None
        return None if file is None else export_table(file)

    def _identify(self, image: Image) -> PdbIdentity | None:
        file = self.image_store.image(image) if self.image_store is not None else None
        return None if file is None else file.pdb


def paths(symbol_path: str | None, image_path: str | None) -> tuple[str, str]:
    """Return the symbol path and the image path to use, given the values of the two options (None: not given)."""
    settings = _settings()

    def in_force(given: str | None, setting: str, variable: str) -> str:
        return given if given is not None else str(settings.get(setting) or os.environ.get(variable) or "")

    return (
        in_force(symbol_path, "symbol_path", "_NT_SYMBOL_PATH"),
        in_force(image_path, "image_path", "_NT_EXECUTABLE_IMAGE_PATH"),
    )


def _settings() -> dict[str, object]:
    try:
        # The method needs no instance, and making one would set Volatility's logging up again.
        _, settings = cli.CommandLine.load_system_defaults(None, "vol.json")
    except (OSError, json.JSONDecodeError):
        return {}
    return dict(settings)
