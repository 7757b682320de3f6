# SPDX-License-Identifier: Apache-2.0
"""The progress bar: shown on terminals that can take it away again, and nowhere else."""

from __future__ import annotations

import io

import pytest

from throwstack.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "is_shown"),
    [
        (Terminal(), "xterm", True),
        (Terminal(), "dumb", False),
        (io.StringIO(), "xterm", False),
    ],
)
def test_who_sees_a_bar(stream: io.StringIO, term: str, is_shown: bool, monkeypatch: pytest.MonkeyPatch):
    """The shell of an editor is such a dumb terminal: it would keep a line for each bar."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar() as progress:
        assert (progress is not None) is is_shown
        if progress is not None:
            progress(40.0, "app.exe (4)")
    assert bool(stream.getvalue()) is is_shown
