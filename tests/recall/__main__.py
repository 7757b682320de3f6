# SPDX-License-Identifier: Apache-2.0
"""Measures recall under loss, and writes the table of docs/agreement.md: `make recall`.

python -m tests.recall                                  # everything, on two cores; prints what is silent or false
python -m tests.recall service-x64 nested-exports       # these dumps alone; --out writes the table nowhere else
python -m tests.recall nested --kind STUB --what 0x0 -v # these losses alone, each with what came of it
python -m tests.recall --managed .live/managed          # of .NET processes (`managed_run`)
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.recall import managed_run, table
from tests.recall.losses import Kind
from tests.recall.managed_losses import ManagedKind
from tests.recall.measure import Measurement, Outcome, Result, Sample
from tests.recall.subjects import CHECKOUT, capture_names, forged_names, opened
from tests.support.document_sections import replace_section

_CAPTURES = CHECKOUT / ".live" / "out"
_OF_CAPTURES = 20
"""How many losses of each kind are taken of a capture, if `--of-captures` is not given; of a forged case all are."""

_KINDS = f"losses of this kind: {', '.join(f'{kind.name} ({kind.value})' for kind in (*Kind, *ManagedKind))}"


def measured(name: str, sample: Sample, captures: Path) -> tuple[list[str], list[Outcome]]:
    """Return what is wrong of one dump when nothing is lost, and what comes of its losses."""
    with opened(name, captures) as subject:
        measurement = Measurement(subject)
        return measurement.undamaged(), list(measurement.outcomes(sample))


def main(arguments: list[str] | None = None) -> int:
    """Measure; the exit status is 1 if something was silent or false, or nothing was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.recall", description="Recall under loss.")
    parser.add_argument("dumps", nargs="*", help="names of cases and captures; all if none is given")
    parser.add_argument("--captures", type=Path, default=_CAPTURES, help="where `make test-live` keeps its captures")
    parser.add_argument("--most", type=int, help="how many losses of each kind to take of a process")
    parser.add_argument("--of-captures", type=int, default=_OF_CAPTURES, help="as --most, of a captured process")
    parser.add_argument("--seed", type=int, default=1, help="which they are")
    parser.add_argument("--managed", type=Path, help="measure the .NET processes that `make test-managed` left there")
    kinds = sorted({kind.name for kind in (*Kind, *ManagedKind)})
    parser.add_argument("--kind", action="append", choices=kinds, metavar="KIND", help=_KINDS)
    parser.add_argument("--what", default="", help="losses in whose description this text is")
    parser.add_argument("--jobs", type=int, default=2, help="dumps that are looked at together")
    parser.add_argument("--out", type=Path, help="the document whose table is written")
    parser.add_argument("-v", dest="is_verbose", action="store_true", help="print every outcome")
    options = parser.parse_args(arguments)
    logging.getLogger().addHandler(logging.NullHandler())  # what counts is in the survey's record
    of_one = ManagedKind if options.managed is not None else Kind
    if any(kind not in of_one.__members__ for kind in options.kind or ()):
        parser.error(f"kinds here are {', '.join(of_one.__members__)}")
    if options.managed is not None:
        return managed_run.run(options)
    known = {*forged_names(), *capture_names(options.captures)}
    unknown = [name for name in options.dumps if name not in known]
    if unknown:
        parser.error(f"no case or capture is called {', '.join(unknown)}")
    names = options.dumps or [*forged_names(), *capture_names(options.captures)]
    outcomes: list[Outcome] = []
    damaged = 0
    for problems, found in _each(names, options):
        outcomes += found
        damaged += bool(problems)
        told = [str(one) for one in found if options.is_verbose or _is_bad(one)]
        sys.stdout.write("".join(f"{line}\n" for line in (*problems, *told)))
        sys.stdout.flush()
    if not outcomes and not damaged:
        sys.stderr.write("no loss is called so\n")
        return 1
    text = table.section(outcomes, len(names) - damaged, _extent(names, options))
    sys.stdout.write(text[text.find("| Arch") :])
    if options.out is not None:
        replace_section(options.out, table.TITLE, text)
    return 1 if damaged or any(_is_bad(one) for one in outcomes) else 0


def _each(names: list[str], options: argparse.Namespace) -> Iterator[tuple[list[str], list[Outcome]]]:
    kinds = [Kind[name] for name in options.kind or Kind.__members__]
    captures = set(capture_names(options.captures))
    with ProcessPoolExecutor(options.jobs) as pool:
        done = []
        for name in names:
            most = options.of_captures if options.most is None and name in captures else options.most
            sample = Sample(most, options.seed, kinds, options.what)
            done.append(pool.submit(partial(measured, name, sample, options.captures)))
        for one in done:
            yield one.result()


def _extent(names: list[str], options: argparse.Namespace) -> str:
    captures = set(capture_names(options.captures)) & set(names)
    counts = (len(names) - len(captures), "forged dump"), (len(captures), "capture")
    dumps = " and ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count)
    if options.most is not None:
        return f"Of {dumps}, at most {options.most} losses of each kind were taken a process."
    most = f", but at most {options.of_captures} of each kind of a captured process" if captures else ""
    return f"Of {dumps}, all losses were taken{most}."


def _is_bad(outcome: Outcome) -> bool:
    return outcome.result is Result.SILENT or bool(outcome.false)


if __name__ == "__main__":
    sys.exit(main())
