# SPDX-License-Identifier: Apache-2.0
"""Sections of documents that commands write, each into its own place."""

from __future__ import annotations

from pathlib import Path


def section_in(text: str, title: str) -> str:
    """Return the section with this heading (`## Title`) as it is in a document; empty if it has none."""
    start = text.find(f"{title}\n")
    if start < 0:
        return ""
    end = text.find("\n## ", start + 1)
    return text[start:] if end < 0 else text[start : end + 1]


def replace_section(path: Path, title: str, new: str) -> None:
    """Put a section into a document: in the place of the one with this heading, or at the end."""
    text = path.read_text(encoding="utf-8")
    old = section_in(text, title)
    changed = text.replace(old.rstrip("\n"), new.rstrip("\n")) if old else f"{text.rstrip()}\n\n{new}"
    path.write_text(changed, encoding="utf-8")
