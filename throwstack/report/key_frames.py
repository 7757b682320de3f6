# SPDX-License-Identifier: Apache-2.0
"""The frames of a crash that a reader looks at first: where the exception was thrown, and whose fault that is."""

from __future__ import annotations

from throwstack.names.stable_names import plain_name
from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import FrameReport


def thrown_frame(crash: CrashReport) -> FrameReport | None:
    """Return the frame that `thrown_at` names, or None if it is not among the frames."""
    return next((frame for frame in _frames(crash) if frame.name == crash.thrown_at), None)


def program_frame(crash: CrashReport) -> FrameReport | None:
    """Return the frame of the function that the signature names first, or None if that is the one that threw.

    Example: `_com_raise_error` threw, and the signature names PrintProviderError, which asked for it.
    """
    if crash.signature is None:
        return None
    module, mark, function = crash.signature.text.split(" | ")[0].rpartition("!")
    for frame in _frames(crash) if mark else ():
        # A signature has names of modules in lower case, and names of functions without what differs between builds.
        if frame.module.lower() == module.lower() and frame.function and plain_name(frame.function) == function:
            return None if frame.name == crash.thrown_at else frame
    return None


def _frames(crash: CrashReport) -> tuple[FrameReport, ...]:
    walk = crash.throwing or crash.blocked
    return () if walk is None else walk.frames
