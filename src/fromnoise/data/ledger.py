"""The account that `prepare` gives: what came in, stayed and left, by source, and what could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fromnoise.data.document import Document
from fromnoise.data.files import BadRecord, most_often
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import SourceSection

LISTED_PER_REASON = 1_000  # bad records written out in full, for each source and reason; all are counted
LISTED_IN_LEDGER = 20
FEWEST_BAD = 10  # malformed records, or lines, that a source may have whatever fraction of it they are
LOST = ("record", "line", "file")  # kinds of BadRecord; "repaired" is kept


@dataclass
class Amount:
    documents: int = 0
    bytes: int = 0

    def add(self, num_bytes: int) -> None:
        self.documents += 1
        self.bytes += num_bytes


class Mended(NamedTuple):
    """What cleaning changed in a document."""

    emails: int = 0
    phones: int = 0
    repaired: int = 0  # characters
    boilerplate_lines: int = 0


@dataclass
class Tally:
    """One source's entry in the ledger. In documents, `came_in` = `kept` + all of `removed`; pieces of a split document count.

    Bytes are UTF-8 bytes: `came_in` and `removed` before cleaning, `kept` and `validation` after it.
    """

    name: str
    simulated: bool = False
    weight: float = 1.0
    num_read: dict[str, int] = field(default_factory=lambda: {"record": 0, "line": 0})  # as they were read, before anything is split
    came_in: Amount = field(default_factory=Amount)
    kept: Amount = field(default_factory=Amount)
    validation: Amount = field(default_factory=Amount)
    removed: dict[str, Amount] = field(default_factory=dict)
    licences: Counter = field(default_factory=Counter)
    exempt: int = 0
    mended: Mended = field(default_factory=Mended)  # in the documents kept
    dates: list[str] = field(default_factory=lambda: ["9999", ""])
    dated: int = 0

    def read(self, document: Document) -> None:
        """Count what `BadRecords.check` judges by: a record, or the lines of a text that hold something."""
        unit = "record" if document.is_record else "line"
        self.num_read[unit] += 1 if document.is_record else sum(bool(line.strip()) for line in document.text.split("\n"))

    def remove(self, reason: str, num_bytes: int) -> None:
        self.removed.setdefault(reason, Amount()).add(num_bytes)

    def keep(self, document: Document, mended: Mended, *, held_out: bool) -> None:
        self.mended = Mended(*map(sum, zip(self.mended, mended, strict=True)))
        num_bytes = len(document.text.encode())
        self.kept.add(num_bytes)
        if held_out:
            self.validation.add(num_bytes)
        self.exempt += document.exempt
        if document.date:
            self.dates = [min(self.dates[0], document.date), max(self.dates[1], document.date)]
            self.dated += 1

    def entry(self, bad: BadRecords) -> dict[str, Any]:
        licences = sorted(self.licences)
        return {
            "name": self.name, "licence": licences[0] if len(licences) == 1 else "mixed", "licences": dict(sorted(self.licences.items())),
            "simulated": self.simulated, "weight": self.weight,
            "documents_in": self.came_in.documents, "bytes_in": self.came_in.bytes,
            "documents_kept": self.kept.documents, "bytes_kept": self.kept.bytes, "exempt_documents": self.exempt,
            "removed": {reason: {"documents": what.documents, "bytes": what.bytes} for reason, what in sorted(self.removed.items())},
            "validation_documents": self.validation.documents, "validation_bytes": self.validation.bytes,
            "scrubbed": {"emails": self.mended.emails, "phones": self.mended.phones},
            "repaired_characters": self.mended.repaired, "boilerplate_lines": self.mended.boilerplate_lines,
            "dates": {"min": self.dates[0], "max": self.dates[1], "documents": self.dated} if self.dated else {"min": None, "max": None, "documents": 0},
            "bad_counts": bad.counts(self.name, *LOST), "repaired_counts": bad.counts(self.name, "repaired"), "bad": bad.examples.get(self.name, []),
        }  # fmt: skip


class BadRecords:
    """What could not be read: counted by source and reason, the first of each written to a file, a few kept for the ledger."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115  closed by `close`
        self.by_reason: dict[tuple[str, str, str], int] = {}  # (source, kind, reason) -> count
        self.examples: dict[str, list[dict]] = {}
        self.first: dict[tuple[str, str, str], str] = {}

    def add(self, source: str, bad: BadRecord) -> None:
        key = (source, bad.kind, bad.reason)
        self.by_reason[key] = self.by_reason.get(key, 0) + 1
        self.first.setdefault(key, bad.place)
        entry = {"source": source, "file": bad.file, "line": bad.line, "reason": bad.reason, "kind": bad.kind, "excerpt": bad.excerpt}
        if self.by_reason[key] <= LISTED_PER_REASON:
            self.file.write(json.dumps(entry, ensure_ascii=True) + "\n")
        if len(self.examples.setdefault(source, [])) < LISTED_IN_LEDGER:
            self.examples[source].append(entry)

    def counts(self, source: str, *kinds: str) -> dict[str, int]:
        """How often each reason was given for things of these kinds."""
        counts: Counter[str] = Counter()
        for (of, kind, reason), count in self.by_reason.items():
            if of == source and kind in kinds:
                counts[reason] += count
        return dict(counts)

    def count(self, *kinds: str) -> int:
        return sum(count for (_, kind, _), count in self.by_reason.items() if kind in kinds)

    def check(self, source: SourceSection, num_read: Mapping[str, int], max_bad_frac: float) -> None:
        """UserError when nothing could be read, or too much was lost: of records by their number, of text by its lines, so that the
        one does not hide behind the other. Files that are empty, cut off or of another kind do not count.
        """
        every = {key: count for key, count in self.by_reason.items() if key[0] == source.name}
        if not any(num_read.values()):
            self.close()
            raise UserError(f"source {source.name!r}: no document could be read from {source.path}.{most_often(every, self.first)}")
        for unit, num_good in num_read.items():
            lost = {key: count for key, count in every.items() if key[1] == unit}
            num_lost, total = sum(lost.values()), num_good + sum(lost.values())
            if num_lost >= FEWEST_BAD and num_lost > max_bad_frac * total:
                self.close()
                raise UserError(
                    f"source {source.name!r}: {num_lost:,} of {total:,} {unit}s cannot be read, more than data.max_bad_frac = {max_bad_frac}."
                    f"{most_often(lost, self.first)} Mend or convert the file (the first {LISTED_PER_REASON:,} for each reason are listed in "
                    f"{self.file.name}), or raise data.max_bad_frac."
                )

    def close(self) -> None:
        if not self.file.closed:
            self.file.close()
