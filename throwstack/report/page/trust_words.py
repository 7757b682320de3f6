# SPDX-License-Identifier: Apache-2.0
"""What a page says of how frames were found, and of where names come from: the words of the reports, explained."""

from __future__ import annotations

from collections.abc import Iterable

from throwstack.core.frames import Trust
from throwstack.names.symbols import SymbolKind
from throwstack.report.frame_report import INLINE, LEFT_OUT, FrameReport
from throwstack.report.managed_report import RECORDED

_TRUST = {
    Trust.CONTEXT.value: "a saved CONTEXT or a trap frame has its registers: the walk began there",
    Trust.CFI.value: "the compiler's unwind data led to it",
    Trust.FPO.value: "the FPO data of the function that it called led to it",
    Trust.FRAME_POINTER.value: "the chain of saved frame pointers led to it, and its return address was checked",
    Trust.PROLOGUE.value: "the instructions of the function that it called were followed to find it",
    Trust.SCAN.value: "a guess: the next word on the stack that can be a return address",
    INLINE: "the compiler put this function into the one of the next frame",
    LEFT_OUT: "frames of a deep recursion, which are counted but not listed",
    RECORDED: "the exception object of .NET recorded it",
}
"""The words that say how a frame was found, in the order in which they are explained."""
_NAMES = {
    SymbolKind.PDB.value: "the name is from a PDB",
    SymbolKind.ISF.value: "the name is from a table of Volatility's",
    SymbolKind.CLR.value: "the name is from .NET's runtime and metadata",
    SymbolKind.EXPORT.value: "the name is one that the module exports",
}
"""The words that say where a name is from."""
_DOUBTFUL = "?"
_NEAREST = "the name is that of the nearest symbol before the address, and may be another function's"


def explained(frames: Iterable[FrameReport]) -> list[tuple[str, str]]:
    """Return the words of the column "Found by", as far as they occur at `frames`, each with its explanation."""
    trusts: set[str] = set()
    names: set[str] = set()
    for frame in frames:
        trusts.add(frame.trust)
        names.add(frame.symbols)
    words = [(word, text) for word, text in _TRUST.items() if word in trusts]
    words += [(word, text) for word, text in _NAMES.items() if names & {word, word + _DOUBTFUL}]
    return [*words, (_DOUBTFUL, _NEAREST)] if any(name.endswith(_DOUBTFUL) for name in names) else words
