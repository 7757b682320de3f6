# SPDX-License-Identifier: Apache-2.0
"""The report of every forged case as JSON: it follows the schema, and says what the case's truth says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

import throwstack
from tests.conftest import Forge
from tests.forge.cases import builders

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schema/report-1.json").read_text("utf-8"))
VALID = fastjsonschema.compile(SCHEMA)
CASES = sorted(builders())


def report_of(out: Path) -> dict[str, Any]:
    with throwstack.open(out / "MEMORY.DMP", symbols=[out / "isf"], symbol_path="", offline=True) as dump:
        return json.loads(json.dumps(throwstack.to_json(dump.report())))


@pytest.mark.parametrize("case", CASES)
def test_the_report_of_a_case_follows_the_schema_and_tells_the_truth(forged: Forge, case: str):
    out, truth = forged(case)
    report = report_of(out)
    VALID(report)
    found = {(crash["process"]["pid"], crash["tid"]): crash for crash in report["crashes"]}
    thrown = {where for where, crash in found.items() if crash.get("exceptions")}
    assert thrown == {(stuck.pid, stuck.tid) for stuck in truth.stuck}
    assert all("throwing" not in found[where] for where in found.keys() - thrown)
    for stuck in truth.stuck:
        crash = found[stuck.pid, stuck.tid]
        frames = [frame for frame in crash["throwing"]["frames"] if frame["trust"] != "inline"]
        assert [int(frame["ip"], 16) for frame in frames] == [frame.ip for frame in stuck.frames]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda report: report.update(colour="red"), "colour"),
        (lambda report: report.pop("crashes"), "crashes"),
        (lambda report: report["crashes"][0].update(tid="0xae8"), "tid"),
        (lambda report: report["crashes"][0]["exceptions"][0].update(code=5), "code"),
        (lambda report: report["crashes"][0]["exceptions"][0].update(address="0X45"), "address"),
        (lambda report: report["crashes"][0]["verdict"].update(code="sleeping"), "verdict"),
    ],
)
def test_a_report_of_another_form_does_not_follow_the_schema(forged: Forge, change: Any, words: str):
    out, _ = forged("ftp-2003")
    report = report_of(out)
    change(report)
    with pytest.raises(fastjsonschema.JsonSchemaException, match=words):
        VALID(report)
