# SPDX-License-Identifier: Apache-2.0
"""Puts a changed module in the place of a loaded one, in a process that ends afterwards.

Where only functions are changed, as most mutants do, the loaded functions get the new code: nothing is imported anew.
Where a private name of the module is changed that only its functions use, the name is assigned again. Any other change
is seen by whoever imports the module, so that all of the product and of the tests has to be imported again.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import CO_OPTIMIZED
from types import CodeType, FunctionType, ModuleType

from tests.support.vol import CHECKOUT


def compiled(path: str, tree: ast.Module) -> CodeType:
    """Return the code of the module at `path` (relative to the checkout) with the syntax tree `tree`."""
    return compile(tree, str(CHECKOUT / path), "exec")


def loaded_functions(path: str) -> list[FunctionType]:
    """Return all functions there are of the module at `path`: also methods, and those that decorators hide."""
    file = str(CHECKOUT / path)
    return [each for each in gc.get_objects() if isinstance(each, FunctionType) and each.__code__.co_filename == file]


def swap_functions(functions: Sequence[FunctionType], old: CodeType, new: CodeType) -> bool:
    """Give `functions`, all of a module, their code in `new`, that of the changed module.

    Returns False, and changes nothing, if more is changed than functions: `old` is the code of the module as it was.
    """
    before, after = dict(_parts(old)), dict(_parts(new))
    for name, code in before.items():
        is_body = not code.co_flags & CO_OPTIMIZED  # of the module, or of a class
        if is_body and (name not in after or _own(code) != _own(after[name])):
            return False
    codes = [after.get(_name(each.__code__)) for each in functions]
    for function, code in zip(functions, codes, strict=True):
        if code is None or code.co_freevars != function.__code__.co_freevars:
            return False
    for function, code in zip(functions, codes, strict=True):
        function.__code__ = code
    return True


def _parts(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    yield _name(code), code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


def _name(code: CodeType) -> tuple[str, int]:
    return getattr(code, "co_qualname", code.co_name), code.co_firstlineno


def _own(code: CodeType) -> tuple[object, ...]:
    """Return what makes a code without the functions in it."""
    constants = [repr(each) for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_code, constants, code.co_names, code.co_varnames


@dataclass(frozen=True)
class Assignments:
    """What has to be run again in a module for a change of its data: `code`. `lines` are those that use the data."""

    code: CodeType
    lines: frozenset[int]


def assignments(path: str, old: ast.Module, new: ast.Module) -> Assignments | None:
    """Return how the module at `path` gets from the tree `old` to `new` by assigning private names again.

    Names whose values are made from these are assigned again too. The result is None if more is changed, or if the
    names are used where a function or a class is defined (as default values are).
    """
    at = next(
        (at for at, pair in enumerate(zip(old.body, new.body, strict=True)) if len({*map(ast.dump, pair)}) > 1), None
    )
    if at is None:
        return None
    again, names, lines = [new.body[at]], {_assigned(new.body[at])}, set()
    for statement in old.body[at + 1 :]:
        inside = {id(node) for body in _bodies(statement) for part in body for node in ast.walk(part)}
        uses = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in names]
        lines |= {node.lineno for node in uses if id(node) in inside}
        if all(id(node) in inside for node in uses):
            continue
        names.add(_assigned(statement))
        again.append(statement)
    if None in names:
        return None
    return Assignments(compiled(path, ast.Module(again, [])), frozenset(lines))


def _assigned(statement: ast.stmt) -> str | None:
    """Return the private name that a statement gives a value, or None if it does anything else."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""
    return name if name.startswith("_") and not name.startswith("__") else None


def _bodies(statement: ast.stmt) -> list[list[ast.stmt]]:
    """Return the bodies of the functions in a statement, which run later than the statement."""
    return [node.body for node in ast.walk(statement) if isinstance(node, ast.FunctionDef)]


def import_again_with(path: str, code: CodeType) -> None:
    """Forget all modules of the product and of the tests. The one at `path` will be imported from `code`."""
    forget_product()
    sys.meta_path.insert(0, _Replacing(path.removesuffix(".py").replace("/", "."), code))


def forget_product() -> None:
    """Let all modules of the product and of the tests be imported again when they are next asked for."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"throwstack", "tests"}]:
        del sys.modules[name]


class _Replacing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a code object."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, origin=self._code.co_filename) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)
