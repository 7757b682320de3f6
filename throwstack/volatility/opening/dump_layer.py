# SPDX-License-Identifier: Apache-2.0
"""A layer for the kinds of Windows crash dumps that hold physical memory and that Volatility's own layer refuses.

When Volatility opens an image, it tries all stacker classes that are imported. It has imported the plugins by then, so
our stacker is tried if a plugin imports this module. Our stacker comes after Volatility's own, and takes the files that
they refuse.
"""

from __future__ import annotations

import logging
from typing import Any

from volatility3.framework import constants, exceptions, interfaces
from volatility3.framework.layers import segmented

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.crashdump.dump_pages import DumpPages
from throwstack.crashdump.header import DumpHeader, DumpKind, read_header
from throwstack.crashdump.runs import NoRuns, read_runs
from throwstack.pages.page_tables import AddressSpace, PagingMode
from throwstack.volatility.opening.layer_bytes import LayerBytes

log = logging.getLogger(__name__)

_KERNEL_ALONE = frozenset({DumpKind.SUMMARY, DumpKind.LIVE_KERNEL})

_ARCHITECTURES = {PagingMode.X64: "Intel64", PagingMode.PAE: "Intel32", PagingMode.X86: "Intel32"}


class CrashDumpLayer(segmented.SegmentedLayer):  # type: ignore[misc] # Volatility's classes have no types here
    """Physical memory in a Windows crash dump: kernel, active, live and complete ones (types 2, 5 to 10)."""

    provides = {"type": "physical"}  # noqa: RUF012 - as Volatility declares it

    def __init__(
        self,
        context: interfaces.context.ContextInterface,
        config_path: str,
        name: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Read the dump's header and page runs from the layer that the configuration at `config_path` names.

        Raises LayerException if that layer is no crash dump, or has no physical memory.
        """
        data = LayerBytes(context.layers[context.config[interfaces.configuration.path_join(config_path, "base_layer")]])
        header = read_header(data)
        if header is None:
            raise exceptions.LayerException(name, "not a Windows crash dump")
        try:
            self.pages = DumpPages(data, read_runs(data, header))
        except NoRuns as error:
            raise exceptions.LayerException(name, str(error)) from error
        self.header = header
        super().__init__(context, config_path, name, metadata)

    def _load_segments(self) -> None:
        segments = []
        for run in self.pages.runs:
            length = run.count * PAGE_SIZE
            segments.append((run.first * PAGE_SIZE, run.offset, length, length))
        self._segments = segments


class CrashDumpStacker(interfaces.automagic.StackerLayerInterface):  # type: ignore[misc]
    """Stacks `CrashDumpLayer` on dumps that Volatility's stackers have refused."""

    stack_order = 12
    exclusion_list = ["mac", "linux"]  # noqa: RUF012 - as Volatility declares it

    @classmethod
    def stack(
        cls,
        context: interfaces.context.ContextInterface,
        layer_name: str,
        progress_callback: constants.ProgressCallback = None,  # noqa: ARG003 - Volatility's signature
    ) -> interfaces.layers.DataLayerInterface | None:
        """Return the layer on top of `layer_name`, or None if that is not a dump with physical memory."""
        if read_header(LayerBytes(context.layers[layer_name])) is None:
            return None
        name = context.layers.free_layer_name(CrashDumpLayer.__name__)
        context.config[interfaces.configuration.path_join(name, "base_layer")] = layer_name
        try:
            layer = CrashDumpLayer(context, name, name)
        except exceptions.LayerException as error:
            log.warning("this crash dump cannot be used: %s", error)
            return None
        if layer.header.kind in _KERNEL_ALONE:
            log.warning("this is a dump of the kernel's memory: processes' stacks are in it only by chance")
        return CrashDumpLayer(context, name, name, _metadata(layer.header, layer.pages))


def _metadata(header: DumpHeader, pages: DumpPages) -> dict[str, Any]:
    """Return the layer's metadata: the address of the page tables from the header, if the header can be trusted.

    With it Volatility need not search for the page tables. The header of a damaged dump may name any page. So the
    address is used only if, through these page tables, the first entry of the kernel's module list points back to the
    list's head.
    """
    memory = Memory(AddressSpace(Memory(pages), header.paging, header.directory_base))
    size = 8 if header.is_64bit else 4
    try:
        entry = int.from_bytes(memory.read(header.module_list, size), "little")
        back = int.from_bytes(memory.read(entry + size, size), "little")
    except MemoryUnreadable:
        return {"os": "Windows"}
    if back != header.module_list:
        return {"os": "Windows"}
    return {
        "os": "Windows",
        "architecture": _ARCHITECTURES[header.paging],
        "pae": header.paging is PagingMode.PAE,
        "page_map_offset": header.directory_base,
    }
