# SPDX-License-Identifier: Apache-2.0
"""Where the paths for symbols and images come from."""

from __future__ import annotations

import pytest

from throwstack.volatility.opening import sources


@pytest.mark.parametrize(
    ("option", "setting", "variable", "path"),
    [(None, None, None, ""), (None, None, "c", "c"), (None, "b", "c", "b"), ("a", "b", "c", "a")],
)
def test_a_path_comes_from_the_option_else_the_settings_else_the_environment(
    monkeypatch, option, setting, variable, path
):
    settings = {} if setting is None else {"symbol_path": setting, "image_path": setting}
    monkeypatch.setattr(sources, "_settings", lambda: settings)
    for name in ("_NT_SYMBOL_PATH", "_NT_EXECUTABLE_IMAGE_PATH"):
        monkeypatch.delenv(name, raising=False)
        if variable is not None:
            monkeypatch.setenv(name, variable)
    assert sources.paths(option, option) == (path, path)
