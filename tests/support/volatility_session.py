# SPDX-License-Identifier: Apache-2.0
"""Volatility as a library: a dump opened with the ordinary automagic, and plugins run on it in this process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import volatility3.plugins
import volatility3.symbols
from volatility3 import framework
from volatility3.framework import automagic, constants, contexts, interfaces, plugins
from volatility3.plugins.windows import pslist


class Session:
    """An opened dump. The automagic ran once, for `windows.pslist`; other plugins use the kernel that it found."""

    def __init__(self, dump: Path, config: dict[str, Any] | None = None) -> None:
        self.context = contexts.Context()
        self.context.config["automagic.LayerStacker.single_location"] = dump.resolve().as_uri()
        for key, value in (config or {}).items():
            self.context.config[key] = value
        available = automagic.available(self.context)
        chosen = automagic.choose_automagic(available, pslist.PsList)
        first = plugins.construct_plugin(self.context, chosen, pslist.PsList, "plugins", None, None)
        self.kernel_name: str = first.config["kernel"]

    @property
    def kernel(self) -> interfaces.context.ModuleInterface:
        """The kernel's module."""
        return self.context.modules[self.kernel_name]

    @property
    def kernel_layer(self) -> Any:
        """The kernel's address space."""
        return self.context.layers[self.kernel.layer_name]

    def pointer(self, symbol: str) -> int:
        """Return the pointer that a variable of the kernel holds, as an offset in the kernel's address space."""
        kernel = self.kernel
        found = kernel.object("pointer", kernel.get_symbol(symbol).address)
        return int(found) & self.kernel_layer.address_mask

    def processes(self) -> dict[int, Any]:
        """Return the EPROCESS objects by process id."""
        listed = pslist.PsList.list_processes(self.context, self.kernel_name)
        return {int(process.UniqueProcessId): process for process in listed}

    def process_layer(self, pid: int) -> Any:
        """Return a process's address space."""
        return self.context.layers[self.processes()[pid].add_process_layer()]

    def rows(self, module: ModuleType, **options: Any) -> list[dict[str, Any]]:
        """Run the plugin of a module (`volatility3.plugins.windows.dlllist`); return its rows by column name."""
        plugin = next(
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, interfaces.plugins.PluginInterface)
            and value.__module__ == module.__name__
        )
        path = f"sessions.{plugin.__name__}"
        for name, value in {"kernel": self.kernel_name, **options}.items():
            self.context.config[f"{path}.{name}"] = value
        grid = plugin(self.context, path).run()
        names = [column.name for column in grid.columns]
        rows: list[dict[str, Any]] = []
        grid.populate(lambda node, _: rows.append(dict(zip(names, node.values, strict=True))), None)
        return rows


@contextlib.contextmanager
def open_dump(dump: Path, isf_dir: Path, config: dict[str, Any] | None = None) -> Iterator[Session]:
    """Open a dump with the symbols of a directory, without network and with a cache of its own."""
    saved = constants.CACHE_PATH, constants.OFFLINE, volatility3.symbols.__path__
    with tempfile.TemporaryDirectory() as cache:
        constants.CACHE_PATH, constants.OFFLINE = cache, True
        volatility3.symbols.__path__ = [str(isf_dir.resolve()), *constants.SYMBOL_BASEPATHS]
        framework.import_files(volatility3.plugins, ignore_errors=True)
        try:
            yield Session(dump, config)
        finally:
            constants.CACHE_PATH, constants.OFFLINE, volatility3.symbols.__path__ = saved
