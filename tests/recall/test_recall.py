# SPDX-License-Identifier: Apache-2.0
"""A sample of `make recall`, always the same: no loss of one thing makes a stuck thread vanish without a word."""

from __future__ import annotations

from unittest import mock

import pytest

from tests.recall.losses import Kind
from tests.recall.measure import Measurement, Outcome, Result, Sample
from tests.recall.subjects import BY_EXPORTS, forged
from throwstack.stuck.triage import Examination, Triage

X64 = (
    *(
        "service-x64",
        "service-x64-exports",
        "nested-exports",
        "shutdown-hang",
        "shutdown-hang-exports",
        "fleet-exports",
    ),
    *("handlers-x64", "handlers-x64-exports"),
)
X86 = ("ftp-2003", "ftp-2003-exports", "wow64-service", "handlers-x86-exports")


def sampled(name: str, sample: Sample) -> list[Outcome]:
    with forged(name) as subject:
        return list(Measurement(subject).outcomes(sample))


@pytest.mark.parametrize(("name", "most"), [*((name, 16) for name in X64), *((name, 4) for name in X86)])
def test_no_loss_silences_a_stuck_thread(name: str, most: int):
    outcomes = sampled(name, Sample(most, seed=16))
    assert [str(one) for one in outcomes if one.result is Result.SILENT or one.false] == []
    assert {one.kind for one in outcomes} >= set(Kind) - {Kind.UNWIND}  # x86 has no function tables


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("handlers-x86", Kind.STUB, "0x13ff"),
        ("handlers-x86-exports", Kind.STUB, "0x33ff"),
        ("nested-exports", Kind.STUB, ""),
        ("nested-exports", Kind.ZERO, ""),
    ],
)
def test_a_guess_that_jumps_over_a_dispatch_is_a_doubt(name: str, kind: Kind, what: str):
    """The frame pointer is that of a frame outside the dispatch, or a return address inside the dispatch is lost."""
    outcomes = sampled(name, Sample(kinds=[kind], what=what))
    assert outcomes
    bad = {Result.SILENT, Result.WRONG}
    assert [str(one) for one in outcomes if one.result in bad or one.false] == []


@pytest.mark.parametrize("case", ["quiet", "quiet-x86", "decoys-x64", "decoys-x86", "deadlock", "fleet", "peers"])
@pytest.mark.parametrize("symbols", ["", BY_EXPORTS])
def test_dumps_without_a_loss_have_no_warning(case: str, symbols: str):
    with forged(case + symbols) as subject:
        assert Measurement(subject).undamaged() == []


def test_a_row_that_is_lost_without_a_word_is_noticed():
    with mock.patch.object(Triage, "examine", return_value=Examination(None)):
        outcomes = sampled("nested", Sample(2, kinds=[Kind.TEB, Kind.ZERO]))
    assert {one.result for one in outcomes} == {Result.SILENT}


def test_a_doubt_is_a_warning_about_the_thread():
    with mock.patch.object(Triage, "examine", return_value=Examination(None, ("its stack cannot be read",))):
        [outcome] = sampled("nested", Sample(1, kinds=[Kind.TEB]))
    assert (outcome.tid, outcome.result) == (6108, Result.WARNING)
    assert str(outcome).endswith(": warning; its stack cannot be read")
