# SPDX-License-Identifier: Apache-2.0
r"""Strings from a dump, escaped and shortened so that they can be shown.

Names of modules, types and files, and messages, are what the writer of the memory chose. A terminal would obey the
control characters in them (`\x1b]0;…` sets its title), and a right-to-left override turns `exe.cod` into `doc.exe`. So
control and format characters, line ends, lone surrogates and unassigned code points appear as `\x1b`, `\n`, `\u202e`.
A backslash stays as it is, because paths are full of them; the result is for reading and cannot be turned back.
"""

from __future__ import annotations

from throwstack.core.memory import Memory, MemoryUnreadable

LIMIT = 256
"""Default for the number of characters that are shown of a string."""

_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape(text: str, limit: int = LIMIT) -> str:
    """Return `text` with every character visible, at most `limit` characters and then `…`."""
    if len(text) <= limit and text.isprintable():
        return text
    parts: list[str] = []
    length = 0
    for character in text:
        shown = character if character.isprintable() else _escaped(character)
        length += len(shown)
        if length > limit:
            parts.append("…")
            break
        parts.append(shown)
    return "".join(parts)


def _escaped(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def decode_ansi(data: bytes) -> str:
    """Decode bytes as UTF-8 if they are valid, else as Windows-1252 (a dump does not name its code page)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "surrogateescape")


def decode_wide(data: bytes) -> str:
    """Return UTF-16-LE bytes as text. A lone surrogate is kept, and an odd last byte is left out."""
    return data[: len(data) & ~1].decode("utf-16-le", "surrogatepass")


def ansi_at(memory: Memory, address: int, limit: int = LIMIT) -> str:
    """Return the zero-terminated `char` string at `address`, escaped; it ends in `…` if no terminator was read.

    At most `limit` characters are read, and none after the first absent page.

    Raises:
        MemoryUnreadable: the first byte cannot be read.
    """
    data, is_whole = _terminated(memory, address, limit, 1)
    return _shown(decode_ansi(data), limit, is_whole)


def wide_at(memory: Memory, address: int, limit: int = LIMIT) -> str:
    """Return the zero-terminated `wchar_t` string at `address`; everything else is as in `ansi_at`."""
    data, is_whole = _terminated(memory, address, limit, 2)
    return _shown(decode_wide(data), limit, is_whole)


def _shown(text: str, limit: int, is_whole: bool) -> str:
    shown = escape(text, limit)
    return shown if is_whole or shown.endswith("…") else shown + "…"


def _terminated(memory: Memory, address: int, limit: int, unit: int) -> tuple[bytes, bool]:
    """Return the characters of `unit` bytes before the terminator, and whether one came within `limit` characters."""
    data = memory.read_available(address, (limit + 1) * unit)
    if len(data) < unit:
        raise MemoryUnreadable(address)
    if unit == 1:
        end = data.find(b"\0")
    else:
        end = next((at for at in range(0, len(data) - 1, 2) if data[at] == 0 and data[at + 1] == 0), -1)
    return (data[:end], True) if end >= 0 else (data[: limit * unit], False)
