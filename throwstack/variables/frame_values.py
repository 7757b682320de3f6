# SPDX-License-Identifier: Apache-2.0
"""The parameters and local variables of a frame, with their values where the walk vouches for them.

A value is shown only if the PDB says where it is at the very instruction, and if the unwinder knows the registers that
lead there. For everything else there is a reason. So nothing is shown of a frame that was guessed, or that a guessed
frame led to, and nothing where code was stopped in a prologue: what the function keeps is not in its place yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from throwstack.core.frames import Frame
from throwstack.core.guard import Guard
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import escape
from throwstack.images.image import Image
from throwstack.names.frame_records import FrameData
from throwstack.pdb.function_details import FunctionAt, FunctionDetails
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_table import PdbTable
from throwstack.pdb.time_limit import ValuesGivenUp
from throwstack.pdb.type_text import TypeText
from throwstack.pdb.variable_model import VariableSymbol
from throwstack.unwind.target import Target
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.variables.frame_registers import FrameRegisters
from throwstack.variables.interrupted_code import MOST_BYTES, changing_registers, is_leaving
from throwstack.variables.places import Places
from throwstack.variables.value_text import ValueText
from throwstack.variables.variable_value import NotShown, VariableValue

_MAX_VARIABLES = 64
_MAX_OF_FRAME = 256
_MAX_NAME = 128
_MAX_TYPE = 256
_UNNAMED = "<unnamed>"
_GUESSED = "the frame is a guess"
_IN_PROLOGUE = "the function was still being entered"
_NO_CODE = "the code at which it stopped is not in the dump"
_IN_EPILOGUE = "the function was already being left"


@dataclass(frozen=True, slots=True)
class FunctionVariables:
    """The variables of a function at a frame, which it can be iterated over. Of `left_out` more nothing is said."""

    variables: tuple[VariableValue, ...] = ()
    left_out: int = 0

    def __iter__(self) -> Iterator[VariableValue]:
        """Return an iterator over the variables, parameters first."""
        return iter(self.variables)


FrameScopes = tuple[FunctionVariables, ...]
"""The variables of each function of a frame: of inlined functions from the innermost outwards, then of the function."""


def frame_variables(
    target: Target, frame: Frame, inner: Frame | None, functions: int, *, is_doubtful: bool
) -> FrameScopes:
    """Return the variables of the functions at `frame`, parameters first; empty if there is no PDB with types.

    `inner` is the frame that `frame` has called, or None. `functions` is how many functions are named at the frame, the
    inlined ones and the one that has the frame. `is_doubtful` says whether the frame is in doubt (`Guesses`). At most
    64 variables of a function are returned, and 256 of a frame.

    A value that is not made after 4 s for the frame, or 120 s for all frames with the PDB, has that as its reason.
    Frames after that have no variables, and a message names the PDB.
    """
    image = target.images.find(frame.ip)
    table = None if image is None else target.symbols.table(image)
    if image is None or not isinstance(table, PdbTable):
        return ()
    try:
        with table.details.types.values_time:
            return _frame_variables(target, image, table, frame, inner, functions, is_doubtful=is_doubtful)
    except NotAPdb as error:
        table.damaged(error)
    except ValuesGivenUp as error:
        table.values_given_up(error)
    return ()


def _frame_variables(  # noqa: PLR0917 - all that they depend on
    target: Target,
    image: Image,
    table: PdbTable,
    frame: Frame,
    inner: Frame | None,
    functions: int,
    *,
    is_doubtful: bool,
) -> FrameScopes:
    rva = frame.ip - image.base - (0 if frame.is_interrupted else 1)
    at = table.details.at(rva)
    if at is None:
        return ()
    data = table.frame_data(rva)
    code = target.memory.read_available(frame.ip, MOST_BYTES) if frame.is_interrupted else b""
    unwound = Functions(target.images).find(image.base + rva) if target.arch is Arch.X64 else None
    function = unwound if isinstance(unwound, Function) else None
    reason = _GUESSED if is_doubtful else _why_none(target, image, frame, at, data or function, code)
    registers = FrameRegisters(
        target.arch,
        target.memory,
        frame,
        inner,
        data,
        changing_registers(target.arch, code),
        is_handler=function is not None and _is_handler(table.details, at, function),
    )
    maker = _Maker(target, image, table.details, at, registers, reason)
    scopes = at.scopes if len(at.scopes) == functions else (*[()] * (functions - 1), at.scopes[-1])
    left, found = _MAX_OF_FRAME, []
    for scope in scopes:
        values = tuple(islice(maker.values(scope), min(left, _MAX_VARIABLES)))
        left -= len(values)
        found.append(FunctionVariables(values, len(scope) - len(values)))
    return tuple(found)


def _why_none(  # noqa: PLR0917 - all that it depends on
    target: Target, image: Image, frame: Frame, at: FunctionAt, data: FrameData | Function | None, code: bytes
) -> str:
    """Return why no variable of the frame can be shown, "" if some may be.

    `data` is the function's frame data or its unwind information, and `code` what was to run next.
    """
    if not frame.is_interrupted:
        return ""
    if not code:
        return _NO_CODE
    if at.offset < at.function.body or _in_prologue(frame.ip - image.base, data):
        return _IN_PROLOGUE
    return _IN_EPILOGUE if is_leaving(target.arch, frame, at, code) else ""


def _in_prologue(rva: int, data: FrameData | Function | None) -> bool:
    """Say whether the unwind data or the frame data has `rva` in the prologue of a function."""
    if isinstance(data, Function):
        part = data.parts[0]
        return rva < part.entry.begin + part.info.prologue_size
    return data is not None and rva < data.rva + data.prologue_size


def _is_handler(details: FunctionDetails, at: FunctionAt, function: Function) -> bool:
    """Say whether a place of the function `at` is in a part that the runtime calls: a catch block, a destructor.

    Such a part has unwind information of its own, `function`, that begins inside the function and is not chained to
    that of the function.
    """
    extent = at.function.scope.extent
    if extent is None or not extent.covers(at.section, at.offset):
        return False
    first, last = (details.rva_of(extent.section, offset) for offset in (extent.begin, extent.end - 1))
    return first is not None and last is not None and first < function.begin <= last


class _Maker:
    """Makes the values of the variables of one frame."""

    def __init__(  # noqa: PLR0917 - all that a value depends on
        self,
        target: Target,
        image: Image,
        details: FunctionDetails,
        at: FunctionAt,
        registers: FrameRegisters,
        reason: str,
    ) -> None:
        """`reason` says why no value is shown, "" if some may be."""
        self._details = details
        self._places = Places(target.arch, target.memory, registers, at, partial(_static_address, image, details))
        self._reason = reason
        self._types = TypeText(details.types, target.arch)
        self._text = ValueText(details.types, target)
        self._parameters = details.parameters(at.function)

    def values(self, scope: tuple[VariableSymbol, ...]) -> Iterator[VariableValue]:
        """Yield the variables of a scope with their values, parameters first."""
        is_parameter = [variable.is_parameter or variable in self._parameters for variable in scope]
        for wanted in (True, False):
            for variable, is_one in zip(scope, is_parameter, strict=True):
                if bool(is_one) is wanted:
                    yield self._value(variable, wanted)

    def _value(self, variable: VariableSymbol, is_parameter: bool) -> VariableValue:
        name = escape(variable.name, _MAX_NAME) or _UNNAMED
        written = escape(self._types.of(variable.type), _MAX_TYPE)
        reasons = [self._reason] if self._reason else []
        with Guard(reasons.append, (NotShown, MemoryUnreadable, NotAPdb, ValuesGivenUp)):
            if not self._reason:
                found = self._places.find(variable, self._details.types, is_parameter=is_parameter)
                shown = self._text.of(variable.type, found)
                return VariableValue(name, written, shown.value, shown.text, found.source, is_parameter=is_parameter)
        return VariableValue(name, written, reason=reasons[0], is_parameter=is_parameter)


def _static_address(image: Image, details: FunctionDetails, section: int, offset: int) -> int | None:
    rva = details.rva_of(section, offset)
    return None if rva is None else image.base + rva
