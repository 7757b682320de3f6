# SPDX-License-Identifier: Apache-2.0
"""The JSON schema in docs/schema describes every field of every report, no other, and the words of every enum."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import SCHEMA_VERSION, DumpReport
from throwstack.report.json_form import to_json

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schema/report-1.json").read_text("utf-8"))


def parts(schema: dict) -> dict:
    """Follow a reference of the schema."""
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def classes_in(hint: object) -> Iterator[type]:
    """Yield the classes that a type hint names: `tuple[Frame, ...] | None` → Frame."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from classes_in(inner)


def fields_with_schemas(kind: type, schema: dict, path: str = "report") -> Iterator[tuple[str, type, dict]]:
    """Yield (path, class, schema) of a dataclass and of all that it is made of, each class once."""
    seen: set[type] = set()
    pending = [(path, kind, schema)]
    while pending:
        where, kind, schema = pending.pop()
        if kind in seen:
            continue
        seen.add(kind)
        yield where, kind, schema
        for name, hint in typing.get_type_hints(kind).items():
            inside = parts(schema["properties"].get(name, {}))
            inside = parts(inside["items"]) if inside.get("type") == "array" else inside
            pending += [(f"{where}.{name}", one, inside) for one in classes_in(hint) if dataclasses.is_dataclass(one)]


ALL = list(fields_with_schemas(DumpReport, SCHEMA))


@pytest.mark.parametrize(("path", "kind", "schema"), ALL, ids=[path for path, _, _ in ALL])
def test_schema_and_dataclass_have_the_same_fields(path: str, kind: type, schema: dict):
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert set(schema["properties"]) == set(fields)
    assert schema["additionalProperties"] is False
    without_default = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert set(schema["required"]) <= without_default | {
        name for name, field in fields.items() if "always" in field.metadata or field.default in (0, False)
    }
    for name, described in schema["properties"].items():
        assert described.get("description"), f"{path}.{name} is not described"


@pytest.mark.parametrize(("path", "kind", "schema"), ALL, ids=[path for path, _, _ in ALL])
def test_the_schema_has_the_words_of_every_enum(path: str, kind: type, schema: dict):
    for name, hint in typing.get_type_hints(kind).items():
        for enum in classes_in(hint):
            if issubclass(enum, Enum):
                described = parts(schema["properties"][name])
                words = described.get("enum") or described["items"]["enum"]
                members = {to_json(member) for member in enum}
                # No user code is on the kernel's side, so a crash is not either.
                assert set(words) == members - ({"kernel"} if kind is CrashReport else set()), f"{path}.{name}"


def test_the_schemas_version_is_that_of_reports():
    assert re.fullmatch(SCHEMA["properties"]["schema_version"]["pattern"], SCHEMA_VERSION)
