"""One document on its way from a reader to a shard, and the rules by which long ones are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

FEW_DOCUMENTS = 50  # a source with fewer is cut into chapters, or no whole document could be held out
CHAPTER_CHARS = (2_000, 20_000)  # least and most; between them a hundredth of the source


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    source: str  # name of the source, the key of every count by source
    doc_id: str  # unique within the source: "file", "file:line" or "file#piece"
    date: str | None = None  # ISO: "2001", "2001-07" or "2001-07-05"
    licence: str = "private"  # public, licensed, private or synthetic
    exempt: bool = False  # kept as it is, and in the training part: cleaning, scrubbing and holding out pass it by
    is_record: bool = False  # one of the records of its file, as it was read; else text, of which single lines may be lost


def cut_point(text: str, limit: int) -> int:
    """Where to cut a text longer than `limit`: the last paragraph end before it, else line, sentence, word, character.

    Only the second half of the limit is searched, so that no piece is shorter than half of it.
    """
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, limit // 2, limit)
        if found >= 0:
            return found + len(mark)
    return limit


def split_text(text: str, limit: int) -> Iterator[str]:
    """`text` in pieces of at most `limit` characters; they join to `text`."""
    start = 0
    while len(text) - start > limit:
        end = start + cut_point(text[start : start + limit], limit)
        yield text[start:end]
        start = end
    yield text[start:]


def split_document(document: Document, limit: int) -> Iterator[Document]:
    """The document itself when it is short enough or exempt, else its pieces, "#1", "#2", ... added to its id."""
    if document.exempt or len(document.text) <= limit:
        yield document
        return
    for number, piece in enumerate(split_text(document.text, limit), start=1):
        yield replace(document, text=piece, doc_id=f"{document.doc_id}#{number}")


def chapters_if_few(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents as they come, except where a whole source has fewer than FEW_DOCUMENTS: these in chapter-sized pieces.

    A folder of 22 novels, or one file of Shakespeare, has no whole document to spare for validation. Its documents are
    cut at paragraph ends into pieces of a hundredth of the source (2,000 to 20,000 characters), of which some are held
    out. At most FEW_DOCUMENTS documents are held in memory to find out.
    """
    documents = iter(documents)
    first = list(islice(documents, FEW_DOCUMENTS))
    if len(first) == FEW_DOCUMENTS:
        yield from chain(first, documents)
        return
    total = sum(len(document.text) for document in first)
    least, most = CHAPTER_CHARS
    limit = min(max(total // 100, least), most)
    for document in first:
        yield from split_document(document, limit)
