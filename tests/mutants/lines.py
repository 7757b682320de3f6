# SPDX-License-Identifier: Apache-2.0
"""Finds which tests run which lines of some modules, with a trace of all calls while the tests run."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Collection
from types import FrameType
from typing import Any

import pytest

_CALLS = 100_000
"""A test that makes more calls is not looked at further. It is taken to run every line."""


class LineRecorder:
    """A plugin of pytest that records the lines of `files` that each test runs, and how long the test takes.

    `tests` are the tests of each line, and `long` are those of which it was not recorded what they run.
    """

    def __init__(self, files: Collection[str]) -> None:
        """`files` are paths as code objects have them."""
        self._files = frozenset(files)
        self._seen: set[tuple[str, int]] = set()
        self._calls = 0
        self.tests: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.long: list[str] = []
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Trace one test with its fixtures."""
        self._seen, self._calls = set(), 0
        started = time.process_time()
        sys.settrace(self._call)
        yield
        sys.settrace(None)
        self.seconds[item.nodeid] = time.process_time() - started
        if self._calls > _CALLS:
            self.long.append(item.nodeid)
            return
        for place in self._seen:
            self.tests[place].append(item.nodeid)

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        self._calls += 1
        if self._calls > _CALLS:
            sys.settrace(None)
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line
