# SPDX-License-Identifier: Apache-2.0
"""Turns reports into JSON: `to_json` turns any report into what `json.dumps` takes.

`docs/schema` describes every field. The rules are few. A dataclass becomes an object with its fields. A field that is
not known or is empty is left out, except fields without a default and the lists of a `DumpReport`, which are always
present. Addresses, codes and registers (`Hexadecimal`) become text, `"0x7c828752"`. Members of an enum become words,
`"frame-pointer"`. Times are in ISO 8601 and in UTC. All other numbers stay numbers.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from enum import Enum
from typing import Any

from throwstack.report.values import Hexadecimal


def to_json(value: object) -> Any:  # noqa: ANN401 what JSON is made of
    """Return a report, or a part of one, as dictionaries, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if _is_always_there(field) or not _is_absent(getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _scalar(value)


def _is_always_there(field: dataclasses.Field[Any]) -> bool:
    has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return not has_default or "always" in field.metadata


def _scalar(value: object) -> object:
    if isinstance(value, Enum):
        return value.name.lower().replace("_", "-")
    if isinstance(value, Hexadecimal):
        return str(value)
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def _is_absent(value: object) -> bool:
    """Say whether a value is left out: None, an empty text, tuple or mapping. Zero and False are not left out."""
    return value is None or (isinstance(value, str | tuple | Mapping) and not value)
