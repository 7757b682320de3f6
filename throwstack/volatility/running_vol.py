# SPDX-License-Identifier: Apache-2.0
"""What the running command `vol` renders, and where its progress goes.

A plugin returns its columns before the command makes the renderer, and Volatility tells no plugin which renderer that
will be. The words of the command line do not say it for sure: `-r` may be `--rend` or `-rpretty`, and a word
such as `pretty` may be the value of another option. But the command is on the call stack while its plugin runs, and has
parsed its options. A plugin that other code runs (a program, volshell, timeliner) finds no such call, and gives all
columns.
"""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any

from volatility3 import cli
from volatility3.framework import interfaces

_FOR_PERSONS = frozenset({"quick", "pretty"})


@dataclass(frozen=True, slots=True)
class RunningVol:
    """The options of the running command: the renderer's name, filters, hidden columns, whether it shows progress."""

    renderer: str
    filters: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    shows_progress: bool = False

    @property
    def is_for_person(self) -> bool:
        """Say whether a person reads what the renderer prints."""
        return self.renderer in _FOR_PERSONS

    @property
    def progress_meets_rows(self) -> bool:
        """Say whether progress, on stderr, and rows, on stdout, go to one screen or file, where they would mix."""
        return self.shows_progress and _is_one_screen()


def running_vol(plugin: interfaces.plugins.PluginInterface) -> RunningVol | None:
    """Return how the command that runs `plugin` renders its table; None if other code runs it, or if it cannot tell."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is cli.CommandLine.run.__code__:
            return _command(frame.f_locals, plugin)
        frame = frame.f_back
    return None


def _command(variables: dict[str, Any], plugin: interfaces.plugins.PluginInterface) -> RunningVol | None:
    if variables.get("constructed") is not plugin:
        return None  # another plugin, which uses this one
    options = variables.get("args")
    renderer = getattr(options, "renderer", None)
    if not isinstance(renderer, str):
        return None
    return RunningVol(
        renderer.lower(),
        tuple(getattr(options, "filters", None) or ()),
        tuple(getattr(options, "hide_columns", None) or ()),
        shows_progress=not getattr(options, "quiet", False),
    )


def _is_one_screen() -> bool:
    try:
        out, err = sys.stdout.fileno(), sys.stderr.fileno()
        return (os.isatty(out) and os.isatty(err)) or os.path.sameopenfile(out, err)
    except (OSError, ValueError, AttributeError):  # closed, or replaced by something that is no file
        return False
