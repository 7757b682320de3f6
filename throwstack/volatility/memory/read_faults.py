# SPDX-License-Identifier: Apache-2.0
"""Turns failed reads of the image or of a page file into absent pages, and counts them.

A read fails if a disk has a bad sector, a file is cut while it is read, a network share becomes unavailable, or a
compressed image is damaged. The layer that reads the file then raises OSError, or whatever its decompressor raises.
Volatility's classes (address spaces, lists, strings) and ours expect only InvalidAddressException, so one bad sector
would end a run. Therefore each layer of a context that is not an address space gets a `ReadWatch`, through which all
layers above it read.
"""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from volatility3.framework import exceptions, interfaces
from volatility3.framework.layers import intel

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape

log = logging.getLogger(__name__)

_TRIED_AGAIN = 16
"""The limit on failed reads that are tried again. A share may fail once; each read of a lost one takes a timeout."""


class ReadWatch:
    """Replaces a layer's methods `read` and `is_valid`, and counts the reads that fail."""

    def __init__(self, layer: interfaces.layers.DataLayerInterface) -> None:
        """Replace the methods `read` and `is_valid` of `layer` by those of this object."""
        self._layer = layer
        self._is_file = not isinstance(layer, interfaces.layers.TranslationLayerInterface)
        self._read, self._is_valid = layer.read, layer.is_valid
        self.failed = 0
        """How many reads failed for good: the second attempt failed as well, or was not made."""
        self.failed_once = 0
        """How many reads failed at first and succeeded when tried again."""
        self.reason = ""
        layer.read, layer.is_valid = self.read, self.is_valid

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """Return `length` bytes at `offset`; the only exception raised is InvalidAddressException.

        `pad` is passed to the layer: absent bytes are then returned as zeros.
        """
        try:
            return self._bytes(offset, length, pad)
        except _Failed as failure:
            self.reason = self.reason or str(failure)
        if self.failed < _TRIED_AGAIN:
            try:
                data = self._bytes(offset, length, pad)
            except _Failed:
                pass
            else:
                self.failed_once += 1
                return data
        self.failed += 1
        raise exceptions.InvalidAddressException(self._layer.name, offset, f"cannot be read: {self.reason}")

    def _bytes(self, offset: int, length: int, pad: bool) -> bytes:
        try:
            data: bytes = self._read(offset, length, pad)
        except exceptions.InvalidAddressException as error:
            if self._is_file and self.is_valid(offset, length):
                message = "the file has become shorter"
                raise _Failed(message) from error
            raise
        except Exception as error:  # each compression has its own ways to say that a file is damaged
            message = escape(f"{type(error).__name__}: {error}")
            raise _Failed(message) from error
        return data

    def is_valid(self, offset: int, length: int = 1) -> bool:
        """Say whether `length` bytes can be read at `offset`."""
        try:
            return bool(self._is_valid(offset, length))
        except Exception as error:  # noqa: BLE001 see above
            self.reason = self.reason or escape(f"{type(error).__name__}: {error}")
            self.failed += 1
            return False

    @property
    def problem(self) -> str:
        """Return a sentence that says how many reads failed, and why; empty if no read failed."""
        name = escape(_file_name(self._layer))
        if self.failed:
            return (
                f"{_reads(self.failed)} of {name} failed ({self.reason}): what is there counts as absent, and rows may "
                "be missing"
            )
        if self.failed_once:
            reads = _reads(self.failed_once)
            return f"{reads} of {name} failed at first ({self.reason}): its disk or share may be failing"
        return ""


def _reads(count: int) -> str:
    return "1 read" if count == 1 else f"{count} reads"


class _Failed(ThrowstackError):
    """The error that a layer could not read its file; the message says why."""


def watch_reads(context: interfaces.context.ContextInterface) -> tuple[ReadWatch, ...]:
    """Return the watches of the layers of `context` that are not address spaces; layers without a watch get one."""
    watches = []
    for name in context.layers:
        layer = context.layers[name]
        if isinstance(layer, intel.Intel):
            continue
        known = getattr(layer.read, "__self__", None)
        watches.append(known if isinstance(known, ReadWatch) else ReadWatch(layer))
    return tuple(watches)


def read_problems(context: interfaces.context.ContextInterface) -> tuple[str, ...]:
    """Return a sentence for each file of `context` that had failed reads so far."""
    return tuple(watch.problem for watch in watch_reads(context) if watch.problem)


def _file_name(layer: interfaces.layers.DataLayerInterface) -> str:
    location = layer.config.get("location", None)
    return PurePosixPath(unquote(urlsplit(str(location)).path)).name if location else str(layer.name)
