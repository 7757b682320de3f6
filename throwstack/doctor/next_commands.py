# SPDX-License-Identifier: Apache-2.0
"""The commands that the doctor advises, with the file and the options that were given, as they are typed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from throwstack.files.at_hand import FilesAtHand


@dataclass(frozen=True, slots=True)
class NextCommands:
    """Writes commands for the dump at `path`, with the files that the user gave."""

    path: str
    files: FilesAtHand

    def throwstack(self, command: str, *more: str) -> str:
        """Return a command of `throwstack`, with `more` options at its end."""
        files = self.files
        words = ["throwstack", command, self.path]
        for directory in files.symbols:
            words += ["-s", str(directory)]
        words += self._paths()
        for page_file in files.page_files:
            words += ["--page-file", str(page_file)]
        return _typed([*words, *(["--offline"] if files.is_offline else []), *more])

    def vol(self, plugin: str, *page_files: str) -> str:
        """Return a command of `vol`, with `page_files` besides those that were given."""
        files = self.files
        words = ["vol"]
        swap = [*map(str, files.page_files), *page_files]
        # The option takes all words up to the next option.
        words += ["--single-swap-locations", *swap] if swap else []
        words += ["--offline"] if files.is_offline else []
        words += ["-s", ";".join(map(str, files.symbols))] if files.symbols else []
        return _typed([*words, "-f", self.path, plugin, *self._paths()])

    def _paths(self) -> list[str]:
        given = (("--symbol-path", self.files.symbol_path), ("--image-path", self.files.image_path))
        return [word for option, path in given if path is not None for word in (option, path)]


def _typed(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
