# SPDX-License-Identifier: Apache-2.0
"""What the build does beyond pyproject.toml.

The README as the package index shows it: there, a link to a file of the repository leads nowhere.
With THROWSTACK_REPOSITORY=https://SERVER/OWNER/NAME in the environment, as a release has it, such links lead to the
files of this version there, and the project's page names the repository. Without, they are the names of the files,
which the source distribution has.

An editable installation: plugins and tables are the checkout's, so only the start-up line is copied.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^]]+)\]\((?!https?:|#)([^)]+)\)")


class Description(MetadataHookInterface):
    """Fills in `readme` and, where the repository is known, `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the two fields to the project's `metadata`; hatchling has filled in the version by then."""
        repository = os.environ.get("THROWSTACK_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text("utf-8")
        description = described(text, f"{repository}/blob/v{metadata['version']}" if repository else "")
        metadata["readme"] = {"content-type": "text/markdown", "text": description}
        if repository:
            changes = f"{repository}/blob/v{metadata['version']}/CHANGELOG.md"
            metadata["urls"] = {"Source": repository, "Changelog": changes, "Issues": f"{repository}/issues"}


class Editable(BuildHookInterface):
    """Leaves plugins and tables where they are in an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill in what hatchling copies for `version` "editable" instead of what pyproject.toml lists."""
        if version == "editable":
            start_up = self.build_config.get_force_include()
            build_data["force_include_editable"] = {
                source: target for source, target in start_up.items() if target.endswith(".pth")
            }


def described(text: str, files: str) -> str:
    """Return `text` with its links to files made links below the address `files`; with none, made their names."""
    return _LINK.sub(rf"[\1]({files}/\2)" if files else r"\1 (`\2`)", text)
