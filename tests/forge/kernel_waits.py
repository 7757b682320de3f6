# SPDX-License-Identifier: Apache-2.0
"""What threads wait for: dispatcher objects, the KWAIT_BLOCKs that lead to them, and the headers that name them.

Up to Windows 7 the wait blocks of a thread are a ring; from 8 on they are an array with a count, without the thread's
timer.
"""

from __future__ import annotations

from collections import defaultdict

from tests.forge.describe import Process, Thread, WaitObject
from tests.forge.kernel_image import KernelImage
from tests.forge.kernel_memory import KernelMemory
from tests.forge.structures import Structure, link

_STRUCTURES = {2: "_KMUTANT", 4: "_KQUEUE", 5: "_KSEMAPHORE", 8: "_KTIMER", 9: "_KTIMER"}
_TYPE_NAMES = {0: "Event", 1: "Event", 2: "Mutant", 5: "Semaphore", 8: "Timer", 9: "Timer"}
_TYPE_INDEX = {"Event": 0x10, "Mutant": 0x11, "Semaphore": 0x13, "Timer": 0x15}
_HAS_NAME_INFO = 2
_COOKIE = 0xA7
_TIMER_BLOCK = 3
_OWN_BLOCKS = 3


def write_waits(
    kernel: KernelMemory, image: KernelImage, processes: list[Process], blocks: dict[int, Structure]
) -> None:
    """Write what the threads of `processes` wait for; `blocks` are their ETHREADs and EPROCESSes by id."""
    writer = _Waits(kernel, image, blocks)
    for process in processes:
        for thread in process.threads:
            if thread.wait_objects:
                writer.write(thread)
    writer.finish()


class _Waits:
    def __init__(self, kernel: KernelMemory, image: KernelImage, blocks: dict[int, Structure]) -> None:
        self.kernel = kernel
        self.image = image
        self.blocks = blocks
        self.has_cookie = image.address("ObHeaderCookie") is not None
        self._objects: dict[int, int] = {}
        self._waiters: dict[int, list[int]] = defaultdict(list)
        self._types: dict[str, int] = {}

    def write(self, thread: Thread) -> None:
        """Write the wait blocks of `thread`."""
        block, layout = self.blocks[thread.tid], self.kernel.layout
        ordered = sorted(thread.wait_objects, key=lambda item: item.is_timeout)
        objects = [(self._object(item, block), item.is_timeout) for item in ordered]
        places = self._places(block, objects)
        waits = [Structure(self.kernel, layout, "_KWAIT_BLOCK", place) for place in places]
        for index, (wait, (target, _)) in enumerate(zip(waits, objects, strict=False)):
            wait.put("Thread", block.address)
            wait.put("Object", target)
            wait.put("WaitType", 0 if thread.waits_for_all else 1)
            wait.put("WaitKey", index)
            if wait.has("NextWaitBlock"):
                wait.put("NextWaitBlock", places[(index + 1) % len(places)])
            self._waiters[target].append(wait.at("WaitListEntry"))
        if places:
            block.put("Tcb.WaitBlockList", places[0])
        block.put_any(("Tcb.WaitBlockCount",), len(places))

    def _places(self, block: Structure, objects: list[tuple[int, bool]]) -> list[int]:
        """Return where the wait blocks are: in the thread as long as they fit, the timer's in its own place."""
        size = self.kernel.layout.size("_KWAIT_BLOCK")
        own = block.at("Tcb.WaitBlock")
        count = sum(not is_timer for _, is_timer in objects)
        start = own if count <= _OWN_BLOCKS else self.kernel.allocate(size * count)
        if not self.kernel.layout.has("_KWAIT_BLOCK", "NextWaitBlock"):
            return [start + index * size for index in range(count)]
        free = iter(range(start, start + size * count, size))
        return [own + _TIMER_BLOCK * size if is_timer else next(free) for _, is_timer in objects]

    def _object(self, item: WaitObject, thread: Structure) -> int:
        if item.waited_for is not None:
            return self.blocks[item.waited_for].address
        if id(item) in self._objects:
            return self._objects[id(item)]
        layout, name = self.kernel.layout, _STRUCTURES.get(item.type, "_KEVENT")
        address = thread.at("Tcb.Timer") if item.is_timeout else self._address(item, name)
        made = Structure(self.kernel, layout, name, address)
        made.put("Header.Type", item.type)
        made.put_any(("Header.Size",), layout.size(name) // 4)
        made.put("Header.SignalState", item.signal)
        if item.owner is not None:
            made.put("OwnerThread", self.blocks[item.owner].address)
        made.put_all(Limit=item.limit, MaximumCount=item.limit)
        if item.is_timeout:
            made.put("Header.Inserted", 1)
        if name == "_KTIMER":
            self.kernel.write(made.at("DueTime"), item.due.to_bytes(8, "little"))
        if item.name:
            self._write_header(address, item)
        self._objects[id(item)] = address
        return address

    def _address(self, item: WaitObject, name: str) -> int:
        """Return the case's address, or another where a process or thread of this layout reaches that far."""
        size = self.kernel.layout.size(name)
        if item.address is not None and not any(
            block.address < item.address + size and item.address < block.address + self.kernel.layout.size(block.name)
            for block in self.blocks.values()
        ):
            return item.address
        return self.kernel.allocate(size, before=0x80)

    def _write_header(self, address: int, item: WaitObject) -> None:
        layout, type_name = self.kernel.layout, _TYPE_NAMES[item.type]
        header = Structure(self.kernel, layout, "_OBJECT_HEADER", address - layout.offset("_OBJECT_HEADER", "Body"))
        info_size = layout.size("_OBJECT_HEADER_NAME_INFO")
        info = Structure(self.kernel, layout, "_OBJECT_HEADER_NAME_INFO", header.address - info_size)
        info.put_string("Name", *self.kernel.unicode(item.name))
        header.put("PointerCount", 2)
        object_type = self._object_type(type_name)
        if header.has("Type"):
            header.put("Type", object_type)
            header.put("NameInfoOffset", info_size)
            return
        index = _TYPE_INDEX[type_name]
        if self.has_cookie:
            index ^= header.address >> 8 & 0xFF ^ _COOKIE
        header.put("TypeIndex", index)
        header.put("InfoMask", _HAS_NAME_INFO)

    def _object_type(self, name: str) -> int:
        if name not in self._types:
            layout = self.kernel.layout
            made = Structure(self.kernel, layout, "_OBJECT_TYPE", self.kernel.allocate_struct("_OBJECT_TYPE"))
            made.put_string("Name", *self.kernel.unicode(name))
            made.put_all(Index=_TYPE_INDEX[name])
            self._types[name] = made.address
            table, cookie = self.image.address("ObTypeIndexTable"), self.image.address("ObHeaderCookie")
            if table is not None and not layout.has("_OBJECT_HEADER", "Type"):
                self.kernel.write_pointer(table + _TYPE_INDEX[name] * layout.pointer_size, made.address)
            if cookie is not None and self.has_cookie:
                self.kernel.write(cookie, bytes((_COOKIE,)))
        return self._types[name]

    def finish(self) -> None:
        """Link each object with the wait blocks of those who wait for it."""
        head = self.kernel.layout.offset("_DISPATCHER_HEADER", "WaitListHead")
        for target, entries in self._waiters.items():
            link(self.kernel, self.kernel.layout, [target + head, *entries])
