# SPDX-License-Identifier: Apache-2.0
"""Forges a Windows crash dump: `python -m tests.forge CASE OUT_DIR`; `--list` names the cases."""

from __future__ import annotations

import argparse
import lzma
import sys
from dataclasses import replace
from pathlib import Path

from tests.forge.build import DumpKind, build
from tests.forge.cases import Case, builders
from tests.forge.describe import Machine, Paging
from tests.forge.layouts import load
from tests.forge.pdbs import write_pdbs
from tests.forge.symbols import write_isf


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.forge", description=__doc__)
    parser.add_argument("case", nargs="?", metavar="CASE", help="name of the case")
    parser.add_argument("out", nargs="?", metavar="OUT_DIR", type=Path, help="gets MEMORY.DMP, isf/, pdb/, truth.json")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--isf", type=Path, help="take the kernel's structure layouts from this ISF file")
    parser.add_argument("--kind", choices=[kind.name.lower() for kind in DumpKind], default="full", help="format")
    parser.add_argument("--images", action="store_true", help="also write the machine's EXEs and DLLs, to images/")
    parser.add_argument("--paging", choices=[paging.value for paging in Paging], help="x86: with PAE or without")
    parser.add_argument("--fuller-kernel", action="store_true", help="x64: with all that MemProcFS needs")
    options = parser.parse_args(arguments)
    cases = builders()
    if options.list:
        for name, (_, about) in cases.items():
            sys.stdout.write(f"{name:14}{about}\n")
        return 0
    if options.case is None or options.out is None:
        parser.error("CASE and OUT_DIR are needed (or --list)")
    if options.case not in cases:
        parser.error(f"no case {options.case!r}; there are {', '.join(cases)}")
    if options.isf is not None and not options.isf.is_file():
        parser.error(f"--isf: no file {options.isf}")
    if options.isf is not None and not has_kernel_structures(options.isf):
        parser.error(f"--isf: {options.isf} is no ISF file with a kernel's structures")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"{options.out} is no directory")
    try:
        case = cases[options.case][0]()
        if options.paging is not None:
            case.machine = with_paging(case.machine, Paging(options.paging))
        forge(case, options.out, isf=options.isf, kind=DumpKind[options.kind.upper()], fuller=options.fuller_kernel)
        write_images(options.out / "images", case.machine if options.images else None)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    return 0


def has_kernel_structures(path: Path) -> bool:
    """Say whether `path` is an ISF file, compressed or not, that describes a kernel."""
    try:
        layout = load(path)
        return layout.size("_EPROCESS") > 0 and layout.size("_ETHREAD") > 0
    except (lzma.LZMAError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def with_paging(machine: Machine, paging: Paging) -> Machine:
    """Return `machine` with other page tables; raise ValueError where the processor has no such mode."""
    if paging.is_64bit is not machine.paging.is_64bit:
        message = f"paging {paging.value} does not fit a machine with {machine.paging.value}"
        raise ValueError(message)
    if paging is machine.paging:
        return machine
    # The given directories are PAE's: 32 bytes each, several to a page.
    processes = [replace(process, directory_base=None) for process in machine.processes]
    return replace(machine, paging=paging, processes=processes)


def forge(
    case: Case, out: Path, *, isf: Path | None = None, kind: DumpKind = DumpKind.FULL, fuller: bool = False
) -> None:
    """Write `case` as MEMORY.DMP, isf/, truth.json and, where it has PDBs, pdb/ into the directory `out`."""
    out.mkdir(parents=True, exist_ok=True)
    built = build(case.machine, out, isf=isf, dump=kind, fuller=fuller)
    for image in case.images:
        if image.pdb is not None:
            write_isf(built.isf_dir, image.pdb, image.machine, image.rvas())
    write_pdbs(out / "pdb", case.pdbs)
    case.truth.save(out / "truth.json")


def write_images(directory: Path, machine: Machine | None) -> None:
    """Write the files of the machine's images as a symbol store; their sections are in them as they do in memory."""
    for process in machine.processes if machine is not None else ():
        regions = {region.base: region for region in process.regions if region.is_image}
        for module in process.modules:
            path = directory / module.name / f"{module.timestamp:08X}{module.size:x}" / module.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(regions[module.base].data)


if __name__ == "__main__":
    sys.exit(main())
