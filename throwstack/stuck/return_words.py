# SPDX-License-Identifier: Apache-2.0
"""Words of a stack that may be return addresses into a blocking function: found one by one, within the budget.

A stack may hold millions of them. They are never kept all at once, a page that comes again counts a few times only,
and where more are left than can be walked from, those go first after which a CONTEXT follows soonest: the filter's
frame is a little below what was saved of the exception.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from throwstack.core.memory import PAGE_SIZE
from throwstack.core.stack_words import CodeRanges, pages_between
from throwstack.dispatch.context_scan import context_offsets
from throwstack.unwind.target import Target

_REPEATED = "its stack is one page over and over, with words that lead into a blocking function: most were left out"

StackWord = tuple[int, int]
"""A stack address and the word there."""

_MAX_REPEATS = 4
"""How often a page with the same contents counts: what is more is one physical page, mapped over and over."""
_MAX_CONTEXTS = 1 << 16


def return_words(
    target: Target, ranges: CodeRanges, low: int, high: int, is_wanted: Callable[[int], bool]
) -> Iterator[StackWord]:
    """Yield the wanted ones of the words in `ranges` between the stack addresses `low` and `high`, lowest first."""
    meter, size = target.meter, target.arch.pointer_size
    budget = meter.budgets.suspects
    repeats: dict[bytes, int] = {}
    verdicts: dict[int, bool] = {}
    for page_address, page in pages_between(target.memory, low, high):
        offsets = ranges.offsets(page) if page is not None else ()
        if page is None or not offsets:
            continue
        repeats[page] = repeats.get(page, 0) + 1
        is_repeated = repeats[page] > _MAX_REPEATS
        for offset in offsets:
            address = page_address + offset
            if not low <= address < high:
                continue
            if not is_repeated and not meter.take(budget):
                return
            word = int.from_bytes(page[offset : offset + size], "little")
            known = verdicts.get(word)
            if known is None:
                known = verdicts[word] = is_wanted(word)
            if known and is_repeated:
                meter.say(_REPEATED)
                break
            if known:
                yield address, word


def most_promising(target: Target, found: Sequence[StackWord], count: int, high: int) -> Sequence[StackWord]:
    """Return the `count` of the places `found` to walk from, the most promising first.

    All of them, lowest first, if there are no more; otherwise those that a CONTEXT below `high` follows soonest.
    """
    if len(found) <= count:
        return found
    contexts = _contexts(target, found[0][0], high)

    def distance(word: StackWord) -> int:
        index = bisect_left(contexts, word[0])
        return contexts[index] - word[0] if index < len(contexts) else high

    return sorted(found, key=distance)[:count]


def _contexts(target: Target, low: int, high: int) -> list[int]:
    """Return the stack addresses of what may be CONTEXTs, in order."""
    known: dict[bytes, tuple[int, ...]] = {}
    found: list[int] = []
    for address, page in pages_between(target.memory, low, high):
        if page is None:
            continue
        if page not in known:
            if len(known) * PAGE_SIZE > 1 << 20:
                known.clear()
            known[page] = tuple(context_offsets(page, target.arch))
        found += [address + offset for offset in known[page] if address + offset >= low]
        if len(found) > _MAX_CONTEXTS:
            break
    return found
