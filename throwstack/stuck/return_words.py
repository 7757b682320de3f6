# SPDX-License-Identifier: Apache-2.0
"""Finds the words on a stack that may be return addresses into a blocking function, within a limit on their number.

A hostile stack may hold millions of such words: 16 MB of it may be one physical page, mapped over and over. So of
several pages with the same contents only the first few are used. If more words remain than walks may be started from,
those words are preferred that are followed most closely by a CONTEXT, because the frame of UnhandledExceptionFilter is
a little below the saved exception.
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
"""An address on the stack and the word that is there."""

_MAX_REPEATS = 4
"""How many pages with the same contents are used. Further ones are skipped."""
_MAX_CONTEXTS = 1 << 16


def return_words(
    target: Target, ranges: CodeRanges, low: int, high: int, is_wanted: Callable[[int], bool]
) -> Iterator[StackWord]:
    """Yield (address, word) for the stack words from `low` to `high` that are in `ranges` and wanted, lowest first.

    `ranges` are the code ranges of the blocking functions. `is_wanted` decides for a word whether it is wanted, and is
    called once for each distinct word. The iteration ends when the thread's budget of suspect words is spent.
    """
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
    """Return at most `count` of the words `found` (lowest address first) from which to start a walk.

    If there are more than `count`, the result has those that are followed most closely by a possible CONTEXT below
    `high`.
    """
    if len(found) <= count:
        return found
    contexts = _contexts(target, found[0][0], high)

    def distance(word: StackWord) -> int:
        index = bisect_left(contexts, word[0])
        return contexts[index] - word[0] if index < len(contexts) else high

    return sorted(found, key=distance)[:count]


def _contexts(target: Target, low: int, high: int) -> list[int]:
    """Return the stack addresses between `low` and `high` at which a CONTEXT may start, in ascending order."""
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
