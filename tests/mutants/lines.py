# SPDX-License-Identifier: Apache-2.0
"""Finds which tests run which lines of some modules, with a trace of all calls while the tests run."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any

import pytest


class LineRecorder:
    """A plugin of pytest that records the lines of `files` that each test runs, and how long the test takes."""

    def __init__(self, files: Collection[str]) -> None:
        """`files` are paths as code objects have them."""
        self._files = frozenset(files)
        self._seen: set[tuple[str, int]] = set()
        self.tests: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Trace one test with its fixtures."""
        self._seen = set()
        started = time.perf_counter()
        sys.settrace(self._call)
        yield
        sys.settrace(None)
        self.seconds[item.nodeid] = time.perf_counter() - started
        for place in self._seen:
            self.tests[place].append(item.nodeid)

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        return self._line if event == "call" and frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def record(files: Collection[str], arguments: Sequence[str]) -> LineRecorder:
    """Run pytest with `arguments` in this process, and return what was recorded.

    Raises RuntimeError if a test fails.
    """
    recorder = LineRecorder(files)
    if pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *arguments], plugins=[recorder]):
        message = "the tests fail without a change"
        raise RuntimeError(message)
    return recorder
