# SPDX-License-Identifier: Apache-2.0
"""Puts a changed module in the place of a loaded one, in a process that ends afterwards.

Where only functions are changed, as most mutants do, the loaded functions get the new code: nothing is imported anew.
A change of data, of a default argument or of a class body is seen by whoever imports the module, so that all of the
product and of the tests has to be imported again.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
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
