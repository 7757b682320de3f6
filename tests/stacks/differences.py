# SPDX-License-Identifier: Apache-2.0
"""Compares what came of a published stack with what its file says.

If exports are the only names, a crash cannot be named after a function of the program: then the module of the function
has to be the right one.
"""

from __future__ import annotations

import re

from tests.stacks.exported import export_name
from tests.stacks.outcomes import Outcome
from tests.stacks.published import Expectation, PublishedStack

_ENDS = "... | "
"""The beginning of an expected signature of which only the end is given."""


def differences(stack: PublishedStack, mode: str, outcome: Outcome) -> list[str]:
    """Return in words how `outcome` differs from what the stack's file says for `mode`; nothing if it does not.

    A ValueError says that the file does not say what must come out.
    """
    expected, crash = stack.expected[mode], outcome.crash
    if expected.row is None:
        message = f"{stack.name}: neither !row nor !no-row for {mode}"
        raise ValueError(message)
    if crash is None:
        return (
            ["no row" + "".join(f"; doubt: {doubt}" for doubt in outcome.doubts)]
            if expected.row
            else [f"doubt: {doubt}" for doubt in outcome.doubts]
        )
    if not expected.row:
        return [f"a row: {crash.verdict.text}, in {crash.blocked_in}"]
    found = []
    if crash.verdict.code.name != expected.verdict or expected.says not in crash.verdict.text:
        found.append(f"verdict {crash.verdict.code.name}: {crash.verdict.text}, in {crash.blocked_in}")
    title = crash.exception.title if crash.exception is not None else "none"
    if not title.startswith(expected.exception or ""):
        found.append(f"exception {title}")
    thrown_at = re.sub(r"\+0x[0-9a-f]+$", "", crash.thrown_at)
    if expected.thrown_at and not _is_right(stack, mode, expected.thrown_at, thrown_at):
        found.append(f"thrown at {thrown_at}")
    signature = "" if crash.signature is None else crash.signature.text
    if not _is_signature(stack, mode, expected, signature):
        found.append(f"signature {signature}")
    return found


def _is_signature(stack: PublishedStack, mode: str, expected: Expectation, signature: str) -> bool:
    wanted = expected.signature or ""
    if mode == "exports only":
        return _is_right(stack, mode, _last(wanted), _last(signature))
    if wanted.startswith(_ENDS):
        return f" | {signature}".endswith(wanted.removeprefix("..."))
    return signature == wanted


def _is_right(stack: PublishedStack, mode: str, wanted: str, got: str) -> bool:
    module, _, function = wanted.partition("!")
    if mode == "all names" or export_name(stack, module, function):
        return got == wanted
    return re.split(r"[!+]", got)[0].lower() == module.lower()


def _last(signature: str) -> str:
    return signature.rsplit(" | ", 1)[-1]
