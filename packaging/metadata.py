# SPDX-License-Identifier: Apache-2.0
"""The README as the package index shows it: there, a link to a file of the repository leads nowhere.

With THROWSTACK_REPOSITORY=https://SERVER/OWNER/NAME in the environment, as a release has it, such links lead to the
files of this version there, and the project's page names the repository. Without, they are the names of the files,
which the source distribution has.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

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


def described(text: str, files: str) -> str:
    """Return `text` with its links to files made links below the address `files`; with none, made their names."""
    return _LINK.sub(rf"[\1]({files}/\2)" if files else r"\1 (`\2`)", text)
