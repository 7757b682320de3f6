# SPDX-License-Identifier: Apache-2.0
"""What the functions on a stack do in a failure: report it, carry it to the dispatcher, wait, or begin the thread.

The rules are data: `data/*.txt`, a file for each family of runtimes. The head of a file says which runtimes and which
versions it is for. Each other line is one of these:

    reports  core::panicking::.*            a role, and a pattern of functions that have it
    begins+reports  terminate               two roles at once
    helps  (ntdll|kernel32)!.*              a pattern with `!` is for `module!function`, with the module in lower case
    reports  panicking::(?!try).*           the `!` of `(?!` does not count
    # example: app!f < app!g -> app!g       a stack, innermost first, and the signature that it must get
    #     < app!h -> app!g                  a long example goes on in lines that are indented like this one
    # waiting: ntdll!NtX < app!g -> app!g   the same for the stack of a thread that waits without an exception

A pattern is a regular expression. It is matched against the whole stable name of a function
(`throwstack.names.stable_names`) without template arguments: `FindHandler<__FrameHandler4>` is matched as
`FindHandler`, `run::<lambda_1>::operator()` as `run::lambda::operator()`, and Rust's `{closure#0}` as `closure`. A
pattern with `<T>` is for names that have template arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache, lru_cache
from importlib.resources import files

from throwstack.stuck.rule_literals import literals_of


class Role(Enum):
    """What a function does on the stack of a failure. A function may have several roles, or none."""

    CARRIES = "carries"
    """It only carries an exception from the code that raises it to the dispatcher. `Thrown At` is further out."""
    REPORTS = "reports"
    """It reports a failure that its caller met. No signature contains it."""
    HANDLES = "handles"
    """It calls the handlers of an exception. A signature leaves it out where it called nothing of the program."""
    BEGINS = "begins"
    """It is called for a failure only, and so is all that it calls: a signature begins here, or with the caller."""
    HELPS = "helps"
    """A fault in it is mostly its caller's. A signature names it, and then its caller."""
    STARTS = "starts"
    """A thread or a program begins with it. No signature contains it."""
    WAITS = "waits"
    """A thread waits in it, or the process ends in it. The signature of a thread without an exception leaves it out."""


_ARGUMENTS = "<T>"
NO_ROLES: frozenset[Role] = frozenset()


@lru_cache(maxsize=1 << 14)
def roles_of(module: str, name: str) -> frozenset[Role]:
    """Return the roles of the function `name`, a stable name, of `module`, a label in lower case.

    `name` is "" for a function without a name, which can have a role by its module alone. So can a function whose
    `module` is "", that is, not known, by its name.
    """
    bare = name.replace(_ARGUMENTS, "")
    qualified = f"{module}!{bare}"
    of_names, of_modules = _rules()
    found: set[Role] = set()
    if bare:
        found.update(*(rule.roles for rule in of_names if rule.matches(bare) or rule.matches(name)))
    if module:
        found.update(*(rule.roles for rule in of_modules if rule.matches(qualified)))
    return frozenset(found)


def families() -> Iterator[tuple[str, str]]:
    """Yield name and text of each file of rules, in the order of the names."""
    for file in sorted((files("throwstack.stuck") / "data").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".txt"):
            yield file.name.removesuffix(".txt"), file.read_text("utf-8")


def rules_of(text: str) -> Iterator[tuple[frozenset[Role], str]]:
    """Yield the roles and the pattern of each rule in the text of a family."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            roles, pattern = line.split(maxsplit=1)
            yield frozenset(map(Role, roles.split("+"))), pattern.strip()


class _Rule:
    """A rule of a family. Its pattern is compiled when a name contains what a match must contain."""

    __slots__ = ("_literals", "_pattern", "roles")

    def __init__(self, roles: frozenset[Role], pattern: str) -> None:
        self.roles, self._pattern, self._literals = roles, pattern, literals_of(pattern)

    def matches(self, name: str) -> bool:
        return any(map(name.__contains__, self._literals)) and bool(_compiled(self._pattern).fullmatch(name))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@cache
def _rules() -> tuple[list[_Rule], list[_Rule]]:
    """Return the rules for names, and those for `module!function`."""
    rules = [rule for _, text in families() for rule in rules_of(text)]
    return (
        [_Rule(roles, pattern) for roles, pattern in rules if not _is_qualified(pattern)],
        [_Rule(roles, pattern) for roles, pattern in rules if _is_qualified(pattern)],
    )


def _is_qualified(pattern: str) -> bool:
    """Say whether `pattern` is for `module!function`. The mark of a look-ahead, `(?!`, is no mark of a module."""
    return "!" in pattern.replace("(?!", "")
