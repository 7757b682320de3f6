# SPDX-License-Identifier: Apache-2.0
"""The crashes of a scan by signature."""

from __future__ import annotations

from typing import Any

from tests.scan.made_records import made_crash, made_record
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.overview import crash_groups
from throwstack.scan.overview.crash_groups import CrashGroups


def collected(*records: DumpRecord) -> dict[str, Any]:
    groups = CrashGroups()
    assert list(groups.collected(records)) == list(records)
    return groups.as_json()


def test_crashes_with_one_signature_are_a_group():
    values = collected(
        made_record("/a", made_crash(), made_crash(tid=16), day="2026-03-02"),
        made_record("/b", made_crash("app!other"), made_crash(), day="2026-03-01"),
    )
    first, second = values["groups"]
    assert (first["signature"], first["crashes"], first["dumps"]) == ("app!main", 3, 2)
    assert (first["first"], first["last"]) == ("2026-03-01", "2026-03-02")
    assert first["days"] == [["2026-03-01", 1], ["2026-03-02", 2]]
    assert (second["signature"], second["crashes"]) == ("app!other", 1)
    assert values["crashes"] == 4


def test_a_group_has_its_different_stacks_once_each():
    records = [
        made_record("/a", made_crash(), made_crash(frames=("app!main+0x9",))),
        made_record("/b", made_crash(), made_crash(frames=())),
    ]
    (group,) = collected(*records)["groups"]
    assert group["stacks"] == [["app!main+0x2"], ["app!main+0x9"], []]
    assert [listed[-1] for listed in group["listed"]] == [0, 1, 0, 2]


def test_the_version_is_that_of_the_module_in_the_signature():
    modules = [{"name": "ntdll", "version": "10.0"}, {"name": "App", "version": "2.1"}]
    record = made_record("/a", made_crash("ntdll!x | app!main"), processes=[{"pid": 8, "modules": modules}])
    (group,) = collected(record)["groups"]
    assert group["versions"] == ["2.1"]


def test_machines_are_counted_once_each():
    records = [made_record(f"/{number}", made_crash(), machine=f"WEB{number % 2}") for number in range(5)]
    (group,) = collected(*records, made_record("/9", made_crash()))["groups"]
    assert (group["dumps"], group["machines"], group["machine_names"]) == (6, 2, ["WEB0", "WEB1"])


def test_a_crash_without_signature_stack_or_exception():
    crash = made_crash()
    for absent in ("signature", "throwing", "exceptions"):
        del crash[absent]
    (group,) = collected(made_record("/a", crash))["groups"]
    assert (group["signature"], group["what"], group["stacks"]) == ("", "", [[]])


def test_a_dump_has_its_health():
    warnings = [{"code": "stack", "text": "a stack cannot be read"}]
    file = {"name": "a", "size": 1, "kind": "crash-dump", "description": "", "expected_pages": 9, "missing_pages": 3}
    values = collected(
        made_record("/a", warnings=warnings, file=file),
        DumpRecord("/b", "k", DumpOutcome.NO_MEMORY_IMAGE, reason="this is text"),
    )
    assert values["outcomes"] == {"examined": 1, "no-memory-image": 1}
    whole, foreign = values["dumps"]
    assert whole[5:9] == [0, 1, ["a stack cannot be read"], 3]
    assert foreign[:3] == ["/b", "no-memory-image", "this is text"]


def test_what_is_listed_is_limited_and_what_is_counted_is_not(monkeypatch):
    monkeypatch.setattr(crash_groups, "MOST_GROUPS", 2)
    monkeypatch.setattr(crash_groups, "_MOST_CRASHES", 3)
    monkeypatch.setattr(crash_groups, "_MOST_DUMPS", 4)
    records = [made_record(f"/{number}", made_crash(), made_crash(f"app!f{number}")) for number in range(5)]
    values = collected(*records)
    assert [(group["crashes"], len(group["listed"])) for group in values["groups"]] == [(5, 3), (1, 1)]
    assert (values["left_out"], values["crashes"]) == (4, 10)
    assert (values["dumps_in_all"], len(values["dumps"])) == (5, 4)


def test_a_long_stack_is_cut():
    (group,) = collected(made_record("/a", made_crash(frames=tuple(f"app!f{n}" for n in range(500)))))["groups"]
    assert (len(group["stacks"][0]), group["stacks"][0][-1]) == (61, "… 440 more")
