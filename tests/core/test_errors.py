# SPDX-License-Identifier: Apache-2.0
"""Every error of the package derives from `ThrowstackError`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import throwstack
from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import MemoryUnreadable, memory_of


def defined_errors() -> dict[str, type[Exception]]:
    """Import every module of the package and return the exception classes they define, by full name."""
    for module in pkgutil.walk_packages(throwstack.__path__, "throwstack."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    return {
        f"{error.__module__}.{error.__qualname__}": error
        for error in subclasses(Exception)
        if error.__module__.startswith("throwstack.")
    }


def subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    for derived in base.__subclasses__():
        yield derived
        yield from subclasses(derived)


def test_every_error_class_derives_from_the_root():
    errors = defined_errors()
    assert "throwstack.core.memory.MemoryUnreadable" in errors
    assert [name for name, error in errors.items() if not issubclass(error, ThrowstackError)] == []


def test_one_except_clause_catches_an_error_of_any_room():
    with pytest.raises(ThrowstackError, match="memory at 0x1000 is not readable") as caught:
        memory_of({}).read(0x1000, 4)
    assert isinstance(caught.value, MemoryUnreadable)
