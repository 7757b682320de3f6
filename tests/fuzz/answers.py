# SPDX-License-Identifier: Apache-2.0
"""What the plugins say of a scene: rows by thread, everything they log, and what goes wrong."""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from volatility3.cli.text_renderer import CLIRenderer
from volatility3.framework import interfaces

from tests.fuzz.scenes import Scene
from tests.fuzz.verdicts import Fault, Overdue, control_characters, fault_of, place_of

Key = tuple[str, int, int]
"""Plugin, PID, TID."""
Rows = tuple[tuple[str, ...], ...]

ABOUT_OTHERS = frozenset({"Waits For", "Lock", "Deadlock"})
"""Columns that tell of other processes: damage there may change them."""
OPTIONS: dict[str, dict[str, Any]] = {"cxrstack": {"registers": True}}


@dataclass
class Answers:
    """What was said. A thread may have several lists of rows, where a mutant made two threads look like one."""

    rows: dict[Key, list[Rows]] = field(default_factory=lambda: defaultdict(list))
    warnings: list[str] = field(default_factory=list)
    """Messages from warnings up."""
    remarks: list[str] = field(default_factory=list)
    """What `vol -v` shows besides."""
    swallowed: list[str] = field(default_factory=list)
    """Places of exceptions that a guard turned into a reason."""
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0

    def names(self, pid: int) -> bool:
        """Say whether a warning names the process, or sends to `vol -v`, where a message does.

        Of a broken list of processes nobody can say who is missing.
        """
        named = re.compile(rf"\bPID {pid}\b|\({pid}\)|kernel's list of processes is (broken|not readable)")
        texts = list(self.warnings)
        if any("-v names all" in text for text in self.warnings):
            texts += self.remarks
        return any(named.search(text) for text in texts)


class _Listener(logging.Handler):
    """Takes down what is logged."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(logging.DEBUG)
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        answers = self._answers
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a message that cannot be formatted is a fault of its own
            answers.faults.append(fault_of(error))
            return
        is_ours = record.name.startswith(("throwstack", "attacked_"))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            if isinstance(error, MemoryError) or record.levelno >= logging.WARNING:
                answers.faults.append(fault_of(error))
            elif is_ours:
                answers.swallowed.append(place_of(error))
        if record.levelno >= logging.WARNING:
            answers.warnings.append(text)
        elif is_ours and record.levelno >= logging.INFO:
            answers.remarks.append(text)
        else:
            return
        if is_ours and (unshown := control_characters(text)):
            answers.faults.append(
                Fault("control", f"log {record.pathname[-30:]}:{record.lineno} {unshown}", ascii(text))
            )


def answers_of(scene: Scene, plugins: dict[str, ModuleType]) -> Answers:
    """Run the plugins on a scene as it is now."""
    answers = Answers()
    listener = _Listener(answers)
    root, ours = logging.getLogger(), logging.getLogger("throwstack")
    ours.setLevel(logging.DEBUG)
    logging.getLogger("throwstack.trace").setLevel(logging.WARNING)
    kept, root.handlers = root.handlers, [listener]
    start = time.process_time()
    try:
        for name, module in plugins.items():
            try:
                _run(scene, name, module, answers)
            except (Exception, Overdue) as error:  # noqa: BLE001 - whatever comes out is what is looked for
                answers.faults.append(fault_of(error))
                if isinstance(error, Overdue):
                    break
    finally:
        root.handlers = kept
        answers.seconds = time.process_time() - start
    return answers


def _run(scene: Scene, name: str, module: ModuleType, answers: Answers) -> None:
    context = scene.session.context
    kind = next(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, interfaces.plugins.PluginInterface)
        and value.__module__ == module.__name__
    )
    path = f"fuzz.{name}"
    for option, value in {"kernel": scene.session.kernel_name, **OPTIONS.get(name, {})}.items():
        context.config[f"{path}.{option}"] = value
    grid = kind(context, path).run()
    columns = [column.name for column in grid.columns]
    renderers = CLIRenderer._type_renderers
    shown = [renderers.get(column.type, renderers["default"]) for column in grid.columns]
    compared = [index for index, column in enumerate(columns) if column not in ABOUT_OTHERS]
    lines: list[tuple[int, list[str], tuple[Any, ...]]] = []

    def take(node: Any, _: None) -> None:
        cells = [str(show(value)) for show, value in zip(shown, node.values, strict=True)]
        lines.append((node.path_depth, cells, tuple(node.values)))
        for column, cell in zip(columns, cells, strict=True):
            if unshown := control_characters(cell):
                where = f"{name}, column {column}: {unshown}"
                answers.faults.append(Fault("control", where, ascii(cell)))

    try:
        grid.populate(take, None)
    finally:
        for key, rows in _by_thread(lines, columns, compared):
            answers.rows[(name, *key)].append(rows)


def _by_thread(
    lines: list[tuple[int, list[str], tuple[Any, ...]]], columns: list[str], compared: list[int]
) -> Iterator[tuple[tuple[int, int], Rows]]:
    """Group consecutive rows of one thread; a thread's own row begins a group of its own in a tree."""
    pid, tid = columns.index("PID"), columns.index("TID")
    group: list[tuple[str, ...]] = []
    key: tuple[int, int] | None = None
    frame = columns.index("Frame") if "Frame" in columns else None
    for depth, cells, values in lines:
        now = (_number(values[pid]), _number(values[tid]))
        starts = frame is None or (depth == 1 and (_number(values[frame]) in {0, -1}))
        if key is not None and (now != key or starts):
            yield key, tuple(group)
            group = []
        key = now
        group.append(tuple(cells[index] for index in compared))
    if key is not None:
        yield key, tuple(group)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1
