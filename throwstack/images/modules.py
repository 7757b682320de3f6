# SPDX-License-Identifier: Apache-2.0
"""The modules of a process or of the kernel, and the look-up of the module that holds an address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded image: its file name and full path as the loader recorded them, its base address and its size in bytes.

    `name` includes the extension (`KERNEL32.dll`). `label` is the form used before the `!` of a symbol (`KERNEL32`).
    """

    name: str
    path: str
    base: int
    size: int
    timestamp: int = 0
    """The image's time stamp, from the loader's entry for the module; 0 if it is not known."""

    @property
    def label(self) -> str:
        """Return the module's name as WinDbg prints it: `KERNEL32`, `iftpsvc`; dots and dashes become `_`."""
        return label_of(self.name)

    def contains(self, address: int) -> bool:
        """Say whether `address` is in the image."""
        return self.base <= address < self.base + self.size


@lru_cache(maxsize=1024)
def label_of(name: str) -> str:
    """Return the label of the module whose file is called `name`: `shop` for `shop.dll`."""
    stem, dot, extension = name.rpartition(".")
    label = stem if dot and extension.lower() in _IMAGE_EXTENSIONS else name
    return "".join(c if c.isalnum() or c == "_" else "_" for c in label)


_IMAGE_EXTENSIONS = frozenset({"dll", "exe", "sys", "ocx", "drv", "cpl", "scr", "ax", "tmp"})


class ModuleMap:
    """The modules of one address space, looked up by address. If modules overlap, the one with the higher base wins."""

    __slots__ = ("_bases", "_modules")

    def __init__(self, modules: Iterable[Module]) -> None:
        """`modules` may be in any order."""
        self._modules = sorted(modules, key=lambda module: module.base)
        self._bases = [module.base for module in self._modules]

    def __iter__(self) -> Iterator[Module]:
        """Yield the modules in address order."""
        return iter(self._modules)

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def find(self, address: int) -> Module | None:
        """Return the module that holds `address`, or None."""
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        module = self._modules[index]
        return module if address < module.base + module.size else None

    def before(self, address: int) -> Module | None:
        """Return the last module that begins at or before `address`, or None."""
        index = bisect_right(self._bases, address) - 1
        return None if index < 0 else self._modules[index]

    def room(self, module: Module) -> int:
        """Return the number of bytes from the begin of `module` to the begin of the next one."""
        index = bisect_right(self._bases, module.base)
        return (self._bases[index] if index < len(self._bases) else 1 << 64) - module.base
