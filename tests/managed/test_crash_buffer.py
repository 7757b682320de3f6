# SPDX-License-Identifier: Apache-2.0
"""The crash buffer of NativeAOT, as CrashInfo.cs of dotnet/runtime writes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.managed.crash_buffer import CrashBuffer, CrashReason, has_crash_buffer, read_crash_buffer
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.runtime_memory import StructureError

BUFFER = 0x7FF600010000
FRAME = {"ip": "0x7FF600001234", "module": "0x7FF600000000", "offset": "0x2F", "name": "Shop.Program.Main() + 0x2f"}
CAUSE = {"address": "0x20000100", "hr": "0x80131537", "message": "no number", "type": "System.FormatException"}
ORDER = {
    "address": "0x20000080",
    "hr": "0x80131601",
    "message": 'no "stock"\n',
    "type": "Shop.OrderException",
    "stack": [FRAME, {"ip": "0x7FF600005678", "offset": "0x1"}],
    "inner": [CAUSE],
}
WHOLE = {
    "version": "1.0.0",
    "runtime_base": "0x7FF600000000",
    "runtime_type": "4",
    "runtime_version": "8.0.1",
    "reason": "1",
    "thread": "0x1A4",
    "message": "",
    "exception": ORDER,
}


def read(said: object, size: int | None = None) -> CrashBuffer:
    """Read a buffer that has `said` as JSON, or `said` itself if it is bytes."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    parameters = (0x48, 0x80131500, BUFFER, len(text) if size is None else size)
    assert has_crash_buffer(parameters)
    return read_crash_buffer(memory_of({BUFFER: text}), parameters)


def test_an_unhandled_exception_has_class_message_hresult_frames_and_inner_exceptions() -> None:
    found = read(WHOLE)
    assert (found.runtime_version, found.reason, found.thread) == ("8.0.1", CrashReason.UNHANDLED_EXCEPTION, 0x1A4)
    order = found.exception
    assert order is not None
    assert (order.type_name, order.message, order.hresult) == ("Shop.OrderException", r'no "stock"\n', 0x80131601)
    assert [(frame.ip, frame.method.name) for frame in order.stack] == [
        (0x7FF600001234, "Shop.Program.Main() + 0x2f"),
        (0x7FF600005678, ""),
    ]
    assert [(inner.type_name, inner.message, inner.stack) for inner in order.inner] == [
        ("System.FormatException", "no number", ())
    ]


def test_a_fail_fast_has_a_message_and_no_exception() -> None:
    found = read({"reason": "2", "thread": "0x1A4", "message": "stock is negative"})
    assert (found.reason, found.message, found.exception) == (
        CrashReason.ENVIRONMENT_FAIL_FAST,
        "stock is negative",
        None,
    )


@pytest.mark.parametrize("parameters", [(), (0x48, 0, BUFFER), (7, 0, BUFFER, 10), (0x48, 0, 0, 10)])
def test_other_fail_fasts_have_no_buffer(parameters: tuple[int, ...]) -> None:
    assert not has_crash_buffer(parameters)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"{", "no JSON"), (b"[]", "does not hold"), (b"{}", "does not hold"), (b"[" * 9999, "no JSON")],
)
def test_what_the_runtime_does_not_write_is_an_error(text: bytes, reason: str) -> None:
    with pytest.raises(StructureError, match=reason):
        read(text)


def test_a_buffer_that_is_too_large_or_absent_is_an_error() -> None:
    with pytest.raises(StructureError, match="claims"):
        read(WHOLE, 1 << 30)
    with pytest.raises(MemoryUnreadable):
        read(WHOLE, 0x2000)


def test_inner_exceptions_and_frames_are_bounded() -> None:
    nested: dict[str, object] = {"type": "Inner"}
    for _ in range(40):
        nested = {"type": "Outer", "inner": [nested, {"type": "Second"}]}
    found = read({"exception": {**nested, "stack": [FRAME] * 800}}).exception

    def count(item: ManagedException) -> int:
        return 1 + sum(map(count, item.inner))

    assert found is not None
    assert len(found.stack) == 500
    assert count(found) <= 64


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=8)
        | st.sampled_from(["0x10", "-1", "0x", "9" * 40]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WHOLE, *ORDER]), inner, max_size=5)
        ),
        max_leaves=30,
    )
)
def test_any_json_gives_escaped_text_or_an_error(said: object) -> None:
    try:
        found = read(said)
    except StructureError:
        return
    assert found.message.isprintable()
    assert found.exception is None or found.exception.type_name.isprintable()
