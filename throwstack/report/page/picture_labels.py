# SPDX-License-Identifier: Apache-2.0
"""Which frames of a picture have a label, and where the labels are so that none is on another."""

from __future__ import annotations

from collections.abc import Sequence

MOST_LABELS = 40
"""The most labels on one side of a picture."""
LINE = 16.0
"""The height of a label."""
_FIRST = 14
_LAST = 8
_GUESSED = 8


def chosen(sizes: Sequence[int], guessed: Sequence[int] = (), wanted: Sequence[int] = ()) -> list[int]:
    """Return the indices of the frames that have a label, at most `MOST_LABELS`.

    `sizes` are those of all frames, innermost first. If there are too many, these are chosen: the `wanted` ones, the
    innermost, the outermost, the first of those that were `guessed`, and the largest.
    """
    count = len(sizes)
    if count <= MOST_LABELS:
        return list(range(count))
    found = dict.fromkeys(wanted[:_FIRST])
    found |= dict.fromkeys([*range(_FIRST), *range(count - _LAST, count), *guessed[:_GUESSED]])
    by_size = sorted(range(count), key=lambda index: (-sizes[index], index))
    for index in by_size:
        if len(found) >= MOST_LABELS:
            break
        found[index] = None
    return sorted(list(found)[:MOST_LABELS])


def placed(wanted: Sequence[float], height: float) -> list[float]:
    """Return heights for labels that should be at `wanted`, which ascend, at least `LINE` apart and inside `height`.

    Labels that would be on each other form a group, whose middle is where the middle of the wanted places is.
    """
    groups: list[tuple[float, int]] = []
    for y in wanted:
        total, count = y, 1
        while groups and _top(*groups[-1], height) + groups[-1][1] * LINE > _top(total, count, height):
            earlier, number = groups.pop()
            total, count = earlier + total, number + count
        groups.append((total, count))
    tops = ((_top(total, count, height), count) for total, count in groups)
    return [top + (index + 0.5) * LINE for top, count in tops for index in range(count)]


def _top(total: float, count: int, height: float) -> float:
    """Return where a group of `count` labels begins, whose wanted places have the sum `total`."""
    return max(min(total / count - count * LINE / 2, height - count * LINE), 0.0)
