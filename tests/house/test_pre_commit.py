# SPDX-License-Identifier: Apache-2.0
"""The hooks of pre-commit run what `make lint` runs, in its order."""

from __future__ import annotations

import re

from tests.support.vol import CHECKOUT


def lint_commands() -> list[str]:
    """Return the commands of the target `lint` of the Makefile, below the environment's `bin`."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert recipe is not None
    return re.findall(r"^\t\$\(BIN\)/(.*)$", recipe[1], re.MULTILINE)


def test_the_hooks_are_the_commands_of_make_lint():
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"entry: \.venv/bin/(.*)$", hooks, re.MULTILINE) == lint_commands()
