"""prepare: raw text, or the built-in world, to cleaned, deduplicated, counted document shards.

Reads the recipe's sources; writes `prepare/train`, `prepare/validation` and `prepare/removed` (parquet), `ledger.json`
(what came in, stayed, and left for which reason, by source), `bad.jsonl` (what could not be read) and, for the world,
`world/`. Two passes, each a stream:

    1. read -> split -> clean -> filter -> exact duplicates -> signature, into a hidden folder
    2. near-duplicates over all sources by signature -> train | validation | removed

The same input and seed give the same bytes. There is no checkpoint: cut off, it starts again from the beginning.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fromnoise.data.clean import Measured, drop_boilerplate, normalise, repair_encoding, scrub_contacts, why_removed
from fromnoise.data.dedup import NUM_HASHES, Shingler, exact_key, near_duplicates, signatures
from fromnoise.data.document import Document, chapters_if_few, split_document
from fromnoise.data.files import data_files
from fromnoise.data.ledger import LOST, BadRecords, Mended, Tally
from fromnoise.data.readers import check_columns, read_documents, sources_of
from fromnoise.data.shards import DocumentWriter, read_document_ids, read_document_shards
from fromnoise.run.errors import UserError
from fromnoise.run.files import to_json
from fromnoise.run.recipe import PrepareSection, SourceSection

if TYPE_CHECKING:
    from fromnoise.run.context import StageContext

OUTPUTS = ("train", "validation", "removed", "world", "ledger.json", "bad.jsonl")
HELD_SHINGLES = 2_000_000  # 16 MB, then they become signatures


def run(ctx: StageContext) -> None:
    summary = prepare(ctx) if ctx.process.is_main else {}
    ctx.finish(summary)


def prepare(ctx: StageContext) -> dict[str, Any]:
    recipe = ctx.recipe
    sources = sources_of(recipe.data)
    for source in sources:
        check_columns(source)
    staging = ctx.folder / ".staging"
    for name in (".staging", *OUTPUTS):
        _remove(ctx.folder / name)
    bad = BadRecords(staging / "bad.jsonl")
    tallies: dict[str, Tally] = {}
    intake = Intake(recipe.prepare, staging, ctx.seed, tallies)

    total_bytes = sum(file.path.stat().st_size for source in sources for file in data_files(source.path, lambda _: None, f"source {source.name!r}"))
    total_bytes += recipe.world.documents_tokens * 4 if recipe.data.world else 0
    with ctx.progress(max(total_bytes >> 10, 1), "kilobyte") as progress:
        shown = 0
        for document in _all_documents(ctx, sources, tallies, bad):
            shown += intake.add(document)
            if shown >= 1 << 18:
                progress.advance(shown >> 10, documents=intake.num_documents)
                shown = 0
    bad.close()

    ctx.info(f"prepare: {intake.num_documents:,} documents read; comparing them with each other")
    _split(intake, tallies, recipe.prepare, staging)
    for source in sources:
        tally = tallies[source.name]
        if not tally.kept.documents:  # mostly one that overlaps another: the first has what both hold
            reasons = ", ".join(f"{what.documents:,} × {reason}" for reason, what in tally.removed.items())
            ctx.info(f"prepare: source {source.name!r}: none of its {tally.came_in.documents:,} documents is left ({reasons})")
        elif source.date_field and not tally.dated:
            ctx.info(f"prepare: source {source.name!r}: none of its documents has a date in {source.date_field!r} (date_field)")
    if recipe.data.world:
        from fromnoise.world.records import write_records

        write_records(staging / "world", recipe.seed, recipe.world)
    ledger = {"schema_version": 1, "seed": ctx.seed, "sources": [tally.entry(bad) for tally in tallies.values()]}
    (staging / "ledger.json").write_text(to_json(ledger, indent=1) + "\n", encoding="utf-8")
    kept = sum(tally.kept.documents for tally in tallies.values())
    if tallies and kept == 0:
        reasons = Counter({reason: what.documents for tally in tallies.values() for reason, what in tally.removed.items()})
        raise UserError(f"prepare: of {intake.num_documents} documents none is left after cleaning ({dict(reasons)}); see docs/prepare.md for the filters.")
    for name in OUTPUTS:
        if (staging / name).exists():
            (staging / name).rename(ctx.folder / name)
    shutil.rmtree(staging)
    return {
        "documents": kept, "bytes": sum(tally.kept.bytes for tally in tallies.values()), "documents_in": intake.num_documents,
        "validation_documents": sum(tally.validation.documents for tally in tallies.values()), "bad_records": bad.count(*LOST),
        "repaired_records": bad.count("repaired"),
    }  # fmt: skip


def _all_documents(ctx: StageContext, sources: list[SourceSection], tallies: dict[str, Tally], bad: BadRecords) -> Iterator[Document]:
    """Every source's documents, long ones split; of duplicates the first stays, so those that are not trained on come last."""
    limit = ctx.recipe.prepare.max_chars
    for source in sources:
        if source.weight > 0:
            yield from _documents_of(ctx, source, tallies, bad)
    if ctx.recipe.data.world:
        from fromnoise.world.build import documents

        for document in documents(ctx.recipe.seed, ctx.recipe.world):
            if document.source not in tallies:
                tallies[document.source] = Tally(document.source, simulated=True)
            yield from split_document(document, limit)
    for source in sources:
        if source.weight == 0:
            yield from _documents_of(ctx, source, tallies, bad)


def _documents_of(ctx: StageContext, source: SourceSection, tallies: dict[str, Tally], bad: BadRecords) -> Iterator[Document]:
    """One of the user's sources. When too much of it is malformed, that ends the run (UserError)."""
    limit = ctx.recipe.prepare.max_chars
    tally = tallies[source.name] = Tally(source.name, weight=source.weight)
    documents = read_documents(source, lambda record: bad.add(source.name, record), limit)
    yield from chapters_if_few(piece for document in _counted(documents, tally) for piece in split_document(document, limit))
    bad.check(source, tally.num_read, ctx.recipe.data.max_bad_frac)
    if counts := bad.counts(source.name, *LOST, "repaired"):
        ctx.info(f"prepare: {source.name}: " + ", ".join(f"{count:,} × {reason}" for reason, count in counts.items()) + " (bad.jsonl)")


def _counted(documents: Iterator[Document], tally: Tally) -> Iterator[Document]:
    for document in documents:
        tally.read(document)
        yield document


class Intake:
    """The first pass: takes documents one by one, keeps their signatures, writes the kept and the removed to `.staging`."""

    def __init__(self, settings: PrepareSection, staging: Path, seed: int, tallies: dict[str, Tally]):
        self.settings, self.seed, self.tallies = settings, seed, tallies
        self.num_documents = 0
        self.shingler = Shingler()
        self.seen: dict[bytes, str] = {}  # exact key -> "source/id" of the first
        self.kept = DocumentWriter(staging / "kept")
        self.removed = DocumentWriter(staging / "removed", extra=("reason", "duplicate_of"))
        self.pending: dict[str, list[np.ndarray]] = {}  # shingles by source
        self.num_pending = 0
        # By source, in the order of its kept documents:
        self.signatures: dict[str, list[np.ndarray]] = {}
        self.draws: dict[str, list[float]] = {}  # in [0, 1), from the seed and the text: low ones are held out; 2: exempt
        self.sizes: dict[str, list[int]] = {}  # bytes as they came in
        self.mended: dict[str, dict[int, Mended]] = {}  # of those in which cleaning changed something that is counted

    def add(self, document: Document) -> int:
        """Returns the document's size in bytes."""
        tally, settings = self.tallies[document.source], self.settings
        num_bytes = len(document.text.encode("utf-8", "surrogatepass"))
        self.num_documents += 1
        tally.came_in.add(num_bytes)
        tally.licences[document.licence] += 1
        original, counts = document, Mended()
        if not document.exempt:
            text, counts = clean(document.text, settings)
            document = replace(document, text=text)
        shingles = self.shingler(document.text)
        key = exact_key(document.text)
        reason = of = None
        if not document.exempt:
            reason = why_removed(Measured(document.text, shingles, settings.min_chars, settings.max_repeated_line_frac))
            if reason is None and key in self.seen:
                reason, of = "exact_duplicate", self.seen[key]
        if reason is not None:
            self.removed.write(replace(original, text=normalise(original.text)), reason=reason, duplicate_of=of)
            tally.remove(reason, num_bytes)
            return num_bytes
        self.seen.setdefault(key, f"{document.source}/{document.doc_id}")
        if any(counts):
            self.mended.setdefault(document.source, {})[len(self.sizes.get(document.source, ()))] = counts
        self.kept.write(document)
        draw = int.from_bytes(sha256(f"{self.seed}\n".encode() + key).digest()[:6], "big") / (1 << 48)
        self.draws.setdefault(document.source, []).append(2.0 if document.exempt else draw)
        self.sizes.setdefault(document.source, []).append(num_bytes)
        self.pending.setdefault(document.source, []).append(shingles)
        self.num_pending += max(len(shingles), NUM_HASHES)  # while a short document is signed its hashes take more than its shingles
        if self.num_pending > HELD_SHINGLES:
            self.sign()
        return num_bytes

    def sign(self) -> None:
        """Turn the shingles held into signatures."""
        for source, shingles in self.pending.items():
            self.signatures.setdefault(source, []).append(signatures(shingles))
        self.pending, self.num_pending = {}, 0


def clean(text: str, settings: PrepareSection) -> tuple[str, Mended]:
    """(cleaned text, what was changed)"""
    text, repaired = repair_encoding(text)
    text, lines = drop_boilerplate(normalise(text))
    emails = phones = 0
    if settings.scrub_contacts:
        text, emails, phones = scrub_contacts(text)
    return text, Mended(emails, phones, repaired, lines)


def _split(intake: Intake, tallies: dict[str, Tally], settings: PrepareSection, staging: Path) -> None:
    """The second pass: from `.staging/kept` to train, validation and, for near-duplicates, removed."""
    intake.sign()
    intake.kept.close()
    names = [name for name in tallies if name in intake.draws]
    rows = np.concatenate([signatures([]), *(part for name in names for part in intake.signatures.pop(name))])
    draws = {name: np.array(intake.draws[name]) for name in names}
    exempt = np.concatenate([np.empty(0, dtype=bool), *(draws[name] > 1 for name in names)])
    duplicate_of = near_duplicates(rows, settings.near_duplicate_threshold, first=exempt)
    ids = _ids_at(staging, names, set(duplicate_of[duplicate_of >= 0].tolist()))

    start = 0
    with DocumentWriter(staging / "train") as train, DocumentWriter(staging / "validation") as validation, intake.removed as removed:
        for name in names:
            tally, of = tallies[name], duplicate_of[start : start + len(draws[name])]
            start += len(of)
            held_out = _held_out(draws[name], of >= 0, settings.validation_frac)
            for index, document in enumerate(read_document_shards(staging, "kept", name)):
                if of[index] >= 0:
                    tally.remove("near_duplicate", intake.sizes[name][index])
                    removed.write(document, reason="near_duplicate", duplicate_of=ids[int(of[index])])
                    continue
                tally.keep(document, intake.mended.get(name, {}).get(index, Mended()), held_out=bool(held_out[index]))
                (validation if held_out[index] else train).write(document)
    shutil.rmtree(staging / "kept")


def _ids_at(staging: Path, names: list[str], positions: set[int]) -> dict[int, str]:
    """ "source/id" of the documents at these positions of the first pass."""
    numbered = enumerate((name, doc_id) for name in names for doc_id in read_document_ids(staging, "kept", name))
    return {position: f"{name}/{doc_id}" for position, (name, doc_id) in numbered if position in positions}


def _held_out(draws: np.ndarray, removed: np.ndarray, frac: float) -> np.ndarray:
    """(documents,) bool: the share `frac` of the source, those with the lowest draws; at least one, if two can be spared.

    A document's draw depends on the seed and its text alone, so most stay on their side when others come or go. Exempt
    documents (draw 2) are never held out: what they teach must be in the training part.
    """
    candidates = np.flatnonzero((draws <= 1) & ~removed)
    held_out = np.zeros(len(draws), dtype=bool)
    if frac > 0 and len(candidates) >= 2:
        count = min(max(round(frac * np.count_nonzero(~removed)), 1), len(candidates) // 2)
        held_out[candidates[np.argsort(draws[candidates], kind="stable")[:count]]] = True
    return held_out


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
