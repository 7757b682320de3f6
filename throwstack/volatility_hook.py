# SPDX-License-Identifier: Apache-2.0
"""Lets plain `vol` find our plugins: adds their directory to `volatility3.plugins.__path__`.

Volatility looks for plugins in this path only, and has no entry points. We could install files below `volatility3/` in
site-packages, but that breaks a volatility3 that is installed editable: Python would find the directory with our files
before the real package.

So the wheel brings `throwstack.pth` (in `distribution/` of a checkout), a line of code that Python runs at every start.
It puts a finder at the head of `sys.meta_path`, which calls `find_spec` here if `volatility3.plugins` is imported and
does nothing for all other modules. If anything fails, `vol` works without our plugins. docs/security.md says what this
means for other programs.
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
    """Add the directory of our plugins to the end of the path of `plugins` (`volatility3.plugins`), unless it is there.

    The list is changed in place, because `volatility3.framework.constants.PLUGINS_PATH` is the same list, and `vol -p`
    makes a new path from that constant.
    """
    path, directory = plugins.__path__, str(plugin_directory())
    if isinstance(path, list) and directory not in path:
        path.append(directory)


def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Find `volatility3.plugins` with the other finders, and give it a loader that also calls `extend`."""
    for finder in sys.meta_path:
        if getattr(finder, "__name__", "") == "ThrowstackPlugins":  # our own; two if two site directories have us
            continue
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find else None
        if spec is not None:
            if spec.loader is not None:  # it is None for a namespace package, which is not Volatility's
                spec.loader = _ExtendingLoader(spec.loader)
            return spec
    return None


class _ExtendingLoader(Loader):
    """Loads a package with the loader given and then calls `extend`. The package keeps the given loader."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        if name == "_loader":  # copy.copy asks for attributes before `_loader` is set
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
