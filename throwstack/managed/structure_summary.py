# SPDX-License-Identifier: Apache-2.0
"""What was learnt of the structures of a process's runtime: offsets and counts, and nothing of the process's data.

No process of .NET Framework was at hand when its structures were described (`throwstack.managed.runtime_layout`). These
lines, from a dump of one, show what holds there and what does not. They have no names, messages, addresses or file
paths, so that they can be passed on.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.runtime import Runtime


def structure_summary(runtime: Runtime, tids: Sequence[int]) -> list[str]:
    """Return the lines on the runtime of a process with the threads `tids`; it asks for the exception of each."""
    thrown = [runtime.last_thrown(tid) for tid in tids]
    found = [item for each in thrown if each.exception is not None for item in _with_inner(each.exception)]
    frames = [frame for item in found for frame in item.stack]
    without = sum(item.exception is None for item in thrown)
    named = sum(bool(frame.method.name) for frame in frames)
    with_parameters = sum(bool(frame.method.parameters) for frame in frames)
    classes = sum(bool(item.type_name) for item in found)
    messages = sum(item.message is not None for item in found)
    doubted = sum(bool(item.reasons) for item in found)
    return [
        f"runtime: {runtime.version}",
        *runtime.learnt(),
        f"threads: {len(tids)}, without an exception {without}",
        f"exceptions: {len(found)}, with a class {classes}, with a message {messages}, with reasons {doubted}",
        f"recorded frames: {len(frames)}, with a name {named}, with parameters {with_parameters}",
    ]


def _with_inner(exception: ManagedException) -> list[ManagedException]:
    return [exception, *(item for inner in exception.inner for item in _with_inner(inner))]
