# SPDX-License-Identifier: Apache-2.0
"""Reads of the dump that fail, at every place: no traceback, a warning, and the rows of what could be read.

`THROWSTACK_EVERY_READ=1` lets every read of a run fail in its turn; without it a sample of fixed seed does.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import pytest
from volatility3.framework import exceptions, interfaces
from volatility3.framework.layers import intel, linear, physical

from tests.conftest import Forge
from tests.support.checkout_plugins import PLUGINS, UNHANDLED
from tests.support.volatility_session import Session, open_dump

CASES = ("service-x64", "ftp-2003")
SAMPLE = 6
PAGE = 0x1000
FAILED = "of MEMORY.DMP failed"


class FailingFile:
    """A file whose reads may fail: `fails(number, offset, size)` is asked of each."""

    def __init__(self, file: BinaryIO, fails: Callable[[int, int, int], bool] = lambda *_: False) -> None:
        self._file = file
        self._fails = fails
        self.places: list[tuple[int, int]] = []
        """(offset, size) of the reads so far."""

    def read(self, size: int) -> bytes:
        self.places.append((self._file.tell(), size))
        if self._fails(len(self.places), *self.places[-1]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Reads:
    """An opened dump, run again and again with other faults."""

    def __init__(self, session: Session) -> None:
        self.session = session
        layers = session.context.layers
        self.file_layer = next(layers[name] for name in layers if isinstance(layers[name], physical.FileLayer))
        self._file = self.file_layer._file

    def rows(self, plugin: ModuleType, fails: Callable[[int, int, int], bool] = lambda *_: False) -> list[str]:
        """Run a plugin from a fresh start; `places` are the reads it took. Rows are texts, to be compared."""
        self._forget()
        self.file = self.file_layer._file_ = FailingFile(self._file, fails)
        try:
            return [str(sorted(row.items())) for row in self.session.rows(plugin)]
        except exceptions.SymbolSpaceError as error:
            return [f"cannot be examined: {error}"]
        finally:
            self.file_layer._file_ = self._file

    def _forget(self) -> None:
        """Forget what Volatility has kept of earlier reads, and the watches with their counts."""
        layers = self.session.context.layers
        for name in layers:
            for attribute in ("read", "is_valid"):
                vars(layers[name]).pop(attribute, None)
        interfaces.layers.TranslationLayerInterface.read.cache_clear()
        linear.LinearlyMappedLayer.read.cache_clear()
        intel.Intel._translate_entry.cache_clear()
        intel.Intel._get_valid_table.cache_clear()


@pytest.fixture(scope="module", params=CASES)
def reads(request: pytest.FixtureRequest, forged: Forge) -> Iterator[Reads]:
    out, _ = forged(request.param)
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        yield Reads(session)


def sample(places: int) -> list[int]:
    """Return the numbers of reads that fail in their turn."""
    numbers = range(1, places + 1)
    if os.environ.get("THROWSTACK_EVERY_READ"):
        return list(numbers)
    return sorted(random.Random(places).sample(numbers, SAMPLE))


def test_a_read_that_fails_once_costs_nothing_but_a_warning(reads: Reads, caplog: pytest.LogCaptureFixture):
    whole = reads.rows(UNHANDLED)
    assert caplog.messages == []
    for number in sample(len(reads.file.places)):
        caplog.clear()
        assert reads.rows(UNHANDLED, lambda now, *_, number=number: now == number) == whole
        (warning,) = caplog.messages
        assert warning.startswith("1 read of MEMORY.DMP failed at first (OSError: [Errno 5] Input/output error)")


def test_a_bad_place_is_an_absent_page(reads: Reads, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    reads.rows(UNHANDLED)
    pages = sorted({offset & -PAGE for offset, _ in reads.file.places})
    read = physical.FileLayer.read
    for number in sample(len(pages)):
        bad = pages[number - 1]

        def is_bad(_: int, offset: int, size: int, bad: int = bad) -> bool:
            return offset < bad + PAGE and bad < offset + size

        def absent(layer: Any, offset: int, length: int, pad: bool = False, is_bad: Any = is_bad) -> bytes:
            if is_bad(0, offset, length):
                raise exceptions.InvalidAddressException(layer.name, offset, "absent")
            return read(layer, offset, length, pad)

        with monkeypatch.context() as patched:
            patched.setattr(physical.FileLayer, "read", absent)
            expected = reads.rows(UNHANDLED)
        caplog.clear()
        assert reads.rows(UNHANDLED, is_bad) == expected
        assert FAILED in caplog.text


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_disk_that_goes_away_ends_no_run(reads: Reads, plugin: ModuleType, caplog: pytest.LogCaptureFixture):
    reads.rows(plugin)
    for number in sample(len(reads.file.places))[::3]:
        caplog.clear()
        reads.rows(plugin, lambda now, *_, number=number: now >= number)
        assert FAILED in caplog.text


def test_a_bad_place_of_one_process_leaves_the_rows_of_others_alone(forged: Forge, caplog: pytest.LogCaptureFixture):
    """The stack of one crashed thread is on bad sectors: of twenty rows, the others are as before."""
    out, truth = forged("peers")
    stuck = truth.stuck[0]
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        reads = Reads(session)
        whole = reads.rows(UNHANDLED)
        space = session.process_layer(stuck.pid)
        memory = session.context.layers[session.kernel_layer.config["memory_layer"]]
        bad = set()
        for frame in stuck.thread_stack[1:]:
            ((_, _, address, _, _),) = space.mapping(frame.child_sp & -PAGE, PAGE)
            ((_, _, offset, _, _),) = memory.mapping(address, PAGE)
            bad.add(offset)
        assert bad

        def is_bad(_: int, offset: int, size: int) -> bool:
            return any(offset < at + PAGE and at < offset + size for at in bad)

        found = reads.rows(UNHANDLED, is_bad)
    others = [row for row in whole if f"('TID', {stuck.tid})" not in row]
    assert len(others) == len(whole) - 1
    assert [row for row in found if f"('TID', {stuck.tid})" not in row] == others
    assert f"(PID {stuck.pid}): thread {stuck.tid}: " in caplog.text
    assert FAILED in caplog.text


def test_a_file_that_is_cut_while_it_is_read(forged: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    out, _ = forged("service-x64")
    dump = Path(shutil.copy(out / "MEMORY.DMP", tmp_path))
    with open_dump(dump, out / "isf") as session:
        reads = Reads(session)
        reads.rows(UNHANDLED)
        middle = len(reads.file.places) // 2

        def cuts(number: int, offset: int, _: int) -> bool:
            if number == middle:
                os.truncate(dump, offset - offset % PAGE)
            return False

        reads.rows(UNHANDLED, cuts)
    assert f"{FAILED} (the file has become shorter)" in caplog.text


@pytest.mark.parametrize("error", [EOFError("cut"), ValueError("I/O operation on closed file"), MemoryError()])
def test_what_a_decompressor_raises_is_a_failed_read_too(
    reads: Reads, error: Exception, caplog: pytest.LogCaptureFixture
):
    def fails(number: int, *_: int) -> bool:
        if number > 40:
            raise error
        return False

    reads.rows(UNHANDLED, fails)
    assert f"{FAILED} ({type(error).__name__}" in caplog.text
