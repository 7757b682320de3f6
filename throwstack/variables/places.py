# SPDX-License-Identifier: Apache-2.0
"""Finds the bytes of a variable of a frame, by the places that the PDB gives for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.pdb.function_details import FunctionAt
from throwstack.pdb.register_numbers import EBP, VFRAME, general_register, register_name
from throwstack.pdb.type_model import Structure, Type
from throwstack.pdb.types import Types
from throwstack.pdb.variable_model import CodeExtent, Location, LocationKind, VariableSymbol
from throwstack.variables.frame_registers import FrameRegisters
from throwstack.variables.slot_reuse import MOST_CODE, StackPlace, Stores
from throwstack.variables.variable_value import NotShown

_INTEGER_SIZES = (1, 2, 4, 8)
_IN_MEMORY_OF_FRAME = (LocationKind.BY_FRAME, LocationKind.BY_REGISTER)
_IN_FRAME = (LocationKind.BY_FRAME_POINTER, LocationKind.BY_REGISTER)
_BASE_EBP = 2
"""ebp as S_FRAMEPROC names it."""
_AS_PASSED = ", as passed"
MOST_BYTES = 1024
"""How much of a large variable is read. What is shown of it is much less."""


@dataclass(frozen=True, slots=True)
class FoundBytes:
    """The bytes of a variable, as many as are shown, and where they were.

    `known` has a 1 for each byte that is known and a 0 for each that is not; it is None if all are.
    """

    data: bytes
    source: str
    known: bytes | None = None


class Places:
    """Reads the variables of one frame."""

    def __init__(
        self,
        arch: Arch,
        memory: Memory,
        registers: FrameRegisters,
        at: FunctionAt,
        static: Callable[[int, int], int | None],
    ) -> None:
        """`registers` are those of the frame, and `at` is its function.

        `static` returns the address of the byte at an offset of a section of the function's image, or None.
        """
        self._arch = arch
        self._memory = memory
        self._registers = registers
        self._at = at
        self._static = static
        self._stores: Stores | None = None

    def find(self, variable: VariableSymbol, types: Types, *, is_parameter: bool) -> FoundBytes:
        """Return the bytes of a variable, whose type is one of `types`. Raises `NotShown` and MemoryUnreadable."""
        if variable.beyond is None:
            reason = "the type of its function is not in the symbols"
            raise NotShown(reason)
        found = self._find(variable, types, is_parameter)
        return _less(found, variable.beyond) if variable.beyond and found.known is None else found

    def _find(self, variable: VariableSymbol, types: Types, is_parameter: bool) -> FoundBytes:
        size = types.size(variable.type)
        if not size:
            raise NotShown(types.why_no_size(variable.type))
        size = min(size, MOST_BYTES)
        section, offset = self._at.section, self._at.offset
        here = [location for location in variable.locations if location.holds_at(section, offset)]
        whole = [location for location in here if location.part is None]
        if not here:
            passed = self._where_passed(variable, size, is_parameter)
            reason = f"not at this address{passed}" if variable.locations else "optimised out"
            raise NotShown(reason)
        if not variable.has_ranges:
            self._check_whole_function(whole[0])
        problem: NotShown | MemoryUnreadable | None = None
        width, is_only = _width(variable, self._arch), _is_at_one_place(variable)
        for location in whole:
            try:
                self._check_width(location, size, width, is_parameter)
                data = self._read(location, size, is_parameter, is_only=is_only)
                words = self._words(location, is_parameter)
                is_passed = is_only and self._is_as_passed(location, types.plain(variable.type), is_parameter)
                return FoundBytes(data, f"{words}{_AS_PASSED}" if is_passed else words)
            except (NotShown, MemoryUnreadable) as error:
                problem = problem or error
        if problem is not None:
            raise problem
        found = self._in_parts(here, size, _part_sizes(variable, types, self._arch), is_parameter)
        if found.known is not None and types.scalar_bytes(variable.type, 0) == size:
            reason = "only a part of it is at this address"
            raise NotShown(reason)
        return found

    def _check_width(self, location: Location, size: int, width: int, is_parameter: bool) -> None:
        """Raise `NotShown` for a place that has only `width` bytes of a variable of `size` bytes.

        clang for x86 keeps the lower half of an `__int64` whose upper half nothing reads: first in edx, later where edx
        was stored. In the record both are the place of the whole variable.
        """
        if width < size and location.kind in _IN_MEMORY_OF_FRAME:
            above = self._registers.to_slot(self._address(location, is_parameter))
            if above is None or above <= 0:
                reason = "only a part of it is at this address"
                raise NotShown(reason)

    def _is_as_passed(self, location: Location, plain: Type, is_parameter: bool) -> bool:
        """Say whether the only place of a structure is where the caller of optimised x86 code has put it.

        clang 19 keeps changed members in registers, and says for the whole function that the structure is where it was
        passed: after `p.c ^= x` the old value is there.
        """
        if self._arch is Arch.X64 or self._at.function.keeps_places or not isinstance(plain, Structure):
            return False
        above = self._registers.to_slot(self._address(location, is_parameter))
        return location.extent is not None and above is not None and above > 0

    def _where_passed(self, variable: VariableSymbol, size: int, is_parameter: bool) -> str:
        """Return where a parameter that has no place here was when the function was called, and what is there now.

        Returns "" if that is not known. Without a frame pointer, clang gives the places of x86 arguments by esp, and
        ends them at the first push, though nothing happens to the arguments. But no record says so. The parameter may
        have another value by then, and the compiler may use the place for something else.
        """
        with suppress(NotShown, MemoryUnreadable):
            for location in variable.locations if is_parameter and size in _INTEGER_SIZES else ():
                if location.kind is not LocationKind.BY_FRAME or location.part is not None:
                    continue
                address = self._address(location, is_parameter)
                if self._registers.is_argument(address):
                    value = int.from_bytes(self._memory.read(address, size), "little")
                    return f"; it was passed in {self._words(location, is_parameter)}, which now has {value:#x}"
        return ""

    def _check_whole_function(self, location: Location) -> None:
        """Raise `NotShown` for a place that is said to be good for a whole function, but need not be.

        Before Visual C++ 2012, `this` of optimised code is said to be in ecx. It was there when the function began; and
        only optimised code has variables in registers. clang calls a variable a constant if it was one in some range of
        code: the counter of an unrolled loop is 0, says the PDB. A compiler that gives ranges for some variables, and
        none for others, has optimised both.
        """
        function = self._at.function
        if location.kind is LocationKind.REGISTER:
            reason = f"in {register_name(self._arch, location.register)} in a part of the function only"
            raise NotShown(reason)
        if location.kind is LocationKind.CONSTANT and (function.is_optimised or function.has_ranges):
            reason = "a constant in a part of the optimised function"
            raise NotShown(reason)
        if location.kind in _IN_FRAME and function.has_ranges:
            reason = "the symbols do not say for which code its place holds"
            raise NotShown(reason)

    def _in_parts(
        self, locations: list[Location], size: int, sizes: Mapping[int, int], is_parameter: bool
    ) -> FoundBytes:
        """Return the parts of a variable that has `size` bytes. `sizes` are those of the parts, by their offsets."""
        data, known, sources = bytearray(size), bytearray(size), []
        problem: NotShown | MemoryUnreadable | None = None
        for location in locations:
            part = location.part or 0
            part_size = sizes.get(part, 0)
            if not part_size or part + part_size > size:
                continue
            try:
                piece = self._read(location, part_size, is_parameter)
            except (NotShown, MemoryUnreadable) as error:
                problem = problem or error
                continue
            data[part : part + len(piece)] = piece
            known[part : part + len(piece)] = b"\1" * len(piece)
            sources.append(self._words(location, is_parameter))
        if not sources:
            reason = "only parts of it are at this address"
            raise problem or NotShown(reason)
        return FoundBytes(bytes(data), ", ".join(sources), None if all(known) else bytes(known))

    def _read(self, location: Location, size: int, is_parameter: bool, *, is_only: bool = False) -> bytes:
        """Return the bytes at a place; `is_only` says whether the variable has no other anywhere."""
        if location.kind is LocationKind.REGISTER:
            data = self._registers.bytes_of(location.register)
            if len(data) < size:
                reason = f"only a part of it is in {register_name(self._arch, location.register)}"
                raise NotShown(reason)
            return data[:size]
        if location.kind is LocationKind.CONSTANT:
            return (location.offset & (1 << 8 * size) - 1).to_bytes(size, "little")
        address = self._address(location, is_parameter)
        if location.kind is not LocationKind.STATIC:
            self._check_reuse(location, size, address, is_parameter, is_only)
        return self._memory.read(address, size)

    def _check_reuse(self, location: Location, size: int, address: int, is_parameter: bool, is_only: bool) -> None:
        """Raise `NotShown` if something else may have been stored at a place on the stack meanwhile."""
        function, held = self._at.function.scope.extent, location.extent
        if held is None or function is None or held.section != function.section:
            return
        number = self._base_of(location, is_parameter)
        base = "" if number == VFRAME else register_name(self._arch, number)
        place = StackPlace(
            held.begin - function.begin,
            held.end - function.begin,
            base,
            location.offset,
            size,
            self._registers.to_slot(address),
            is_only=is_only,
        )
        if self._stored(function).is_reused(place, self._at.offset - function.begin):
            reason = "its place was stored to again, maybe for something else"
            raise NotShown(reason)

    def _stored(self, extent: CodeExtent) -> Stores:
        """Return the stores in the code of the function, which is `extent`."""
        if self._stores is None:
            function = self._at.function
            address = self._static(extent.section, extent.begin)
            size = min(extent.end - extent.begin, MOST_CODE)
            code = self._memory.read_available(address, size) if address else b""
            self._stores = Stores(
                self._arch, code, keeps_places=function.keeps_places, has_handlers=function.has_handlers
            )
        return self._stores

    def _address(self, location: Location, is_parameter: bool) -> int:
        mask = (1 << 8 * self._arch.pointer_size) - 1
        if location.kind is LocationKind.STATIC:
            address = self._static(location.section, location.offset)
            if address is None:
                reason = "in no section of the image"
                raise NotShown(reason)
            return address
        if location.kind is LocationKind.BY_FRAME:
            return self._registers.frame_base(self._base_of(location, is_parameter)) + location.offset & mask
        if location.kind is LocationKind.BY_FRAME_POINTER:
            has_ebp = self._at.function.has_frame_pointer
            return self._registers.frame_pointer(has_ebp=has_ebp) + location.offset & mask
        if location.kind is not LocationKind.BY_REGISTER:
            raise NotShown(location.kind.value)
        if location.register == EBP and self._is_frame_of_ebp():
            return self._registers.frame_base(EBP) + location.offset & mask
        return self._registers.address_in(location.register) + location.offset & mask

    def _is_frame_of_ebp(self) -> bool:
        """Say whether ebp is the base of the function's frame; else it is a register like others."""
        function = self._at.function
        return function.has_frame_pointer or _BASE_EBP in (function.base(of_parameter=one) for one in (False, True))

    def _base_of(self, location: Location, is_parameter: bool) -> int:
        """Return the number of the register that a place in memory is at a distance from."""
        if location.kind is LocationKind.BY_FRAME:
            return self._registers.base_number(self._at.function.base(of_parameter=is_parameter))
        return location.register

    def _words(self, location: Location, is_parameter: bool) -> str:
        """Return where a value was, in a debugger's notation."""
        if location.kind is LocationKind.REGISTER:
            return register_name(self._arch, location.register)
        if location.kind is LocationKind.BY_FRAME_POINTER:
            base = "ebp" if self._at.function.has_frame_pointer else "frame"
            return f"[{base}{_signed(location.offset)}]"
        if location.kind not in (LocationKind.BY_FRAME, LocationKind.BY_REGISTER):
            where: str = location.kind.value
            return where
        number = self._base_of(location, is_parameter)
        base = "frame" if number == VFRAME else register_name(self._arch, number)
        return f"[{base}{_signed(location.offset)}]"


def _width(variable: VariableSymbol, arch: Arch) -> int:
    """Return how many bytes of a variable its places have, as far as registers say it: those that have it whole."""
    registers = (
        general_register(arch, location.register)
        for location in variable.locations
        if location.kind is LocationKind.REGISTER and location.part is None
    )
    return min((register.size for register in registers if register is not None), default=MOST_BYTES)


def _is_at_one_place(variable: VariableSymbol) -> bool:
    """Say whether a variable is at the same place on the stack for all code for which it has a place."""
    places = {replace(location, extent=None) for location in variable.locations}
    return len(places) == 1 and all(location.kind in _IN_MEMORY_OF_FRAME for location in places)


def _part_sizes(variable: VariableSymbol, types: Types, arch: Arch) -> dict[int, int]:
    """Return the size of each part of a variable by its offset, 0 where it is not certain.

    A PDB does not say how large a part is. It is taken to reach to the end of the one member that it is in, as far as

    - no other part of the variable begins inside it,
    - it fits into a general register: that is what a compiler splits variables by,
    - it is not larger than a register that has the part elsewhere in the function.

    For example, a `long long` of 32-bit code has two parts. Each is in a register at first, and then both are on the
    stack, at places that need not be neighbours. A part that is no single member is left out.
    """
    parts = sorted({location.part for location in variable.locations if location.part is not None})
    sizes = {}
    for part, following in zip(parts, [*parts[1:], MOST_BYTES], strict=True):
        registers = [
            register.size
            for location in variable.locations
            if location.part == part and location.kind is LocationKind.REGISTER
            for register in [general_register(arch, location.register)]
            if register is not None
        ]
        whole = types.scalar_bytes(variable.type, part)
        size = min(whole, following - part, arch.pointer_size, *registers)
        is_whole_variable = size == types.size(variable.type)
        sizes[part] = 0 if is_whole_variable else max(size, 0)
    return sizes


def _less(found: FoundBytes, amount: int) -> FoundBytes:
    size = len(found.data)
    value = int.from_bytes(found.data, "little") - amount & (1 << 8 * size) - 1
    return FoundBytes(value.to_bytes(size, "little"), f"{found.source}{_signed(-amount)}")


def _signed(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}{abs(offset):#x}"
