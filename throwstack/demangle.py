# SPDX-License-Identifier: Apache-2.0
"""Readable names for mangled ones, by LLVM's demanglers (`pydemumble`).

The names come from hostile memory, and a mangled name can refer back to its own parts: a hundred characters can
stand for gigabytes. Hence the limits below; what exceeds them keeps its mangled form.
"""

from __future__ import annotations

import re

from pydemumble import demangle as _llvm_demangle

MAX_LENGTH = 1024
_MAX_BACK_REFERENCES = 24
"""Each back reference is one digit and can at most multiply the result by 1.45: by 7,000 in all."""

_MANGLED = re.compile(r"(?:\?|_Z|__Z|\.)[!-~]+")
_ITANIUM_REFERENCE = re.compile(r"S[0-9A-Z]*_|T(?:L[0-9]*_)?[0-9]*_")
_RTTI_SUFFIX = "`RTTI Type Descriptor Name'"
_STRINGS = tuple(
    (f"std::basic_string<{unit}, std::char_traits<{unit}>, std::allocator<{unit}>>", short)
    for unit, short in (("char", "std::string"), ("wchar_t", "std::wstring"))
)
_KEYWORD = re.compile(r"\b(?:class|struct|union|enum) ")


def demangle(name: str) -> str:
    """Return the readable form of a function's or variable's mangled name, or `name` itself if there is none."""
    return name if name.startswith(".") else _demangled(name) or name


def rtti_type_name(name: str) -> str:
    """Return the C++ type that the name in an MSVC TypeDescriptor stands for; "" if it is not such a name.

    `.?AVruntime_error@std@@` is `std::runtime_error`, `.PEBD` is `char const *`, `.H` is `int`.
    """
    if not name.startswith("."):
        return ""
    found = _demangled(name)
    if _RTTI_SUFFIX not in found:
        return ""
    readable = _KEYWORD.sub("", found.replace(_RTTI_SUFFIX, "")).strip()
    for expanded, short in _STRINGS:
        readable = readable.replace(expanded, short)
    return readable


def itanium_type_name(name: str) -> str:
    """Return the C++ type that the name in a GCC `type_info` stands for (`St13runtime_error`); "" if it is not one."""
    prefix = "typeinfo name for "
    found = _demangled(f"_ZTS{name}")
    return found[len(prefix) :] if found.startswith(prefix) else ""


def _demangled(name: str) -> str:
    if len(name) > MAX_LENGTH or not _MANGLED.fullmatch(name):
        return ""
    references = len(_ITANIUM_REFERENCE.findall(name)) if name.startswith("_") else sum(map(str.isdigit, name))
    if references > _MAX_BACK_REFERENCES:
        return ""
    found = _llvm_demangle(name)
    return found if isinstance(found, str) else ""
