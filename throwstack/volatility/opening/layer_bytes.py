# SPDX-License-Identifier: Apache-2.0
"""A Volatility layer in the form in which `throwstack.crashdump` reads files."""

from __future__ import annotations

from volatility3.framework import exceptions, interfaces


class LayerBytes:
    """The contents of a Volatility layer, in the form that `throwstack.crashdump` reads."""

    def __init__(self, layer: interfaces.layers.DataLayerInterface) -> None:
        """Keep `layer`, whose addresses are offsets in a file."""
        self._layer = layer
        self.size: int = layer.maximum_address + 1

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`: fewer than `size` at the end of the file, none after it."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        try:
            data: bytes = self._layer.read(offset, size)
        except exceptions.InvalidAddressException:
            return b""
        return data
