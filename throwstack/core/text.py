# SPDX-License-Identifier: Apache-2.0
r"""Strings from a dump, escaped and shortened so that they can be shown.

Names of modules, types and files, and messages, may have been chosen by an attacker. A terminal would obey the control
characters in them (`\x1b]0;…` sets its title), and a right-to-left override makes `exe.cod` appear as `doc.exe`. So
control and format characters, line ends, lone surrogates and unassigned code points are shown as `\x1b`, `\n`,
`\u202e` and the like. A backslash stays as it is, because paths are full of backslashes. So the result is for reading
only: the original string cannot be recovered from it.
"""

from __future__ import annotations

import re

from throwstack.core.memory import Memory, MemoryUnreadable

LIMIT = 256
"""Default for the most characters that are shown of a string."""

_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters that Python counts as printable and that have no ink: those with Default_Ignorable_Code_Point in Unicode's
DerivedCoreProperties.txt, and the empty Braille pattern. With one in it, a second `lsass` looks like the first."""
_MARK = re.compile(r'(\\*)"')
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape(text: str, limit: int = LIMIT) -> str:
    """Return `text` with every character visible; if that is more than `limit` characters, cut it and append `…`."""
    if len(text) <= limit and is_visible(text):
        return text
    parts: list[str] = []
    length = 0
    for character in text:
        shown = character if is_visible(character) else _escaped(character)
        length += len(shown)
        if length > limit:
            parts.append("…")
            break
        parts.append(shown)
    return "".join(parts)


def is_visible(text: str) -> bool:
    """Say whether each character of `text` can be seen, or is a space between those that can."""
    return text.isprintable() and (text.isascii() or _BLANK.search(text) is None)


def _escaped(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str, limit: int = LIMIT, *, is_whole: bool = True) -> str:
    r"""Return `text` escaped as `escape` does, in quotation marks; those in it, and backslashes, are escaped as in C++.

    So `\n` is the end of a line, and `\\n` is a backslash and an n. If `is_whole` is False, or if the text is cut, `…`
    is its end.
    """
    shown = escape(text.replace("\\", r"\\").replace('"', r"\""), limit)
    return f'"{shown if is_whole or shown.endswith("…") else shown + "…"}"'


def in_quotes(shown: str) -> str:
    r"""Return `shown`, which is escaped already, in quotation marks. Nothing in it can look like the closing one.

    Example: a message is `no", HRESULT 0x80004005 E_FAIL`. The title `Shop.X "no\", HRESULT 0x80004005 E_FAIL"` has no
    HRESULT. Quotation marks and backslashes are written as on a command line of Windows: a backslash stays as it is, so
    that paths can be read, but those before a quotation mark are doubled, and that one has a backslash of its own.
    """
    whole = with_marked_quotes(shown)
    return f'"{whole}{_last_backslashes(whole)}"'


def with_marked_quotes(shown: str) -> str:
    r"""Return `shown` with its quotation marks written as `in_quotes` does: a name in which no text seems to begin."""
    return _MARK.sub(lambda found: 2 * found[1] + '\\"', shown) if '"' in shown else shown


def _last_backslashes(text: str) -> str:
    return text[len(text.rstrip("\\")) :]


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
    """Return the zero-terminated `char` string at `address`, escaped.

    At most `limit` characters are read, and none after the first absent page. If the terminator is not among what was
    read, the result ends in `…`.

    Raises:
        MemoryUnreadable: the first byte cannot be read.
    """
    return _shown(*text_at(memory, address, limit, 1), limit)


def wide_at(memory: Memory, address: int, limit: int = LIMIT) -> str:
    """Return the zero-terminated `wchar_t` string at `address`, with the limits, `…` and errors of `ansi_at`."""
    return _shown(*text_at(memory, address, limit, 2), limit)


def text_at(memory: Memory, address: int, limit: int, unit: int) -> tuple[str, bool]:
    """Return the zero-terminated string at `address` as it is, of characters of 1 or 2 bytes, and whether it is whole.

    The limits and errors are those of `ansi_at`.
    """
    data, is_whole = _terminated(memory, address, limit, unit)
    return (decode_ansi if unit == 1 else decode_wide)(data), is_whole


def _shown(text: str, is_whole: bool, limit: int) -> str:
    shown = escape(text, limit)
    return shown if is_whole or shown.endswith("…") else shown + "…"


def _terminated(memory: Memory, address: int, limit: int, unit: int) -> tuple[bytes, bool]:
    """Return the bytes of a string up to its terminator, and whether a terminator was found.

    A character has `unit` bytes. Without a terminator within `limit` characters, the first `limit` are returned.
    """
    data = memory.read_available(address, (limit + 1) * unit)
    if len(data) < unit:
        raise MemoryUnreadable(address)
    if unit == 1:
        end = data.find(b"\0")
    else:
        end = next((at for at in range(0, len(data) - 1, 2) if data[at] == 0 and data[at + 1] == 0), -1)
    return (data[:end], True) if end >= 0 else (data[: limit * unit], False)
