# SPDX-License-Identifier: Apache-2.0
"""What a test says of a PDB that is to be written: functions with lines and variables, types, public symbols, frames.

`tests.support.pdb_writer` writes it. The words are CodeView's (`cvinfo.h`); addresses are RVAs of the image, figures
are in bytes where nothing else is said. Types are given by name, as C++ spells them: `int`, `IErrorInfo*`, `char[8]`,
`const char*`, or the name of a type in `Pdb.types`; `struct Item` is the declaration of `Item` alone. A name that is in
neither list is a structure that was declared and never defined.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

X86, X64 = 0x14C, 0x8664


class Convention(IntEnum):
    """How a function takes its parameters (`CV_call_e`)."""

    CDECL = 0
    FASTCALL = 4
    STDCALL = 7
    THISCALL = 11
    VECTORCALL = 24


class Register(IntEnum):
    """Registers by CodeView's numbers (`CV_HREG_e`): those of x86, those of x64, and the virtual frame of FPO code."""

    EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(17, 25)
    RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP = range(328, 336)
    R8, R9, R10, R11, R12, R13, R14, R15 = range(336, 344)
    VFRAME = 30006


class Tag(Enum):
    """The kind of a structured type."""

    CLASS = 0x1504
    STRUCT = 0x1505
    UNION = 0x1506


@dataclass(frozen=True)
class Member:
    """A member of a structure; `bits` are (width, position) of a bit field."""

    name: str
    type: str
    offset: int
    bits: tuple[int, int] | None = None


@dataclass(frozen=True)
class Structure:
    """A class, structure or union. `bases` are (type, offset) of the classes it is derived from.

    `virtual_bases` are its virtual base classes, by type. `has_function_table` says whether it begins with a pointer
    to the table of its virtual functions. `others` are further definitions of the name, as other source files may have
    them.
    """

    size: int
    members: tuple[Member, ...] = ()
    bases: tuple[tuple[str, int], ...] = ()
    tag: Tag = Tag.STRUCT
    has_wide_properties: bool = False
    """Written as LF_CLASS2 or LF_STRUCTURE2, as current Visual C++ does for some; a union has no such form here."""
    others: tuple[Structure, ...] = ()
    virtual_bases: tuple[str, ...] = ()
    has_function_table: bool = False


@dataclass(frozen=True)
class Enumeration:
    """An enumeration: its values by name."""

    values: dict[str, int]
    underlying: str = "int"


@dataclass(frozen=True)
class Place:
    """Where an optimised variable is while the code from `begin` to `end` (offsets in the function) runs.

    In `register`; or, with an `offset`, in memory at that offset from the register, or from the frame pointer that
    S_FRAMEPROC names if there is no register. An `end` of None means the whole function (only without a register).
    `gaps` are (offset from `begin`, length). `part` is the offset in the variable of the part that is there.
    """

    begin: int = 0
    end: int | None = None
    register: Register | None = None
    offset: int | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    part: int | None = None


@dataclass(frozen=True)
class Variable:
    """A parameter or local with one place that holds for the whole function, as unoptimised code has (S_BPREL32,
    S_REGREL32, S_REGISTER): at `offset` from `register`, from the frame without one, in `register` without an offset.
    """

    name: str
    type: str
    offset: int | None = None
    register: Register | None = None


@dataclass(frozen=True)
class Local:
    """A parameter or local of optimised code (S_LOCAL with its places); without a place it was optimised out."""

    name: str
    type: str
    places: tuple[Place, ...] = ()
    is_parameter: bool = False


@dataclass(frozen=True)
class Constant:
    """A local whose value the compiler knew (S_CONSTANT)."""

    name: str
    type: str
    value: int


@dataclass(frozen=True)
class Static:
    """A local that is in a section of the image (S_LDATA32), at an RVA."""

    name: str
    type: str
    rva: int


@dataclass(frozen=True)
class FrameInfo:
    """S_FRAMEPROC. `local_base` and `parameter_base` are its two bits for the frame pointer.

    On x86 1 is the virtual frame, 2 ebp, 3 ebx; on x64 1 is rsp, 2 rbp, 3 r13. Visual C++ 8 and 9 write 0.
    """

    size: int = 0
    saved_registers: int = 0
    local_base: int = 0
    parameter_base: int = 0
    is_optimised: bool = False
    has_handlers: bool = False


@dataclass(frozen=True)
class Block:
    """A nested scope (S_BLOCK32) at `begin`, an offset in the function, with what is declared in it."""

    begin: int
    size: int
    items: tuple[Item, ...] = ()
    name: str = ""


@dataclass
class Inline:
    """A function inlined at `ranges`: (offset in the procedure, size in bytes, line). `line` is where it begins.

    `this` and `this_adjust` are as in `Procedure`.
    """

    name: str
    file: str
    line: int
    ranges: list[tuple[int, int, int]]
    inlines: list[Inline] = field(default_factory=list)
    items: tuple[Variable | Local, ...] = ()
    parameters: tuple[str, ...] = ()
    this: str | None = None
    this_adjust: int = 0


Item = Variable | Local | Constant | Static | FrameInfo | Block


@dataclass
class Procedure:
    """A function. `lines` are (offset in it, file, line); `parameters` are type names, None for no type at all.

    `items` are its variables and the like, in the order of their records. `this` is the class of a member function, and
    `this_adjust` how far into an object of it its `this` points. `has_fp` is the flag that says that the function has a
    frame pointer, `has_optimised_details` the one that its places are those of optimised code. `parts` are (RVA, size)
    of the parts that were separated from it (S_SEPCODE). `module` is the object file. A `typed_by_id` procedure refers
    to LF_FUNC_ID, as in an object file.
    """

    name: str
    rva: int
    size: int
    lines: list[tuple[int, str, int]] = field(default_factory=list)
    parameters: tuple[str, ...] | None = None
    inlines: list[Inline] = field(default_factory=list)
    returns: str = "void"
    convention: Convention = Convention.CDECL
    items: tuple[Item, ...] = ()
    this: str | None = None
    this_adjust: int = 0
    has_fp: bool = False
    has_optimised_details: bool = False
    is_local: bool = False
    parts: tuple[tuple[int, int], ...] = ()
    module: str = "module.obj"
    typed_by_id: bool = False


@dataclass(frozen=True)
class Thunk:
    """A jump that the linker made. With a `name` it is S_THUNK32, else the S_TRAMPOLINE of an incremental link."""

    rva: int
    size: int
    target: int
    name: str = ""


@dataclass
class Public:
    """A public symbol, decorated as in the object file."""

    name: str
    rva: int
    is_function: bool = True


@dataclass
class FrameRecord:
    """A FrameData record ("new FPO"). Sizes in bytes."""

    rva: int
    size: int
    program: str
    locals: int = 0
    parameters: int = 0
    saved_registers: int = 0
    prologue: int = 0
    max_stack: int = 0
    is_function_start: bool = True
    has_seh: bool = False
    has_eh: bool = False


@dataclass
class FpoRecord:
    """An FPO_DATA record. `locals` and `parameters` count 4-byte words, `kind` is cbFrame: 0 FPO … 3 not FPO."""

    rva: int
    size: int
    locals: int = 0
    parameters: int = 0
    prologue: int = 0
    saved_registers: int = 0
    uses_base_pointer: bool = False
    kind: int = 0
    has_seh: bool = False
