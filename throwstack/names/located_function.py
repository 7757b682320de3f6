# SPDX-License-Identifier: Apache-2.0
"""A function that is known for an address in an image: by a symbol table, or by the runtime of .NET."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from throwstack.images.image import Image


class FunctionFacts(Protocol):
    """What a symbol table knows of a function beside its name, and takes longer to find."""

    def signature(self) -> str:
        """Return the name with result, calling convention and parameters; "" if the table does not have them."""
        ...

    def others(self) -> tuple[str, ...]:
        """Return the readable names of further functions with the same code, which the linker folded into one."""
        ...


@dataclass(frozen=True, slots=True)
class LocatedFunction:
    r"""A function that a symbol table gives for an address.

    `symbol` is the readable name. `rva` is the start of the function, or None if it was inlined. `source` is file and
    line at the address, `d:\src\file.cpp @ 860`. `raw` is the name as the table spells it, decorated perhaps.
    `is_inside` says whether the address is in the function; None if the table does not know where the function ends.
    `reason` says why `symbol` of a managed method is not whole; if it is "", no name is known, and `rva` is None.
    """

    symbol: str
    rva: int | None
    source: str = ""
    raw: str = ""
    is_inside: bool | None = None
    facts: FunctionFacts | None = field(default=None, compare=False, repr=False)
    reason: str = field(default="", compare=False)


class CompiledMethods(Protocol):
    """Knows the methods of .NET whose code is in images, because it was compiled before the program ran."""

    def locate(self, image: Image, rva: int) -> LocatedFunction | None:
        """Return the method whose code is at `rva` of `image`; None if there is none, or it is not known.

        Where a part of the image is absent that would tell, the result has no symbol, but a reason.
        """
        ...
