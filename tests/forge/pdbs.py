# SPDX-License-Identifier: Apache-2.0
"""Makes the PDB of a forged image: what its functions are, where their lines are, how their frames are laid out.

A private PDB has procedures with lines, types and variables; a public one, as vendors give away, has decorated public
symbols. The frame data says what a function's `Shape` says, in the compiler's words.

Variables are written as Visual C++ 7.1 to 9 did. S_BPREL32 counts from the virtual frame, $T0 of the frame data. In a
function with a frame pointer that is ebp, so the first parameter is at 8; in one without it is the slot of the return
address, so the first parameter is at 4. S_FRAMEPROC has its bits for the frame pointer left at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.forge.code import Emitter
from tests.forge.functions_x86 import Call, Function, Shape
from tests.forge.images import ImageBuilder
from tests.forge.pe_format import PAGE
from tests.support.pdb_model import Convention, Enumeration, FrameInfo, Item, Register, Structure, Variable
from tests.support.pdb_writer import FpoRecord, FrameRecord, Pdb, Procedure, Public

_ENTRY = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="
_BODY_WITH_EBP = "$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + ="
_SAVED = ("ebp", "ebx", "esi", "edi")
NON_FPO = 3


@dataclass(frozen=True)
class Source:
    """What a function's source says: where its last call is, its type, its parameters, its locals.

    Parameters are (type, name). The name is "" if the compiler kept no record of the parameter, as where it uses the
    parameter's slot for something else. `locals` have their offsets from the virtual frame. `member_of` is the class of
    a static member function.
    """

    file: str
    line: int
    parameters: tuple[tuple[str, str], ...] = ()
    returns: str = "void"
    convention: Convention = Convention.CDECL
    member_of: str | None = None
    locals: tuple[Variable, ...] = ()


@dataclass(frozen=True)
class Fpo:
    """What a debugger's `kv` shows of a function: `[parameters, locals, registers]`, in words of four bytes."""

    parameters: int = 0
    locals: int = 0
    registers: int = 0
    uses_ebp: bool = False


class Layout:
    """Annotations that give no figures: the record then has those of the code."""

    SEH = "SEH"
    NON_FPO = "Non-Fpo"


Annotation = Fpo | str


def private_pdb(
    image: ImageBuilder,
    functions: Iterable[Function],
    sources: Mapping[str, Source],
    types: Mapping[str, Structure | Enumeration] = MappingProxyType({}),
) -> Pdb:
    """Return a PDB with procedures, with lines and variables of those that `sources` has by name.

    `types` are the structures and enumerations that these mention.
    """
    pdb = _empty(image)
    pdb.types.update(types)
    described = {function.start: function for function in functions if _is_in(image, function)}
    for name, start in sorted(image.symbols.items(), key=lambda item: item[1]):
        function = described.get(start)
        if function is None:
            pdb.publics.append(Public(decorated(name), start - image.base))
            continue
        source = sources.get(name)
        pdb.procedures.append(_procedure(function, start - image.base, source))
        pdb.publics.append(Public(decorated(name, function.pops), start - image.base))
    return pdb


def _procedure(function: Function, rva: int, source: Source | None) -> Procedure:
    name, size, has_fp = function.name, len(function.emit()), function.shape.ebp is not None
    if source is None:
        return Procedure(name, rva, size, has_fp=has_fp)
    return Procedure(
        name,
        rva,
        size,
        _lines(function, source),
        tuple(kind for kind, _ in source.parameters),
        returns=source.returns,
        convention=source.convention,
        items=(_frame(function), *_parameters(function, source), *source.locals),
        this=source.member_of,
        has_fp=has_fp,
        module=f"{source.file.rpartition('.')[0]}.obj",
    )


def _frame(function: Function) -> FrameInfo:
    saved = 4 * len(_saved(function.shape))
    return FrameInfo(function.shape.size - saved, saved)


def _parameters(function: Function, source: Source) -> Iterator[Item]:
    """Yield the variables of the parameters that have a record; each parameter has a word.

    The virtual frame of a function that rounds its stack pointer down is not at a fixed distance from the parameters:
    they count from ebp by its name.
    """
    first = 4 if function.shape.ebp is None else 8
    register = None if function.shape.alignment is None else Register.EBP
    for index, (kind, name) in enumerate(source.parameters):
        if name:
            yield Variable(name, kind, first + 4 * index, register)


def public_pdb(image: ImageBuilder, functions: Iterable[Function]) -> Pdb:
    """Return a PDB with public symbols only: those of the image, or only what it exports if it has no others."""
    pdb = _empty(image)
    pops = {function.start: function.pops for function in functions}
    for name, start in sorted((image.symbols if image.has_isf else image.exports).items(), key=lambda item: item[1]):
        pdb.publics.append(Public(decorated(name, pops.get(start, 0)), start - image.base))
    return pdb


def decorated(name: str, pops: int = 0) -> str:
    """Return a C function's name as the compiler decorates it, or a plausible C++ one of a member function."""
    if "::" in name:
        scope, _, member = name.rpartition("::")
        return f"?{member}@{'@'.join(reversed(scope.split('::')))}@@QAEXXZ"
    return f"_{name}@{pops}" if pops else f"_{name}"


def add_frame_data(pdb: Pdb, image: ImageBuilder, functions: Iterable[Function]) -> None:
    """Add FrameData: a function's first instruction, and everything after its prologue."""
    for function in functions:
        if not _is_in(image, function):
            continue
        start, size, prologue = function.start - image.base, len(function.emit()), _prologue_size(function)
        shape, parameters = function.shape, function.pops
        if prologue:
            pdb.frame_data.append(FrameRecord(start, 1, _ENTRY, 0, parameters))
        saved = 4 * len(_saved(shape))
        pdb.frame_data.append(
            FrameRecord(
                start + prologue,
                size - prologue,
                _program(shape),
                shape.size - saved,
                parameters,
                saved,
                is_function_start=not prologue,
            )
        )


def add_fpo(
    pdb: Pdb, image: ImageBuilder, functions: Iterable[Function], annotations: Mapping[str, Annotation]
) -> None:
    """Add the FPO_DATA records of the functions that `annotations` has by name."""
    for function in functions:
        annotation = annotations.get(function.name) if _is_in(image, function) else None
        if annotation is None:
            continue
        start, size, prologue = function.start - image.base, len(function.emit()), _prologue_size(function)
        if isinstance(annotation, Fpo):
            figures = annotation
            record = FpoRecord(start, size, figures.locals, figures.parameters, prologue, figures.registers)
            record.uses_base_pointer = figures.uses_ebp
        else:
            saved = len(_saved(function.shape))
            record = FpoRecord(start, size, function.shape.size // 4 - saved, function.pops // 4, prologue, saved)
            record.has_seh, record.kind = annotation == Layout.SEH, NON_FPO
        pdb.fpo.append(record)


def write_pdbs(directory: Path, pdbs: Mapping[str, Pdb]) -> None:
    """Write PDBs, by file name, as a symbol store."""
    for name, pdb in pdbs.items():
        path = directory / name / f"{pdb.guid}{pdb.age:x}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pdb.to_bytes())


def _empty(image: ImageBuilder) -> Pdb:
    assert image.pdb is not None, "an image without a debug record has no PDB"
    text = (".text", PAGE, image.text_end - image.base - PAGE)
    return Pdb(image.pdb.guid, image.pdb.age, [text], image.machine)


def _is_in(image: ImageBuilder, function: Function) -> bool:
    return image.base <= function.start < image.text_end


def _lines(function: Function, source: Source) -> list[tuple[int, str, int]]:
    """Put the last call on the line given, what is before it two lines up, what is after it on the next."""
    call = function.calls[-1]
    begin, end = call.returns_to - _call_size(call) - function.start, call.returns_to - function.start
    return [(0, source.file, source.line - 2), (begin, source.file, source.line), (end, source.file, source.line + 1)]


def _call_size(call: Call) -> int:
    if isinstance(call.via, bytes):
        return len(call.via)
    if isinstance(call.via, int):
        return 6
    return 5 if call.via == "direct" else 2


def _prologue_size(function: Function) -> int:
    code = Emitter(function.start)
    function.shape.prologue(code)
    return len(code.data)


def _saved(shape: Shape) -> dict[str, int]:
    """Return where registers are saved, from the return address's slot."""
    return {word: offset for offset, word in shape.words.items() if isinstance(word, str) and word in _SAVED}


def _program(shape: Shape) -> str:
    """Return the program for the code after the prologue."""
    saved = _saved(shape)
    if shape.alignment is not None:
        # $T1 is the return address's slot, and $T0 the rounded address below the saved ebp: locals count from there.
        return f"$T1 .raSearch = $T0 $T1 4 - {shape.alignment} @ = $ebp $T1 4 - ^ = $eip $T1 ^ = $esp $T1 4 + ="
    if shape.ebp is None:
        return _ENTRY + "".join(f" ${name} $T0 {-offset} - ^ =" for name, offset in saved.items())
    assert shape.ebp == -4, "frames of the case have ebp saved below the return address"
    others = {name: offset for name, offset in saved.items() if name != "ebp"}
    return _BODY_WITH_EBP + "".join(f" ${name} $T0 {-offset - 4} - ^ =" for name, offset in others.items())
