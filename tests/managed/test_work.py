# SPDX-License-Identifier: Apache-2.0
"""Few bytes that name each other, or one long run of bytes, over and over: the steps are counted, and end."""

from __future__ import annotations

import pytest

from tests.support import native_format_writer as write
from tests.support.attribute_writer import SERVICES, Attributes
from tests.support.managed_heap import APP, STACK, ForgedRuntime
from tests.support.metadata_writer import MetadataWriter, class_of, compressed, managed_image, signature
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_attributes import original_method
from throwstack.managed.method_indexes import MethodIndexes
from throwstack.managed.native_format import NativeSection
from throwstack.managed.ready_to_run import inverted_sections
from throwstack.managed.work import Work, WorkSpent

BASE = 0x10000000


class Pages:
    """One run of bytes at BASE."""

    def __init__(self, data: bytes) -> None:
        self.data = data.ljust(-(-len(data) // PAGE_SIZE) * PAGE_SIZE, b"\0")

    def page(self, address: int) -> bytes | None:
        at = address - BASE
        return self.data[at : at + PAGE_SIZE] if 0 <= at < len(self.data) else None


def opened(writer: MetadataWriter, work: Work) -> Metadata:
    found = Metadata.of_image(memory_of({BASE: managed_image(writer.build()).mapped()}), BASE, work)
    assert found is not None
    return found


def section(data: bytes, work: Work) -> NativeSection:
    return NativeSection(Memory(Pages(data)), BASE, len(data), work)


def test_types_that_specify_each_other_are_read_once_each() -> None:
    """Six types, each specified by forty times the next one: 40**6 readings of 100 bytes, if each is followed."""
    writer = MetadataWriter()
    for number in range(1, 7):
        writer.type_spec(b"\x15" + class_of(1) + compressed(40) + class_of(number + 1, 27) * 40)
    writer.type_spec(b"\x08")
    writer.type_def("Host")
    row = writer.method("M", signature(class_of(1, 27)))
    work = Work(2_000, "steps")
    assert opened(writer, work).parameters(row) == "(<Module>)"
    assert work.taken < 1_000


def test_a_method_needs_a_certain_number_of_types_that_types_specify() -> None:
    writer = MetadataWriter()
    for _ in range(300):
        writer.type_spec(b"\x08")
    writer.type_def("Host")
    row = writer.method("M", signature(*(class_of(number, 27) for number in range(1, 301))))
    with pytest.raises(MetadataError, match="more than 256 types"):
        opened(writer, Work(1 << 20, "steps")).parameters(row)


def test_metadata_that_cost_too_much_say_so() -> None:
    writer = MetadataWriter()
    writer.type_def("Host")
    writer.method("M", signature(*[class_of(2)] * 400))
    work = Work(500, "rows and names of metadata")
    found = opened(writer, work)
    with pytest.raises(WorkSpent, match="the limit of 500 rows and names of metadata of a process is reached"):
        found.parameters(1)
    with pytest.raises(WorkSpent):
        found.full_method_name(1)


def test_an_image_takes_a_part_of_the_work_and_leaves_the_rest_to_the_others() -> None:
    whole = Work(4_000, "steps")
    hostile, other = whole.part(), whole.part()
    with pytest.raises(WorkSpent, match="the limit of 1,000 steps of an image is reached"):
        hostile.take(1_001)
    other.take(1_000)
    assert whole.taken == 1_000
    whole.take(2_500)
    with pytest.raises(WorkSpent, match="the limit of 4,000 steps of a process is reached"):
        whole.part().take(501)


def test_long_names_do_not_add_up() -> None:
    writer = MetadataWriter()
    outer = writer.type_def("A" * 1000)
    inner = writer.type_def("B" * 1000, inside=outer)
    innermost = writer.type_def("C" * 1000, inside=inner)
    row = writer.method("M", signature(*[b"\x08"] * 20), tuple("p" * 1000 for _ in range(20)))
    found = opened(writer, Work(1 << 20, "steps"))
    assert found.type_name(inner) == "A" * 1000 + "." + "B" * 1000
    with pytest.raises(MetadataError, match="has 3,002 characters"):
        found.type_name(innermost)
    parameters = found.parameters(row)
    assert (len(parameters), parameters[-1]) == (2049, "…")


def test_a_state_machine_s_method_is_looked_for_among_a_certain_number_of_attributes() -> None:
    made = Attributes()
    outer = made.writer.type_def("Stock", "Shop")
    made.add(1, 0, "AsyncStateMachineAttribute", SERVICES, "Shop.Other")
    _, *attribute = made.rows[0]
    for number in range(200):
        method = made.writer.method(f"M{number}")
        made.rows += [(method << 5, *attribute) for _ in range(30)]
    made.writer.type_def("<Load>d__1", inside=outer)
    step = made.writer.method("MoveNext")
    metadata = made.metadata()
    before = metadata.tables.work.taken
    assert original_method(metadata, step) == ""
    assert metadata.tables.work.taken - before < 30_000  # all 6,000 attributes take 45,000


def long_signature() -> bytes:
    """A table of instances with 1,000 entries that all lead to one signature of 4,000 bytes."""
    arguments = 4000
    lists, text_at = b"", 9 + 5 * 1000
    for number in range(1000):
        at = 9 + 5 * number
        lists += b"\0" + ((text_at - (at + 1)) << 4 | 7).to_bytes(4, "little")
    head = b"\x02" + (8).to_bytes(4, "little") + (8 + len(lists)).to_bytes(4, "little")
    return head + lists + b"\x40\x15\x08" + compressed(arguments) + b"\x08" * arguments + b"\4\0"


def one_tree() -> bytes:
    """An array of 64,000 numbers whose 4,000 trees are one tree with 16 leaves."""
    tree = write.array(dict.fromkeys(range(16), b"\x02"), 16, entry_size=1)[2:]
    head = write.unsigned(64_000 << 2)
    return head + b"".join(b"\xfe" for _ in range(4000)) + tree


@pytest.mark.parametrize(
    ("data", "as_methods"), [pytest.param(long_signature(), False, id="109"), pytest.param(one_tree(), True, id="103")]
)
def test_entries_that_all_lead_to_the_same_bytes_end_the_reading(data: bytes, as_methods: bool) -> None:
    work = Work(20_000, "steps in tables of precompiled methods")
    made = section(data, work)
    with pytest.raises(WorkSpent):
        dict(inverted_sections(made, None) if as_methods else inverted_sections(None, made))
    assert work.taken == 20_000


def test_an_index_is_not_kept_of_what_was_not_read_to_the_end() -> None:
    indexes = MethodIndexes()
    made = section(long_signature(), Work(1_000, "steps"))
    for _ in range(2):
        with pytest.raises(WorkSpent):
            indexes.get(None, made, lambda: dict(inverted_sections(None, made)))


def frames(found: ManagedException) -> int:
    return len(found.stack) + sum(frames(inner) for inner in found.inner)


def test_a_chain_of_exceptions_has_two_thousand_recorded_frames_in_all() -> None:
    """Each of 17 exceptions has the same array of 1,000 frames as its stack."""
    process = ForgedRuntime()
    frame = (APP, STACK, process.types["Shop.Program"].methods["Main"], 0)
    stack, order = process.trace(*[frame] * 1000), 0
    for number in range(17):
        order = process.exception("Shop.OrderException", str(number), _innerException=order, _stackTrace=stack)
    found = process.thrown(order)
    assert frames(found) == 2000
    assert (len(found.stack), len(found.inner[0].stack), len(found.inner[0].inner[0].stack)) == (1000, 1000, 0)
    assert found.inner[0].inner[0].reasons == ("the first 0 of 1,000 frames of the recorded stack are shown",)
