# SPDX-License-Identifier: Apache-2.0
"""Finds plain text that each match of a regular expression contains, so that most expressions need not be compiled.

There are some hundreds of rules, and compiling them all takes longer than looking at all threads of a machine. The few
names on a stack need few of them: `_*purecall` can match only a name that contains `purecall`.

Follows the syntax of Python's `re`, as far as the rules use it: no flags, no back references, no comments.
"""

from __future__ import annotations

import re

ANYTHING = ("",)
"""The answer for an expression of which nothing is known: every text contains it."""
_TOKENS = re.compile(
    r"""(?P<text>[^][\\(){}|.^$*?+]+(?![*?+{]) | [^][\\(){}|.^$*?+] | \\[^\w])
    | (?P<class>\\\w | \[\^?\]?[^]]*\] | [.^$])
    | (?P<open>\((?:\?(?P<special>.))?)
    | (?P<close>[)|])""",
    re.VERBOSE,
)
_QUANTIFIER = re.compile(r"[*?+]\??|\{[\d,]*\}|")


def literals_of(pattern: str) -> tuple[str, ...]:
    """Return texts of which each text that `pattern` matches contains at least one."""
    return _alternatives(pattern, 0)[0]


def _alternatives(pattern: str, at: int) -> tuple[tuple[str, ...], int]:
    """Read up to the end of a group. Return the texts of all its alternatives, and where it ends."""
    texts, at = _sequence(pattern, at)
    while pattern.startswith("|", at):
        more, at = _sequence(pattern, at + 1)
        texts += more
    return texts, at


def _sequence(pattern: str, at: int) -> tuple[tuple[str, ...], int]:
    """Read one alternative. Of its parts, that one counts whose shortest text is longest."""
    best: tuple[str, ...] = ANYTHING
    run = ""
    while (token := _TOKENS.match(pattern, at)) and not token["close"]:
        at = token.end()
        texts: tuple[str, ...] = ANYTHING
        if token["open"]:
            inside, at = _alternatives(pattern, at)
            at += 1
            texts = inside if token["special"] in {None, ":"} else ANYTHING
        quantifier, at = _quantifier(pattern, at)
        if token["text"] and not quantifier:
            run += token["text"].removeprefix("\\")
            continue
        if token["text"] and quantifier.startswith("+"):
            run += token["text"].removeprefix("\\")
        elif quantifier and not quantifier.startswith("+"):
            texts = ANYTHING
        best, run = max(best, (run,), texts, key=_shortest), ""
    return max(best, (run,), key=_shortest), at


def _quantifier(pattern: str, at: int) -> tuple[str, int]:
    found = _QUANTIFIER.match(pattern, at)
    return (found[0], found.end()) if found else ("", at)


def _shortest(texts: tuple[str, ...]) -> int:
    return min(map(len, texts))
