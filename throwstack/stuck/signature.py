# SPDX-License-Identifier: Apache-2.0
"""The signature of a crash: a short text that is the same whenever the same code fails in the same way.

The rules are like those of Mozilla's crash reports. Each function of the stack that threw has one of these kinds:

- irrelevant and machinery: the function is left out;
- sentinel: the signature begins at the outermost function of this kind;
- prefix: the function is in the signature, and the next one out follows;
- any other: the function is in the signature, which ends with it.

The functions of each kind are data: data/{irrelevant,prefix,sentinel,machinery}.txt.

A signature has nothing that differs between two machines or two builds: no addresses, offsets, lines, argument lists,
template arguments. Module names are in lower case, because the loader keeps the spelling of the first one that asked
for the DLL. A frame without a symbol is named by its module alone, because RVAs change with each build. So is a frame
whose nearest export is far before it, because that export is most likely another function. A crash therefore has one
signature with a PDB and another without.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby

from throwstack.core.text import escape
from throwstack.names.stable_names import plain_name
from throwstack.names.symbols import Name, SymbolKind

MAX_PARTS = 8
"""The largest number of functions in a signature."""
MAX_LENGTH = 255
HASHED_FRAMES = 5
_MAX_EXPORT_OFFSET = 0x1000
_SEPARATOR = " | "


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of the stack as the rules see it.

    As text it is `module!name`, or `module` if no name is trusted, or `unknown` if the address is in no module.
    """

    module: str
    name: str

    def __str__(self) -> str:
        if not self.module:
            return "unknown"
        return f"{self.module}!{self.name}" if self.name else self.module


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a crash.

    `text` has the functions that name the crash, innermost first. `digest` is a hash over these and a few frames
    further out.
    """

    text: str
    digest: str

    def __str__(self) -> str:
        """Return `ftpsrvdata_pg!PrintProviderError (3f2a9c01)`."""
        return f"{self.text} ({self.digest})"


def signature(names: Sequence[Name], kind: str = "") -> Signature:
    """Make the signature of a stack.

    Args:
        names: the frames of the stack that threw, innermost first.
        kind: what was thrown (`ACCESS_VIOLATION`, `_com_error`). It goes into the hash, so that two kinds of failure in
            one function differ. Give nothing that varies, such as an address or a message.
    """
    relevant = _folded(item for item in _from_sentinel([_function(name) for name in names]) if _is_relevant(item))
    ends = (index + 1 for index, item in enumerate(relevant) if item.module and not _matches("prefix", item))
    parts = relevant[: min(next(ends, MAX_PARTS), MAX_PARTS)]
    hashed = "\n".join((kind, *map(str, relevant[:HASHED_FRAMES])))
    digest = hashlib.sha256(hashed.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return Signature(escape(_SEPARATOR.join(map(str, parts)), MAX_LENGTH) or "no relevant frames", digest)


def is_machinery(name: str) -> bool:
    """Say whether the function `name` only carries an exception to the dispatcher, as RaiseException does.

    `name` is a bare symbol or a whole label such as `KERNELBASE!RaiseException+0x53`.
    """
    module, mark, symbol = name.rpartition("!")
    bare = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    return _matches("machinery", _Function(module.lower() if mark else "", plain_name(bare)))


def thrown_at(names: Iterable[Name]) -> Name | None:
    """Return the innermost of `names` that is not exception machinery: the function in which the program threw.

    The result is None if all are machinery.
    """
    return next((name for name in names if not is_machinery(name.symbol)), None)


def _function(name: Name) -> _Function:
    far = name.kind is SymbolKind.EXPORT and name.offset >= _MAX_EXPORT_OFFSET
    return _Function(name.module.lower(), "" if far else plain_name(name.symbol))


def _from_sentinel(functions: list[_Function]) -> list[_Function]:
    """Return the functions from the outermost sentinel outwards, or all functions if none is a sentinel."""
    marks = [index for index, item in enumerate(functions) if _matches("sentinel", item)]
    return functions[marks[-1] :] if marks else functions


def _is_relevant(function: _Function) -> bool:
    return not (_matches("machinery", function) or _matches("irrelevant", function))


def _folded(functions: Iterable[_Function]) -> list[_Function]:
    """Return the functions, with adjacent repetitions (recursion) folded into one."""
    return [function for function, _ in groupby(functions)]


def _matches(table: str, function: _Function) -> bool:
    plain, qualified = _rules(table)
    if function.name and plain.fullmatch(function.name):
        return True
    return bool(function.module) and qualified.fullmatch(f"{function.module}!{function.name}") is not None


@cache
def _rules(table: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the rules of a table as two patterns: for bare function names, and for `module!function`.

    `table` is the name of a file in data/ without its extension.
    """
    text = (files("throwstack.stuck") / "data" / f"{table}.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    never = "(?!)"
    plain = [line for line in lines if "!" not in line]
    qualified = [line for line in lines if line not in plain]
    return re.compile("|".join(plain) or never), re.compile("|".join(qualified) or never)
