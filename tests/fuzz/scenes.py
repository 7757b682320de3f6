# SPDX-License-Identifier: Apache-2.0
"""Forged dumps opened through Volatility, with a physical memory that mutants can change."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import volatility3.symbols
from volatility3.framework import exceptions, interfaces
from volatility3.framework.layers import intel

from tests.forge.__main__ import forge, with_paging
from tests.forge.cases import Case, builders
from tests.forge.describe import Paging, Region, Residency
from tests.forge.layouts import CARRIED
from tests.forge.physical import PAGE
from tests.fuzz.atlas import Atlas
from tests.fuzz.recording import recorded
from tests.fuzz.verdicts import CHECKOUT
from tests.support.volatility_session import Session, open_dump
from throwstack.images import image as images
from throwstack.volatility.opening import isf

PLUGINS = ("unhandled", "cxrstack", "stackwalk")
_SPARE = 0x100000
"""The first frame of pages that mutants bring into being."""


class ChangedMemory(interfaces.layers.DataLayerInterface):
    """Physical memory in a dictionary, with the changes of a mutant laid over it; a page that is None is gone."""

    def __init__(self, context: Any, path: str, name: str, pages: Mapping[int, bytes]) -> None:
        super().__init__(context, path, name)
        self._pages = pages
        self.changes: dict[int, bytes | None] = {}

    @property
    def minimum_address(self) -> int:
        """The first address."""
        return 0

    @property
    def maximum_address(self) -> int:
        """The last address."""
        return (_SPARE + 0x1000) * PAGE - 1

    def page(self, number: int) -> bytes | None:
        """Return a page by its frame number, changed or not."""
        return self.changes[number] if number in self.changes else self._pages.get(number)

    def is_valid(self, offset: int, length: int = 1) -> bool:
        """Say whether all pages of a range are there."""
        return all(
            self.page(number) is not None for number in range(offset // PAGE, (offset + max(length, 1) - 1) // PAGE + 1)
        )

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """Return bytes, as Volatility's layers do."""
        data = bytearray()
        while len(data) < length:
            at = offset + len(data)
            page = self.page(at // PAGE) if at >= 0 else None
            if page is None:
                if not pad:
                    raise exceptions.InvalidAddressException(self.name, at, f"no page at {at:#x}")
                page = bytes(PAGE)
            data += page[at % PAGE : at % PAGE + length - len(data)]
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Refuse: mutants are made otherwise."""
        raise NotImplementedError


@dataclass
class Scene:
    """A case, opened: its pieces, its memory, and Volatility's session."""

    name: str
    case: Case
    atlas: Atlas
    session: Session
    memory: ChangedMemory
    symbol_path: list[str]

    @property
    def pids(self) -> frozenset[int]:
        """The processes of the machine."""
        return frozenset(process.pid for process in self.atlas.record.processes)

    def enter(self) -> None:
        """Let Volatility look for symbols where this case has them, and forget what it read of memory."""
        volatility3.symbols.__path__ = self.symbol_path
        for cached in (intel.Intel._translate_entry, intel.Intel._get_valid_table, intel.Intel.read):
            cached.cache_clear()


def mixed(region: Region, page: int) -> Residency:
    """Every page in another state than its neighbours."""
    states = (Residency.IN_STORE, Residency.TRANSITION, Residency.IN_STORE, Residency.IN_PAGE_FILE, Residency.VALID)
    return states[(page * 3 + region.base // 0x10000) % len(states)]


def mapped(region: Region, page: int) -> Residency:
    """Images reached through their sections in every way that there is."""
    states = (Residency.VALID, Residency.TRANSITION, Residency.PROTOTYPE, Residency.PROTOTYPE_BY_VAD)
    return states[(page * 3 + region.base // 0x10000) % (4 if region.is_image else 2)]


def spread(case: Case, state: Callable[[Region, int], Residency], loader: Residency) -> Case:
    """Change the state of all pages of the processes in which a thread is stuck."""
    pids = {stuck.pid for stuck in case.truth.stuck}
    processes = [
        replace(
            process,
            regions=[
                replace(region, residency={page: state(region, page) for page in range(-(-len(region.data) // PAGE))})
                for region in process.regions
            ],
            loader_residency=loader,
            teb_residency=loader,
        )
        if process.pid in pids
        else process
        for process in case.machine.processes
    ]
    case.machine = replace(case.machine, processes=processes)
    return case


def _on_windows_10(case: Case, build: int) -> Case:
    if not case.machine.paging.is_64bit:
        case.machine = with_paging(case.machine, Paging.PAE)
    case.machine = replace(case.machine, version=(10, 0, build))
    return case


def _case(name: str) -> Case:
    return builders()[name][0]()


def _by_exports(name: str) -> Case:
    """Return a case whose modules have no ISF files: names come from exports, as they do for most users."""
    case = _case(name)
    case.images = []
    return case


SCENES: dict[str, tuple[Callable[[], Case], Path | None]] = {
    "ftp-2003": (lambda: _case("ftp-2003"), None),
    "ftp-exports": (lambda: _by_exports("ftp-2003"), None),
    "service-x64": (lambda: _case("service-x64"), None),
    "service-exports": (lambda: _by_exports("service-x64"), None),
    "wow64-service": (lambda: _by_exports("wow64-service"), None),
    "deadlock": (lambda: _case("deadlock"), None),
    "quiet": (lambda: _case("quiet"), None),
    "nested": (lambda: _case("nested"), None),
    "shutdown-hang": (lambda: _by_exports("shutdown-hang"), None),
    "decoys-x86": (lambda: _case("decoys-x86"), None),
    "paged-peb": (lambda: _case("paged-peb"), None),
    "mapped-x64": (lambda: spread(_case("service-x64"), mapped, Residency.TRANSITION), None),
    "store-x64": (
        lambda: spread(
            _on_windows_10(_case("service-x64"), 19041), lambda _region, _page: Residency.IN_STORE, Residency.IN_STORE
        ),
        None,
    ),
    "mixed-x64": (
        lambda: spread(_on_windows_10(_case("service-x64"), 19045), mixed, Residency.IN_STORE),
        None,
    ),
    "mixed-x86": (
        lambda: spread(_on_windows_10(_case("ftp-2003"), 19045), mixed, Residency.IN_STORE),
        CARRIED / "win10_x86_19041.json.xz",
    ),
}
"""The cases that are attacked: how each is made, and the kernel's layouts where they are not the usual ones."""

SLOW = frozenset({"ftp-2003", "ftp-exports", "wow64-service", "decoys-x86", "mixed-x86"})
"""Cases with x86 stacks, whose code is decoded: they are attacked half as often."""


@contextlib.contextmanager
def opened(name: str) -> Iterator[Scene]:
    """Forge a case and open it."""
    make, layouts = SCENES[name]
    case = make()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        with recorded() as record:
            forge(case, out, isf=layouts)
        config = {}
        if (out / "pagefile.sys").exists():
            config["automagic.WinSwapLayers.single_swap_locations"] = [(out / "pagefile.sys").as_uri()]
        with open_dump(out / "MEMORY.DMP", out / "isf", config) as session:
            atlas = Atlas(case, record)
            layers = session.context.layers
            original = session.kernel_layer.config["memory_layer"]
            pages = {number: bytes(page) for number, page in atlas.physical.contents()}
            memory = ChangedMemory(session.context, "fuzz", original, pages)
            layers._layers[original] = memory
            scene = Scene(name, case, atlas, session, memory, list(volatility3.symbols.__path__))
            scene.enter()
            yield scene


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Keep what depends on nothing but its arguments, from mutant to mutant: headers of a page, ISF files."""
    with contextlib.ExitStack() as stack:
        for module, name in ((images, "parse_headers"), (isf, "_load")):
            kept = functools.lru_cache(maxsize=4096)(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, kept))
        yield


def plugin(name: str) -> ModuleType:
    """Load a plugin of this checkout."""
    path = CHECKOUT / "plugins" / "windows" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"attacked_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
