# SPDX-License-Identifier: Apache-2.0
"""Signatures over whole dumps: the same fault on two machines, whose system DLLs are elsewhere, and two faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.forge.__main__ import forge
from tests.forge.cases import builders, service_code, threads_x64, windows_x64
from tests.support.vol import vol

DISTANCE = 0x1230000
"""How much further up the second machine loads its system DLLs."""


def rows(out: Path) -> list[dict[str, Any]]:
    return vol(out, "windows.unhandled").rows


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The case service-x64, forged as after another boot: every system DLL at another base."""
    layout = {stem: (base + DISTANCE, *rest) for stem, (base, *rest) in windows_x64._LAYOUT.items()}
    with pytest.MonkeyPatch.context() as patch:
        for module in (windows_x64, service_code, threads_x64):
            for name in {"NTDLL", "KERNEL32", "KERNELBASE", "UCRT", "VCRUNTIME"} & vars(module).keys():
                patch.setattr(module, name, getattr(module, name) + DISTANCE)
        patch.setattr(windows_x64, "_LAYOUT", layout)
        case = builders()["service-x64"][0]()
    forge(case, tmp_path)
    return tmp_path


def test_one_fault_has_one_signature_wherever_the_modules_lie(forged: Forge, elsewhere: Path):
    out, _ = forged("service-x64")
    here, there = rows(out), rows(elsewhere)
    # What was thrown came out of KERNELBASE, which has moved; the fault was in the program itself, which has not.
    assert [row["Address"] for row in there] == [here[0]["Address"] + DISTANCE, here[1]["Address"]]
    assert [row["Signature"] for row in there] == [row["Signature"] for row in here]
    assert all(row["Signature"] for row in here)


def test_two_faults_have_two_signatures(forged: Forge):
    out, _ = forged("service-x64")
    first, second = rows(out)
    assert first["Signature"] != second["Signature"]
