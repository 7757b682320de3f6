# SPDX-License-Identifier: Apache-2.0
"""Lets plain `vol` find our plugins: adds their directory to the path of `volatility3.plugins`.

Volatility looks for plugins in `volatility3.plugins.__path__` and nowhere else, and knows no entry points. Files of
ours below `volatility3/` in site-packages would do, but they break a volatility3 that is installed editable: the
directory they are in is found ahead of the real package.

So the wheel brings `throwstack.pth` (`distribution/` in the checkout), a line that Python runs at every start. It puts
a finder at the head of `sys.meta_path` that answers for `volatility3.plugins` only, by `find_spec` here. Whatever fails
leaves the `vol` that would be there without us. docs/security.md says what this means for other programs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

from throwstack.locations import plugin_directory


def extend(plugins: ModuleType) -> None:
    """Add our plugins to the package `volatility3.plugins`, after its own; once, however often it is called.

    The list is changed in place: it is `volatility3.framework.constants.PLUGINS_PATH` too, from which `vol -p` makes
    the path anew.
    """
    path, directory = plugins.__path__, str(plugin_directory())
    if isinstance(path, list) and directory not in path:
        path.append(directory)


def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Return what the other finders find for `volatility3.plugins`, with a loader that calls `extend`."""
    for finder in sys.meta_path:
        if getattr(finder, "__name__", "") == "ThrowstackPlugins":  # ours, more than once where two sites have us
            continue
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find else None
        if spec is not None:
            if spec.loader is not None:  # a namespace package: not Volatility's
                spec.loader = _ExtendingLoader(spec.loader)
            return spec
    return None


class _ExtendingLoader(Loader):
    """The package's loader, but for what it does last; it leaves the package with its own loader."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        if name == "_loader":  # not set yet: a copy is being made
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with suppress(Exception):
            extend(module)
