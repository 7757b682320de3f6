# SPDX-License-Identifier: Apache-2.0
"""The error of everything that reads a managed image: its headers, its metadata, the tables of its compiled code."""

from __future__ import annotations

from throwstack.core.errors import ThrowstackError


class MetadataError(ThrowstackError):
    """Metadata, or a part of it, cannot be read or is damaged. The message says what and why."""
