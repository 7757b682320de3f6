# SPDX-License-Identifier: Apache-2.0
"""Pages in every state that page tables know, read back with Volatility's translation and the ISF's own types."""

from __future__ import annotations

import pytest
from volatility3.framework import exceptions
from volatility3.framework.layers.physical import BufferDataLayer

from tests.forge.build import build
from tests.forge.describe import Machine, Paging, Process, Region, Residency
from tests.support.forge_machines import IMAGE_PAGES, PAGE, VERSIONS, base_of_ntdll, image, process
from tests.support.volatility_session import Session, open_dump

STATES = {
    1: Residency.PROTOTYPE,
    2: Residency.PROTOTYPE,
    3: Residency.TRANSITION,
    4: Residency.PAGED_OUT,
    6: Residency.DEMAND_ZERO,
    7: Residency.ABSENT,
    8: Residency.PROTOTYPE_BY_VAD,
}
RESIDENT = [page for page in range(IMAGE_PAGES) if page not in {4, 6, 7}]
PRIVATE = 0x500000


@pytest.fixture(scope="module", params=Paging, ids=lambda paging: paging.value)
def opened(request, tmp_path_factory):
    paging = request.param
    described = process(paging, 0x200, "first.exe", image())
    described.regions[0].residency = STATES
    described.regions.append(Region(PRIVATE, image(7), residency=dict(STATES), reserve=4 * PAGE))
    described.regions.append(Region(PRIVATE + 0x100000, image(9), residency={1: Residency.PAGED_OUT}))
    built = build(Machine(paging, VERSIONS[paging], [described]), tmp_path_factory.mktemp("forge"))
    with open_dump(built.dump, built.isf_dir) as session:
        yield session, paging


def vad_at(session: Session, address: int):
    """Return the VAD of an address in the process."""
    vads = session.processes()[0x200].get_vad_root().traverse()
    return next(vad for vad in vads if vad.get_start() <= address <= vad.get_end())


def control_area(vad):
    pointer = vad.ControlArea if vad.has_member("ControlArea") else vad.Subsection.ControlArea
    return pointer.dereference()


def pte(session: Session, entry: int):
    """Return an entry as an _MMPTE of the ISF (in a layer of its own)."""
    size = session.kernel.get_type("_MMPTE").size
    name = session.context.layers.free_layer_name("entry")
    layer = BufferDataLayer(session.context, name, name, entry.to_bytes(size, "little"))
    session.context.add_layer(layer)
    return session.context.object(f"{session.kernel.symbol_table_name}!_MMPTE", name, 0)


@pytest.mark.parametrize("base", ["image", "private"])
def test_volatility_reads_pages_in_the_states_that_it_knows(opened, base):
    session, paging = opened
    start, data = (base_of_ntdll(paging), image()) if base == "image" else (PRIVATE, image(7))
    layer = session.process_layer(0x200)
    for page in range(IMAGE_PAGES):
        if STATES.get(page, Residency.VALID) in {Residency.VALID, Residency.TRANSITION}:
            assert layer.read(start + page * PAGE, PAGE) == data[page * PAGE : (page + 1) * PAGE]
        else:
            with pytest.raises(exceptions.PagedInvalidAddressException):
                layer.read(start + page * PAGE, 1)


def entry_of(session: Session, address: int) -> int:
    with pytest.raises(exceptions.PagedInvalidAddressException) as caught:
        session.process_layer(0x200).read(address, 1)
    return caught.value.entry


def test_prototype_entries_point_into_the_section(opened):
    session, paging = opened
    for base in (base_of_ntdll(paging), PRIVATE):
        vad = vad_at(session, base)
        for page in (1, 2):
            forms = pte(session, entry_of(session, base + page * PAGE)).u
            assert (forms.Hard.Valid, forms.Proto.Prototype) == (0, 1)
            if paging is Paging.X86:
                pool = session.pointer("MmPagedPoolStart")
                address = pool + (forms.Proto.ProtoAddressHigh << 9 | forms.Proto.ProtoAddressLow << 2)
            else:
                address = forms.Proto.ProtoAddress & session.kernel_layer.address_mask
            first = int(vad.FirstPrototypePte) & session.kernel_layer.address_mask
            assert address == first + page * session.kernel.get_type("_MMPTE").size


def test_entries_that_send_the_reader_to_the_vad(opened):
    session, paging = opened
    for base in (base_of_ntdll(paging), PRIVATE):
        forms = pte(session, entry_of(session, base + 8 * PAGE)).u
        assert (forms.Hard.Valid, forms.Soft.Prototype) == (0, 1)
        assert forms.Soft.PageFileHigh == (0xFFFFF if paging is Paging.X86 else 0xFFFFFFFF)


def test_a_section_has_the_pages_that_its_prototype_entries_name(opened):
    """Volatility's own walk over control area, subsections and prototype PTEs finds every page that is in memory."""
    session, paging = opened
    physical = session.context.layers[session.kernel_layer.dependencies[0]]
    for base, data in ((base_of_ntdll(paging), image()), (PRIVATE, image(7))):
        area = control_area(vad_at(session, base))
        assert area.is_valid()
        found = [physical.read(offset, PAGE) for offset, _, _ in area.get_available_pages()]
        assert found == [data[page * PAGE : (page + 1) * PAGE] for page in RESIDENT]


def test_an_image_has_a_subsection_for_each_of_its_parts(opened):
    session, paging = opened
    subsection = control_area(vad_at(session, base_of_ntdll(paging))).get_subsection()
    parts = []
    while subsection.vol.offset:
        parts.append((subsection.PtesInSubsection, subsection.u.SubsectionFlags.Protection))
        if not subsection.NextSubsection:
            break
        subsection = subsection.NextSubsection.dereference()
    assert parts == [(1, 1), (4, 3), (7, 5)]


def test_prototype_entries_of_the_section(opened):
    """Valid, in transition, and (page 4, not in memory) a pointer back to the subsection."""
    session, paging = opened
    vad = vad_at(session, base_of_ntdll(paging))
    size = session.kernel.get_type("_MMPTE").size
    first = int(vad.FirstPrototypePte)
    entries = [session.kernel.object("_MMPTE", first + size * page, absolute=True) for page in range(IMAGE_PAGES)]
    assert entries[0].u.Hard.Valid == 1
    assert (entries[1].u.Hard.Valid, entries[1].u.Trans.Transition, entries[1].u.Trans.Prototype) == (0, 1, 0)
    assert entries[2].u.Hard.Valid == 1
    assert (entries[4].u.Hard.Valid, entries[4].u.Subsect.Prototype) == (0, 1)
    area = control_area(vad)
    text = area.vol.offset + area.vol.size + session.kernel.get_type("_SUBSECTION").size
    if paging is not Paging.X86:
        assert entries[4].u.Subsect.SubsectionAddress & session.kernel_layer.address_mask == text
    else:
        base = session.pointer("MmSubsectionBase")
        subsect = entries[4].u.Subsect
        # bit 31, the last of the 20 and 1 bits, says that the offset counts from MmSubsectionBase
        assert base + (subsect.SubsectionAddressHigh << 7 | subsect.SubsectionAddressLow << 3) == text
        assert subsect.WhichPool == 1


def test_software_entries_have_a_place_in_the_page_file_or_none(opened):
    session, paging = opened
    base = base_of_ntdll(paging)
    paged_out, zero = (pte(session, entry_of(session, base + page * PAGE)).u.Soft for page in (4, 6))
    for soft, has_place in ((paged_out, True), (zero, False)):
        assert (soft.Valid, soft.Prototype, soft.Transition, soft.Protection) == (0, 0, 0, 7)
        assert (soft.PageFileHigh != 0) is has_place
        assert soft.PageFileLow == 0
    assert entry_of(session, base + 7 * PAGE) == 0


def test_vads_of_memory_with_and_without_prototype_ptes_differ(opened):
    session, _ = opened
    mapped, private = vad_at(session, PRIVATE), vad_at(session, PRIVATE + 0x100000)
    # Prototype PTEs make memory a view of a section, here one without a file; the VAD spans what is reserved, too.
    assert (mapped.get_tag(), mapped.get_private_memory()) == ("Vad ", 0)
    assert mapped.get_size() == (IMAGE_PAGES + 4) * PAGE
    assert control_area(mapped).u.Flags.File == 0
    assert (private.get_tag(), private.get_private_memory(), private.get_commit_charge()) == ("VadS", 1, IMAGE_PAGES)


@pytest.mark.parametrize("paging", Paging, ids=lambda paging: paging.value)
def test_loader_data_and_tebs_out_of_reach(paging, tmp_path):
    described: Process = process(paging, 0x200, "first.exe", image())
    described.loader_residency, described.teb_residency = Residency.PAGED_OUT, Residency.PROTOTYPE
    built = build(Machine(paging, VERSIONS[paging], [described]), tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        layer = session.process_layer(0x200)
        assert not layer.is_valid(0x7FFDF000)
        assert not layer.is_valid(0x7FFD0000)
        assert list(session.processes()[0x200].load_order_modules()) == []
        area = control_area(vad_at(session, 0x7FFD0000))
        physical = session.context.layers[session.kernel_layer.dependencies[0]]
        teb = physical.read(next(iter(area.get_available_pages()))[0], PAGE)
        at, size = (0x30, 8) if paging.is_64bit else (0x18, 4)
        assert int.from_bytes(teb[at : at + size], "little") == 0x7FFD0000
