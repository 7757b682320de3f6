# SPDX-License-Identifier: Apache-2.0
"""Leaves out what needs the extra `scan` where that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("distributed") else ["test_examiner.py", "test_run_scan.py"]
