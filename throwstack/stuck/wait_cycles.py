# SPDX-License-Identifier: Apache-2.0
"""Cycles of waits: deadlocks. Example: thread 1 waits for thread 2, which waits for 3, which waits for 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Node = TypeVar("Node")

_NODE_LIMIT = 1 << 17


class WaitCycles(Generic[Node]):
    """Finds cycles of waits. Results are remembered, so that `waits_for` is called once for each node."""

    def __init__(self, waits_for: Callable[[Node], Iterable[Node]]) -> None:
        """`waits_for` returns the nodes that a node waits for."""
        self._waits_for = waits_for
        self._found: dict[Node, tuple[tuple[Node, ...], int]] = {}
        """For each node explored so far: the cycle that it is in or that its waits lead to, and an index in the cycle.

        The cycle is () if there is none. The index says at which node of the cycle the waits of the node enter it.
        """

    def of(self, start: Node) -> tuple[Node, ...]:
        """Return the cycle that `start` is in or that its waits lead to. In the result, each node waits for the next.

        The last node waits for the first. The first node is the one where the waits of `start` enter the cycle. The
        result is empty if there is no cycle, or none among the first 131,072 nodes.
        """
        if start not in self._found:
            self._explore(start)
        nodes, first = self._found.get(start, ((), 0))
        return (*nodes[first:], *nodes[:first])

    def _explore(self, start: Node) -> None:
        path = {start: iter(self._waits_for(start))}
        while path and len(self._found) + len(path) < _NODE_LIMIT:
            current = next(reversed(path))
            node = next(path[current], None)
            if node is None:
                del path[current]
                self._found[current] = (), 0
            elif node in path:
                nodes = list(path)
                entry = nodes.index(node)
                cycle = tuple(nodes[entry:])
                self._found.update((inner, (cycle, index)) for index, inner in enumerate(cycle))
                self._found.update((outer, (cycle, 0)) for outer in nodes[:entry])
                return
            elif node not in self._found:
                path[node] = iter(self._waits_for(node))
            elif self._found[node][0]:
                self._found.update((outer, self._found[node]) for outer in path)
                return
