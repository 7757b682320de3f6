# SPDX-License-Identifier: Apache-2.0
"""Two hooks of the build, for what pyproject.toml cannot say.

The README on the package index: links to files of the repository would lead nowhere there. A release sets
THROWSTACK_REPOSITORY=https://SERVER/OWNER/NAME; then such links lead to the files of this version in the repository,
and the project's page names the repository. Without the variable they are replaced by the names of the files, which are
in the source distribution.

Editable installations: plugins and tables are used from the checkout, so only the start-up line is installed.
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
        """If `version` is "editable", make hatchling copy the .pth file and nothing else that pyproject.toml lists."""
        if version == "editable":
            start_up = self.build_config.get_force_include()
            build_data["force_include_editable"] = {
                source: target for source, target in start_up.items() if target.endswith(".pth")
            }


def described(text: str, files: str) -> str:
    """Return `text` with links to files of the repository turned into links below the URL `files`.

    If `files` is "", they are turned into the names of the files.
    """
    return _LINK.sub(rf"[\1]({files}/\2)" if files else r"\1 (`\2`)", text)
