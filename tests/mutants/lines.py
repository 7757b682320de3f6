# SPDX-License-Identifier: Apache-2.0
"""Finds which tests run which lines of some modules, with a trace of all calls while the tests run."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from types import CodeType, FrameType
from typing import Any

import pytest

_CALLS = 300
"""How many calls of a function are looked at in one test: some call it a million times, and hardly to run new lines."""


class LineRecorder:
    """A plugin of pytest that records the lines of `files` that each test runs, and how long the test takes."""

    def __init__(self, files: Collection[str]) -> None:
        """`files` are paths as code objects have them."""
        self._files = frozenset(files)
        self._seen: set[tuple[str, int]] = set()
        self._calls: Counter[CodeType] = Counter()
        self.tests: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Trace one test with its fixtures."""
        self._seen, self._calls = set(), Counter()
        started = time.process_time()
        sys.settrace(self._call)
        yield
        sys.settrace(None)
        self.seconds[item.nodeid] = time.process_time() - started
        for place in self._seen:
            self.tests[place].append(item.nodeid)

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        if event != "call" or frame.f_code.co_filename not in self._files:
            return None
        self._calls[frame.f_code] += 1
        return self._line if self._calls[frame.f_code] <= _CALLS else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line
