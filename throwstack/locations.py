# SPDX-License-Identifier: Apache-2.0
"""The directories of our plugins and ISF tables: in the installed package, or at the root of a checkout."""

from __future__ import annotations

from pathlib import Path

from throwstack.core.errors import ThrowstackError

_PACKAGE = Path(__file__).resolve().parent


class NotInstalled(ThrowstackError, LookupError):
    """A directory of the installation is missing; the message names it."""


def plugin_directory() -> Path:
    """Return the directory that `vol -p` takes; raises `NotInstalled` if it is missing."""
    return _first(_PACKAGE / "plugins", _PACKAGE.parent / "plugins", holding="windows/unhandled.py")


def isf_directory() -> Path:
    """Return the directory that `vol -s` takes; raises `NotInstalled` if it is missing."""
    return _first(_PACKAGE / "isf", _PACKAGE.parent / "symbols", holding="windows/throwstack-wow64.json")


def _first(*directories: Path, holding: str) -> Path:
    for directory in directories:
        # site-packages/plugins, beside an installed throwstack, may be another project's. So a file of ours decides.
        if (directory / holding).is_file():
            return directory
    message = f"{holding} is in none of {', '.join(map(str, directories))}: reinstall throwstack"
    raise NotInstalled(message)
