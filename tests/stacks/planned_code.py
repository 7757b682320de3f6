# SPDX-License-Identifier: Apache-2.0
"""Plans the images of a published stack: where each function starts, and where each of its frames goes on.

A function that is on the stack several times has one call for each. An exported function follows the one before it. A
function that is not exported is far from the export before it, as in most DLLs, so that a debugger without symbols
knows it by its module only. An exception filter of x86 that a debugger calls by the name of its function is a part of
that function: it has no symbol of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pe_format import AMD64, I386, PAGE
from tests.stacks.exported import export_name
from tests.stacks.published import PublishedFrame, PublishedStack
from throwstack.core.registers import Arch

FIRST_SITE, SITE = 0x80, 0x40
"""Where a function's first call ends, and how far the others are from each other."""
_FAR = 0x1800
_PROGRAM = {Arch.X64: 0x7FF600000000, Arch.X86: 0x00400000}
_LIBRARIES = {Arch.X64: 0x7FFA00000000, Arch.X86: 0x70000000}
_FUNCLET_CALLERS = frozenset({"_EH4_CallFilterFunc", "_except_handler3"})
_FILTER = "UnhandledExceptionFilter"
FUNCLET = "$filter"


@dataclass
class PlannedFunction:
    """A function of a published stack. `frames` are the indices of its frames; `exported` is its export's name."""

    module: str
    name: str
    exported: str = ""
    start: int = 0
    frames: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Return how many bytes are kept for its code."""
        return FIRST_SITE + SITE * (len(self.frames) + 1)


class PlannedCode:
    """The images and functions of one stack."""

    def __init__(self, stack: PublishedStack) -> None:
        """Give every function of `stack` its place."""
        self.stack = stack
        self.functions: dict[tuple[str, str], PlannedFunction] = {}
        self.of_frame: list[PlannedFunction] = []
        for index, frame in enumerate(stack.frames):
            function = self._function(frame.module, self._name(index, frame))
            function.frames.append(index)
            self.of_frame.append(function)
        self._add_filter()
        self.images: dict[str, ImageBuilder] = {}
        for module in dict.fromkeys(function.module for function in self.functions.values()):
            self.images[module] = self._image(module)

    def starts(self, index: int) -> int:
        """Return where the function of frame `index` starts."""
        return self.of_frame[index].start

    def goes_on(self, index: int) -> int:
        """Return the address at which frame `index` goes on: the end of its call, or its instruction pointer."""
        function = self.of_frame[index]
        return function.start + FIRST_SITE + SITE * function.frames.index(index)

    def image(self, function: PlannedFunction) -> ImageBuilder:
        """Return the image that has `function`."""
        return self.images[function.module]

    def put_global(self, index: int, name: str, data: bytes) -> int:
        """Put a global variable into the image of frame `index`; return its address."""
        image = self.image(self.of_frame[index])
        return image.name_function(name, image.place_data(data.ljust(-(-len(data) // 16) * 16, b"\0"), writable=True))

    def by_name(self, module: str, name: str) -> PlannedFunction | None:
        """Return the function `module!name`; the module is compared without case."""
        for function in self.functions.values():
            if function.name == name and function.module.lower() == module:
                return function
        return None

    def names(self) -> dict[int, dict[int, str]]:
        """Return all names by RVA, for each image base: what its PDB would say."""
        found: dict[int, dict[int, str]] = {}
        for image in self.images.values():
            found[image.base] = {address - image.base: name for name, address in image.symbols.items()}
        return found

    def _name(self, index: int, frame: PublishedFrame) -> str:
        outer = [one for one in self.stack.frames[index + 1 :] if frame.is_unwound or not one.is_unwound]
        is_outer = str(frame) in map(str, outer)
        if outer and outer[0].function in _FUNCLET_CALLERS and self.stack.arch is Arch.X86 and is_outer:
            return frame.function + FUNCLET
        return frame.function

    def _function(self, module: str, name: str) -> PlannedFunction:
        key = module, name
        if key not in self.functions:
            self.functions[key] = PlannedFunction(module, name, export_name(self.stack, module, name) if name else "")
        return self.functions[key]

    def _add_filter(self) -> None:
        """Let kernel32 and ntdll be there, and kernel32 have UnhandledExceptionFilter even if the stack has not."""
        labels = {function.module.lower(): function.module for function in self.functions.values()}
        self._function(labels.get("kernel32", "kernel32"), _FILTER)
        self._function(labels.get("ntdll", "ntdll"), "RtlRaiseException")
        if self.stack.arch is Arch.X86:
            self._function(labels.get("ntdll", "ntdll"), "_except_handler4")

    def _image(self, module: str) -> ImageBuilder:
        is_x64, is_program = self.stack.arch is Arch.X64, module.lower() == "app"
        base = _PROGRAM[self.stack.arch]
        if not is_program:
            base = _LIBRARIES[self.stack.arch] + len(self.images) * 0x400000
        functions = [function for function in self.functions.values() if function.module == module]
        has_exports = any(function.exported for function in functions)
        cursor, neighbours = base + PAGE + 0x40, []
        for function in sorted(functions, key=lambda one: not one.exported):
            if function.name.endswith(FUNCLET):
                continue
            if not function.exported:
                neighbours.append(cursor)
                cursor += _FAR
            filters = [one for one in functions if one.name == function.name + FUNCLET]
            for one in (function, *filters):
                one.start = cursor
                cursor = (cursor + one.size + 0x3F) & ~0x3F
        name = f"{module}.exe" if is_program else f"{module}.dll"
        machine = AMD64 if is_x64 else I386
        image = ImageBuilder(name, base, cursor - base, 2 * PAGE, PAGE, machine, pdb_of(name))
        for number, address in enumerate(neighbours if has_exports else ()):
            image.code(address, b"\xc3")
            image.name_function(f"{module}Export{number}", address, exported=True)
        for function in functions:
            if function.name and not function.name.endswith(FUNCLET):
                image.symbols[function.name] = function.start
            if function.exported:
                image.exports[function.exported] = function.start
        return image
