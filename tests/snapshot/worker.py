# SPDX-License-Identifier: Apache-2.0
"""Runs all commands on one dump, in one process, with the throwstack of one checkout, and writes what they print.

    PYTHONPATH=CHECKOUT python tests/snapshot/worker.py CHECKOUT FOLDER OUT CACHE

It is run as a file, and imports nothing of `tests`: PYTHONPATH names the checkout whose product code is looked at.
A plugin runs once and is rendered twice: NAME.txt has its rows separated by tabs and the warnings, NAME.json its JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent))  # after the checkout's: `commands` is nobody's name there

from commands import DOCTOR, Command, commands  # type: ignore[import-not-found]

SPLIT = "\n--- as JSON ---\n"


class Messages(logging.Handler):
    """Keeps warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")


def main(checkout: Path, folder: Path, out: Path, cache: Path) -> None:
    """Write the files of all commands on the dump in `folder`."""
    assert _module_file("throwstack").is_relative_to(checkout), _module_file("throwstack")
    places = {str(folder): "<dump>", str(cache): "<cache>", str(checkout): "<checkout>"}
    messages = Messages()
    logging.getLogger().addHandler(messages)
    _add_renderer()
    out.mkdir(parents=True, exist_ok=True)
    for command in commands(folder):
        messages.texts.clear()
        printed = _doctor(folder) if command.plugin == DOCTOR else _plugin(command, checkout, folder, cache)
        text, _, data = printed.partition(SPLIT)
        said = "".join(f"{line}\n" for line in messages.texts)
        for name, contents in ((f"{command.name}.txt", text + said), (f"{command.name}.json", data)):
            (out / name).write_text(_normal(contents, places), encoding="utf-8", errors="backslashreplace")


def _module_file(name: str) -> Path:
    return Path(str(importlib.import_module(name).__file__)).resolve()


def _normal(text: str, places: dict[str, str]) -> str:
    """Return text without paths of this machine, without spaces at the ends of lines, without empty lines."""
    for place, name in places.items():
        text = text.replace(place, name)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


def _doctor(folder: Path) -> str:
    options = ["doctor", "-s", str(folder / "isf"), str(folder / "MEMORY.DMP")]

    def run(*more: str) -> Callable[[], object]:
        sys.argv = ["throwstack", *options, *more]
        return lambda: runpy.run_module("throwstack.cli", run_name="__main__")

    return _printed(run()) + SPLIT + _printed(run("--json", "-"))


def _plugin(command: Command, checkout: Path, folder: Path, cache: Path) -> str:
    from volatility3 import cli  # noqa: PLC0415 finds plugins once PYTHONPATH is known

    sys.argv = [
        *("vol", "-q", "--offline", "--cache-path", str(cache), "-r", "snapshot"),
        *("-p", str(checkout / "plugins"), "-s", f"{folder / 'isf'};{checkout / 'symbols'}"),
        *("-f", str(folder / "MEMORY.DMP"), command.plugin, *command.options),
    ]
    return _printed(cli.main)


def _printed(run: Callable[[], object]) -> str:
    """Return what a command prints, and how it ends if it does not simply return."""
    printed, said = io.StringIO(), io.StringIO()
    end = ""
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            run()
        except SystemExit as left:
            end = f"exit status {left.code}\n"
        except Exception as error:  # noqa: BLE001 a crash of the product is what a snapshot should show
            end = f"{type(error).__name__}: {error}\n"
    text, split, data = printed.getvalue().partition(SPLIT)
    return f"{text}\n{said.getvalue()}\n{end}{split}{data}"


def _add_renderer() -> None:
    """Let `vol -r snapshot` render a plugin's rows as quick text and as JSON."""
    from volatility3.cli import text_renderer  # noqa: PLC0415
    from volatility3.framework import interfaces  # noqa: PLC0415

    class Snapshot(text_renderer.CLIRenderer):  # type: ignore[misc] # found by its name, as a subclass
        name = "snapshot"
        structured_output = True

        def get_render_options(self) -> list[object]:
            return []

        def render(self, grid: interfaces.renderers.TreeGrid) -> None:
            for renderer in self._renderers():
                renderer.filter, renderer.column_hide_list = self.filter, self.column_hide_list
                renderer.render(grid)
                sys.stdout.write(SPLIT if isinstance(renderer, text_renderer.QuickTextRenderer) else "")

        @staticmethod
        def _renderers() -> Iterator[text_renderer.CLIRenderer]:
            yield text_renderer.QuickTextRenderer()
            yield text_renderer.JsonRenderer()

    globals()["Snapshot"] = Snapshot  # Volatility finds living subclasses only


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
