# SPDX-License-Identifier: Apache-2.0
"""What `throwstack doctor` says of a dump that was made to deceive whoever reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Forge
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main
from throwstack.crashdump.dump_pages import Extent
from throwstack.crashdump.file_kind import FileKind, Identity
from throwstack.crashdump.find_kernel import Kernel
from throwstack.doctor.doctor_report import DoctorReport, as_json, as_text
from throwstack.images.image import PdbIdentity
from throwstack.pages.process_coverage import ProcessCoverage
from throwstack.volatility.opening.open_image import find_isf

HOSTILE = "\x1b]0;owned\x07\x1b[31mk\r\nVerdict: all is well\u202e.pdb"
"""The title of the window, red, and a line of its own, written from right to left."""


def is_visible(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("options", [[], ["--json", "-"]])
def test_the_kernels_pdb_in_the_advice(forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str], options):
    """Its name comes from the dump, and the advice is to get the symbols of that name."""
    out, _ = forged("ftp-2003")
    data = bytearray((out / "MEMORY.DMP").read_bytes())
    record = next(re.finditer(rb"RSDS.{20}(ntkr[a-z]+\.pdb)", data, re.DOTALL))
    size = record.end(1) - record.start(1)
    data[record.start(1) : record.end(1)] = b"\x1b[31m\x07\n.pdb".ljust(size, b"x")[:size]
    dump = tmp_path / "hostile.dmp"
    dump.write_bytes(data)
    assert main(["doctor", str(dump), "-s", str(out / "isf"), *options]) == ExitStatus.DONE
    shown = capsys.readouterr().out
    assert is_visible(shown)
    texts = [shown] if not options else [json.loads(shown)["symbols"]["needed"], *json.loads(shown)["advice"]]
    assert all(is_visible(text) for text in texts)
    assert r"windows/\x1b[31m\x07\n" in texts[0]


def test_every_string_of_a_report():
    """Wherever a name gets into one: a process, a reason, a problem, the advice."""
    process = ProcessCoverage(4, HOSTILE, 1, {}, {}, [HOSTILE])
    report = DoctorReport(
        "path",
        1,
        Identity(FileKind.RAW),
        Extent(1, 1),
        Kernel(PdbIdentity(HOSTILE, "0" * 32, 1), 0),
        symbols=f"file:///{HOSTILE}",
        processes=[process],
        store_problems=(HOSTILE,),
        problems=[HOSTILE],
        advice=[HOSTILE],
    )
    lines = list(as_text(report))
    assert all(line.isprintable() for line in lines)
    assert sum("owned" in line for line in lines) >= 5
    strings = list(strings_of(as_json(report)))
    assert all(text.isprintable() for text in strings)
    assert sum("owned" in text for text in strings) >= 5


def strings_of(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", ["..", "*", "../../etc", HOSTILE])
def test_a_name_that_reaches_elsewhere_is_not_looked_for(name):
    assert find_isf(PdbIdentity(name, "0" * 32, 1)) is None
