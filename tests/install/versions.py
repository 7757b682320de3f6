# SPDX-License-Identifier: Apache-2.0
"""The versions of volatility3 that are promised: from the oldest in pyproject.toml to the one of this environment."""

from __future__ import annotations

import re
from importlib.metadata import version

from tests.support.vol import CHECKOUT

BETWEEN = ("2.26.2", "2.27.0", "2.28.0")
"""The other releases; `make test-install-all` takes these too."""


def oldest() -> str:
    """Return the minimum that pyproject.toml gives."""
    found = re.search(r'"volatility3>=([\d.]+)"', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def newest() -> str:
    """Return the version that was installed for the tests: the newest there was."""
    return version("volatility3")
