# SPDX-License-Identifier: Apache-2.0
"""Names of functions that a test gives to addresses, certain or not."""

from __future__ import annotations

from collections.abc import Mapping

from throwstack.images.image import ImageMap
from throwstack.names.function_extent import Certainty
from throwstack.names.symbols import Name, Symbols


class GivenNames(Symbols):
    """Answers with `symbol` (of ntdll) or `module!symbol`.

    `?` after a name: it may be another function's; `??`: it seems to be another one's.
    """

    def __init__(self, images: ImageMap, names: Mapping[int, str]) -> None:
        super().__init__(images)
        self._names = names

    def name(self, address: int, *, is_return_address: bool = False) -> Name:
        given = self._names.get(address, "")
        plain = given.rstrip("?")
        sure = (Certainty.CERTAIN, Certainty.LIKELY, Certainty.DOUBTFUL)[len(given) - len(plain)]
        module, _, symbol = plain.rpartition("!")
        return Name(address, module or "ntdll", symbol, certainty=sure)
