# SPDX-License-Identifier: Apache-2.0
"""The frames of a crash that a reader looks at first: where the exception was thrown, and whose fault that is."""

from __future__ import annotations

from throwstack.names.stable_names import plain_name
from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import FrameReport


def thrown_frame(crash: CrashReport) -> FrameReport | None:
    """Return the frame that `thrown_at` names, or None if it is not among the frames.

    `thrown_at` may spell the place in another way. What an object of .NET recorded has the address of the call, and a
    frame the one after it; and a part of a function that the compiler put elsewhere is named after the whole. Then the
    innermost frame of that function is meant.
    """
    function = _function(crash.thrown_at)
    frames = [frame for frame in _frames(crash) if _function(frame.name) == function]
    return next((frame for frame in frames if frame.name == crash.thrown_at), next(iter(frames), None))


def program_frame(crash: CrashReport) -> FrameReport | None:
    """Return the frame of the function that the signature names first, or None if that is the one that threw.

    Example: `_com_raise_error` threw, and the signature names PrintProviderError, which asked for it.
    """
    if crash.signature is None:
        return None
    first = crash.signature.text.split(" | ")[0]
    found = next((frame for frame in _frames(crash) if frame.function and _function(frame.name) == first), None)
    return None if found is None or _function(found.name) == _function(crash.thrown_at) else found


def shared_frames(crash: CrashReport) -> int:
    """Return how many of the outermost frames of `blocked` are the whole stack that threw, 0 if they are not that."""
    throwing = () if crash.throwing is None else crash.throwing.frames
    blocked = () if crash.blocked is None else crash.blocked.frames
    own = len(blocked) - len(throwing)
    is_same = own > 0 and all(
        (mine.ip, mine.sp, mine.name) == (other.ip, other.sp, other.name)
        for mine, other in zip(blocked[own:], throwing, strict=True)
    )
    return len(throwing) if is_same else 0


def _function(call_site: str) -> str:
    """Return the function of a call site, as signatures have it: the module in lower case, a name without its parts."""
    module, mark, function = (call_site.rpartition("+0x")[0] or call_site).partition("!")
    return f"{module.lower()}!{plain_name(function)}" if mark else call_site


def _frames(crash: CrashReport) -> tuple[FrameReport, ...]:
    walk = crash.throwing or crash.blocked
    return () if walk is None else walk.frames
