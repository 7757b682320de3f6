# SPDX-License-Identifier: Apache-2.0
"""Options of plugins whose numbers are read by our rule (`throwstack.core.identifiers`), not by Volatility's.

Volatility reads the integers of `IntRequirement` and of `ListRequirement(element_type=int)` with `int(text, 0)`, which
refuses `a04` and reads `0123` as nothing at all. For other classes of elements it calls the class with the text. So the
elements here have classes of their own, derived from int. What is kept is a plain int, as in a saved configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from volatility3.framework import interfaces
from volatility3.framework.configuration import requirements

from throwstack.core import identifiers


class _Number(int):
    """An integer that is read from a text by `read`, or is an integer already."""

    read: Callable[[str], int]

    def __new__(cls, given: str | int) -> _Number:  # noqa: PYI034 typing.Self came with Python 3.11
        """Return the number; raises ArgumentTypeError, whose text argparse shows, if `given` is no such number."""
        if isinstance(given, int):
            return super().__new__(cls, given)
        try:
            return super().__new__(cls, cls.read(given))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error


class _Identifier(_Number):
    read = staticmethod(identifiers.identifier)


class _Address(_Number):
    read = staticmethod(identifiers.address)


class IdentifierList(requirements.ListRequirement):  # type: ignore[misc] # Volatility's classes have no types here
    """A list of IDs of processes or threads."""

    def __init__(self, name: str, description: str) -> None:
        """Make the optional option `name`; `description` is the text of its help."""
        super().__init__(element_type=_Identifier, name=name, description=description, optional=True)

    def unsatisfied(self, context: interfaces.context.ContextInterface, config_path: str) -> dict[str, Any]:
        """Say what is wrong with the value, as Volatility does. It is a list of integers by now."""
        plain = requirements.ListRequirement(int, name=self.name, description=self.description, optional=True)
        return dict.fromkeys(plain.unsatisfied(context, config_path), self)


class AddressRequirement(interfaces.configuration.SimpleTypeRequirement):  # type: ignore[misc]
    """An address."""

    instance_type = _Address

    def __init__(self, name: str, description: str) -> None:
        """Make the optional option `name`; `description` is the text of its help."""
        super().__init__(name=name, description=description, optional=True)

    def unsatisfied(self, context: interfaces.context.ContextInterface, config_path: str) -> dict[str, Any]:
        """Say what is wrong with the value, as Volatility does. It is an integer by now."""
        plain = requirements.IntRequirement(name=self.name, description=self.description, optional=True)
        return dict.fromkeys(plain.unsatisfied(context, config_path), self)
