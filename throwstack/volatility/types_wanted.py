# SPDX-License-Identifier: Apache-2.0
"""Says for `--locals` which modules on the stacks have no variables to show, because no PDB at hand has their types."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from throwstack.core.text import escape
from throwstack.files.needed_files import NeededFile, files_for_variables
from throwstack.unwind.target import Target
from throwstack.volatility.memory.guarded import guarded

log = logging.getLogger(__name__)

_MAX_NAMED = 8


class TypesWanted:
    """Collects the PDBs that would give the variables of the modules on stacks, each once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._files: dict[str, NeededFile] = {}

    def add(self, target: Target, addresses: Iterable[int]) -> None:
        """Add the PDBs that are wanted for the modules of `target` that have these addresses."""
        with guarded(partial(log.warning, "not all PDBs that --locals wants are known: %s")):
            images = {image.base: image for image in map(target.images.find, addresses) if image is not None}
            for file in files_for_variables(images.values(), target.symbols):
                self._files.setdefault(file.manifest_line, file)

    def say(self) -> None:
        """Log the PDBs that were collected, in one line; nothing if there are none."""
        if not self._files:
            return
        files = [f"{escape(line)} for {escape(file.module)}" for line, file in self._files.items()]
        more = f" and {len(files) - _MAX_NAMED} more" if len(files) > _MAX_NAMED else ""
        named = "; ".join(files[:_MAX_NAMED])
        log.warning("--locals: no PDB with types, so no variables; wanted on --symbol-path: %s%s", named, more)
