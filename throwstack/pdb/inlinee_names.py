# SPDX-License-Identifier: Apache-2.0
"""Names of inlined functions: a PDB has them as ids, records of its IPI stream.

Follows `cvinfo.h` of Microsoft's microsoft-pdb (LF_FUNC_ID, LF_MFUNC_ID, LF_STRING_ID). An id has the function's own
name, and the id of its namespace or the type of its class.
"""

from __future__ import annotations

import re
import struct

from throwstack.pdb.codeview import string
from throwstack.pdb.remembered import Remembered
from throwstack.pdb.type_model import Enumeration, Structure
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.types import Types

_LF_FUNC_ID, _LF_MFUNC_ID, _LF_STRING_ID = 0x1601, 0x1602, 0x1605
_WORDS = struct.Struct("<II")
_ANONYMOUS = re.compile(r"\?A0x[0-9a-f]{8}(?=::)")
"""How Visual C++ spells an anonymous namespace here: a number for each object file that has one."""
_MAX_SCOPES = 16
_MAX_REMEMBERED = 4 << 20


class InlineeNames:
    """Names of functions by their id, and the numbers of their types."""

    def __init__(self, ids: TypeStream | None, types: Types) -> None:
        """`ids` is the IPI stream, or None if the PDB has none."""
        self._ids = ids
        self._types = types
        self._known = Remembered[int, tuple[str, int]](_MAX_REMEMBERED, lambda found: len(found[0]))

    def of(self, number: int) -> tuple[str, int]:
        """Return name and type of the function with the id `number`; ("", 0) if there is none. Raises `NotAPdb`."""
        return self._known.get(number, self._read)

    def _read(self, number: int) -> tuple[str, int]:
        kind, data = self._record(number)
        if len(data) < _WORDS.size or kind not in {_LF_FUNC_ID, _LF_MFUNC_ID}:
            return "", 0
        scope, type_ = _WORDS.unpack_from(data)
        outer = self._class_name(scope) if kind == _LF_MFUNC_ID else self._namespace(scope)
        name = string(data, _WORDS.size)[0]
        whole = f"{outer}::{name}" if outer else name
        return _ANONYMOUS.sub("`anonymous namespace'", whole), type_

    def _record(self, number: int) -> tuple[int, bytes]:
        return (None if self._ids is None else self._ids.record(number)) or (0, b"")

    def _class_name(self, number: int) -> str:
        found = self._types.type(number)
        return found.name if isinstance(found, (Structure, Enumeration)) else ""

    def _namespace(self, number: int) -> str:
        names: list[str] = []
        for _ in range(_MAX_SCOPES):
            kind, data = self._record(number) if number else (0, b"")
            if kind == _LF_STRING_ID:
                names.append(string(data, 4)[0])
                break
            if kind != _LF_FUNC_ID or len(data) < _WORDS.size:
                break
            names.append(string(data, _WORDS.size)[0])
            number = _WORDS.unpack_from(data)[0]
        return "::".join(reversed(names))
