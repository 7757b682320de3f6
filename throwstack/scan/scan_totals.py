# SPDX-License-Identifier: Apache-2.0
"""What a scan has found in all, those dumps included that earlier runs have examined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from throwstack.report.text.spelling import count
from throwstack.scan.dump_record import DumpOutcome, DumpRecord


@dataclass(slots=True)
class ScanTotals:
    """The dumps by outcome, the crashes, and the crashes by the text and the digest of their signature.

    `without_files` counts dumps of which reports or minidumps could not be written; `files_problem` says why the first.
    """

    outcomes: Counter[DumpOutcome] = field(default_factory=Counter)
    crashes: int = 0
    signatures: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_files: int = 0
    files_problem: str = ""

    @property
    def dumps(self) -> int:
        """Return how many dumps there are."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Return how many dumps could not be examined."""
        return self.dumps - self.outcomes[DumpOutcome.EXAMINED]

    def counted(self, records: Iterable[DumpRecord]) -> Iterator[DumpRecord]:
        """Yield `records` as they are, and count them."""
        for record in records:
            self.outcomes[record.outcome] += 1
            self.crashes += record.crashes
            if record.files_problem:
                self.without_files += 1
                self.files_problem = self.files_problem or record.files_problem
            for crash in (record.report or {}).get("crashes", ()):
                signature = crash.get("signature")
                if signature is not None:
                    self.signatures[signature["text"], signature["digest"]] += 1
            yield record

    def lines(self) -> Iterator[str]:
        """Yield the totals in words."""
        yield f"{count(self.dumps, 'dump')}: {self.outcomes[DumpOutcome.EXAMINED]:,} examined"
        for outcome in DumpOutcome:
            if self.outcomes[outcome] and outcome is not DumpOutcome.EXAMINED:
                yield f"  {self.outcomes[outcome]:>6,} {outcome.value.replace('-', ' ')}"
        if self.without_files:
            yield f"  {self.without_files:>6,} of which not all reports or minidumps were written: {self.files_problem}"
        yield f"{count(self.crashes, 'stuck thread')}, {count(len(self.signatures), 'signature')}"
        for (text, digest), crashes in sorted(self.signatures.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]:
            yield f"  {crashes:>6,} {text} ({digest})"
        if len(self.signatures) > _SHOWN:
            yield f"         and {len(self.signatures) - _SHOWN:,} more"


_SHOWN = 10
