# SPDX-License-Identifier: Apache-2.0
"""Forges a Windows crash dump: `python -m tests.forge CASE OUT_DIR`; `--list` names the cases."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tests.forge.build import DumpKind, build
from tests.forge.cases import Case, builders
from tests.forge.describe import Machine, Paging
from tests.forge.layouts import load
from tests.forge.symbols import write_isf
from tests.forge.truth import StuckThread, Truth, TruthFrame


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.forge", description=__doc__)
    parser.add_argument("case", nargs="?", metavar="CASE", help="name of the case")
    parser.add_argument("out", nargs="?", metavar="OUT_DIR", type=Path, help="gets MEMORY.DMP, isf/ and truth.json")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--isf", type=Path, help="take the kernel's structure layouts from this ISF file")
    parser.add_argument("--kind", choices=[kind.name.lower() for kind in DumpKind], default="full", help="format")
    parser.add_argument("--paging", choices=[paging.value for paging in Paging], help="x86: with PAE or without")
    options = parser.parse_args(arguments)
    cases = builders()
    if options.list:
        for name, (_, about) in cases.items():
            print(f"{name:14}{about}")
        return 0
    if options.case is None or options.out is None:
        parser.error("CASE and OUT_DIR are needed (or --list)")
    if options.case not in cases:
        parser.error(f"no case {options.case!r}; there are {', '.join(cases)}")
    if options.isf is not None and not options.isf.is_file():
        parser.error(f"--isf: no file {options.isf}")
    try:
        case = cases[options.case][0]()
        if options.paging is not None:
            case.machine = with_paging(case.machine, Paging(options.paging))
        forge(case, options.out, isf=options.isf, kind=DumpKind[options.kind.upper()])
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


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


def forge(case: Case, out: Path, *, isf: Path | None = None, kind: DumpKind = DumpKind.FULL) -> None:
    """Write `case` as MEMORY.DMP, isf/ and truth.json into the directory `out`."""
    if isf is not None and case.machine.kernel_image is not None and load(isf).has_own_symbols:
        # A real kernel's symbols lie where its own code does: the case's kernel functions have no place there.
        case.machine = replace(case.machine, kernel_image=None, kernel_base=None, kernel_size=None, kernel_symbols={})
        case.truth = without_kernel_names(case.truth)
    out.mkdir(parents=True, exist_ok=True)
    built = build(case.machine, out, isf=isf, dump=kind)
    for image in case.images:
        if image.pdb is not None:
            write_isf(built.isf_dir, image.pdb, image.machine, image.rvas())
    case.truth.save(out / "truth.json")


def without_kernel_names(truth: Truth) -> Truth:
    """Return the truth for a dump in which nothing names the kernel's frames."""

    def plain(frames: tuple[TruthFrame, ...]) -> tuple[TruthFrame, ...]:
        return tuple(replace(frame, symbol="") if frame.symbol.startswith("nt!") else frame for frame in frames)

    def thread(stuck: StuckThread) -> StuckThread:
        return replace(stuck, thread_stack=plain(stuck.thread_stack))

    stacks = {key: plain(frames) for key, frames in truth.stacks.items()}
    return replace(truth, stuck=tuple(map(thread, truth.stuck)), stacks=stacks)


if __name__ == "__main__":
    sys.exit(main())
