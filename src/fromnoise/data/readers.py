"""Documents and records out of the files people have: text, html, jsonl, json, csv, parquet, each plain, .gz or .zst.

Nothing is dropped silently: what cannot be read goes to `on_bad` with file, line and reason, and reading goes on.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fromnoise.data.dates import parse_date
from fromnoise.data.document import Document, cut_point
from fromnoise.data.files import (
    EXCERPT_CHARS,
    HALF_CHARACTER,
    BadRecord,
    DataFile,
    OnBad,
    Reasons,
    byte_chunks,
    data_files,
    encodable,
    text_blocks,
    text_lines,
    watched_blocks,
)
from fromnoise.data.markup import declared_codec, html_to_text, is_json, json_to_text, json_value
from fromnoise.data.shards import SOURCE_NAME
from fromnoise.data.tables import Needed, csv_records, parquet_records
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import DataSection, SourceSection

__all__ = ["BadRecord", "OnBad", "parse_date", "read_documents", "read_records", "sources_of"]

DOCUMENT_END = "<|endoftext|>"  # alone on a line of a text file: the separator of documents (TinyStories, many GPT-2 era corpora)
END_OF_LINE = re.compile(re.escape(DOCUMENT_END) + r"[ \t\r]*$", re.MULTILINE)
TEXT_FIELDS = ("text", "content", "body", "article", "document", "story", "code", "markdown", "page_content", "raw_content")
TURN_KEYS = ("messages", "conversations", "conversation")  # under which a conversation's turns stand
MAX_WHOLE_BYTES = 512 << 20  # html, json and packed parquet are held whole
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
WORLD_SOURCES = ("web", "books", "code", "papers")
ALL = "all"  # in compression.json and bits per byte: the sum over sources
HEAD_LINES = 40  # a date field of a text file is looked for in its first lines


def sources_of(data: DataSection) -> list[SourceSection]:
    """The user's sources: `data.sources`, and `data.path` as one more, named after its file or folder."""
    sources = list(data.sources)
    if data.path is not None:
        stem = Path(data.path.rstrip("/")).name.split(".")[0]
        name = "".join(char if char.isascii() and char.isalnum() else "_" for char in stem).strip("_") or "text"
        sources.append(SourceSection(name="text" if name == ALL else name[:64], path=data.path))
    names = [source.name for source in sources] + list(WORLD_SOURCES if data.world else ())
    for name in names:
        if not SOURCE_NAME.fullmatch(name):
            raise UserError(f"data.sources: {name!r} is no name for a source; use up to 64 letters, digits, '_', '-' and '.'.")
        if name == ALL:
            raise UserError(f"data.sources: {ALL!r} means all sources together wherever figures stand by source; give the source another name.")
        if names.count(name) > 1:
            raise UserError(f"data.sources: two sources are called {name!r}{' (the world has one of that name)' if data.world else ''}; rename one.")
    return sources


def read_documents(source: SourceSection, on_bad: OnBad, max_chars: int = 1_000_000) -> Iterator[Document]:
    """The documents of one source, in the order of its sorted files.

    A text or html file is one document (a line of a text file that is `<|endoftext|>` alone separates two), each record of
    jsonl, csv and parquet is one, and a json file is its list of records, or one nested document. A text file longer than
    `max_chars` comes in pieces, read as a stream: memory does not grow with the file.

    Errors: UserError for a missing path, and for csv or parquet columns of which none is the text.
    """
    for file in data_files(source.path, on_bad, f"source {source.name!r}"):
        read = _text_documents if file.kind == "text" else _html_document if file.kind == "html" else _record_documents
        empty, is_record = True, read is _record_documents
        reported: list[BadRecord] = []

        def note(bad: BadRecord, reported: list[BadRecord] = reported, is_record: bool = is_record) -> None:
            bad = replace(bad, kind="line") if bad.kind == "record" and not is_record else bad
            reported[:] = [bad]
            on_bad(bad)

        try:
            for text, doc_id, date in read(file, source, note, max_chars):
                empty = False
                yield Document(text=text, source=source.name, doc_id=doc_id, date=date, licence=source.licence, is_record=is_record)
        except OSError as error:
            note(BadRecord(str(file.path), None, f"cannot be read: {error.strerror or error}", kind="file"))
        if empty and not reported:
            on_bad(BadRecord(str(file.path), None, "empty file", kind="file"))


Found = Iterator[tuple[str, str, str | None]]  # (text, doc_id, date)


def _text_documents(file: DataFile, source: SourceSection, on_bad: OnBad, max_chars: int) -> Found:
    date_line = source.date_field and re.compile(rf"^[\s:*]*{re.escape(source.date_field)}\s*[:=]\s*(.+)$", re.IGNORECASE | re.MULTILINE)
    rest, number, piece, date, several, begins_line, which = "", 0, 0, None, False, True, ""

    def emit(text: str, is_piece: bool) -> Found:
        nonlocal number, piece, date, which
        if piece == 0:
            number += 1
            which = f"#{number}" if several else ""
            match = date_line and date_line.search("\n".join(text[:20_000].split("\n", HEAD_LINES)[:HEAD_LINES]))
            date = parse_date(match.group(1)) if match else None
        piece = piece + 1 if is_piece or piece else 0
        if text.strip():
            yield text, file.name + which + (f"#{piece}" if piece else ""), date

    for block in chain(watched_blocks(file, on_bad), [None]):
        rest += block or ""
        lines = len(rest) if block is None else rest.rfind("\n") + 1  # whether the last one is a separator shows when it is at its end
        *complete, last = separated(rest[:lines], begins_line)
        rest = last + rest[lines:]
        if complete:
            several, begins_line = True, False
        for text in complete:
            while len(text) > max_chars:
                end = cut_point(text[:max_chars], max_chars)
                yield from emit(text[:end], True)
                text = text[end:]
            yield from emit(text, False)
            number, piece = number if which else max(number, piece), 0  # "#2" may have been a piece, before there was a second document
        while len(rest) > max_chars + len(DOCUMENT_END):
            end = cut_point(rest[:max_chars], max_chars)
            begins_line = rest[end - 1] == "\n"
            yield from emit(rest[:end], True)
            rest = rest[end:]
    yield from emit(rest, False)


def separated(text: str, begins_line: bool) -> list[str]:
    """The text cut at each DOCUMENT_END that stands alone on its line; elsewhere it is text like any other.

    begins_line: whether the text begins at the beginning of a line.
    """
    parts, begin = [], 0
    for match in END_OF_LINE.finditer(text):
        newline = text.rfind("\n", 0, match.start())
        if not text[newline + 1 : match.start()].strip() and (newline >= 0 or begins_line):
            parts.append(text[begin : match.start()])
            begin = match.end()
    return [*parts, text[begin:]]


def _html_document(file: DataFile, source: SourceSection, on_bad: OnBad, max_chars: int) -> Found:
    html = _declared_text(file, on_bad)
    html = html if html is not None else _whole_text(file, on_bad)
    date = None
    if source.date_field:
        tag = re.search(rf"<meta[^>]*[\"']{re.escape(source.date_field)}[\"'][^>]*>", html[:100_000], re.IGNORECASE)
        content = tag and re.search(r"content\s*=\s*[\"']([^\"']+)", tag.group(0), re.IGNORECASE)
        date = parse_date(content.group(1)) if content else None
    if text := html_to_text(html):
        yield text, file.name, date
    elif html.strip():
        on_bad(BadRecord(str(file.path), None, "no readable text", kind="file"))


def _declared_text(file: DataFile, on_bad: OnBad) -> str | None:
    """The page in the charset that it declares; None where it declares none, or one that cannot be true of it, which is common."""
    head = next(byte_chunks(file, lambda bad: None), b"")[:2048]
    codec = None if head.startswith(BYTE_ORDER_MARKS) else declared_codec(head)
    if codec is None:
        return None
    reported: list[BadRecord] = []
    data = _whole(file, reported.append)
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data, final=not reported)  # an archive may be cut off inside a character
    except (LookupError, ValueError):
        return None
    for bad in reported:
        on_bad(bad)
    return text


def _record_documents(file: DataFile, source: SourceSection, on_bad: OnBad, max_chars: int) -> Found:
    checked = file.kind not in ("csv", "parquet")  # these have one set of columns: wrong ones are the user's to name
    for record, line in _records(file, on_bad, partial(_needed, source), source.text_field):
        if not checked:
            _require_columns(file, source, list(record))
            checked = True
            if file.kind == "csv" and len(record) == 1 and source.text_field is None and " " in (name := next(iter(record))):
                taken = "the first line was taken for the name of the only column; if it is text, put a line 'text' before it"
                on_bad(BadRecord(str(file.path), None, taken, name[:EXCERPT_CHARS], "repaired"))
        if isinstance(record, str):
            text = record
        elif (field := text_field(record, source.text_field)) is not None:
            text = record[field]
        elif file.kind == "json" and source.text_field is None:
            try:
                text = json_to_text(record)
            except RecursionError:
                on_bad(BadRecord(str(file.path), line, "malformed JSON: nested too deep"))
                continue
        elif source.text_field is None and (known := next((key for key in record if str(key).lower() in TEXT_FIELDS), None)) is not None:
            text = record[known]
        else:
            named = source.text_field
            wanted = f"no field {named!r}" if named else "no field that looks like the text (name it with text_field in [[data.sources]])"
            on_bad(BadRecord(str(file.path), line, wanted, f"fields: {', '.join(map(str, record))}"[:EXCERPT_CHARS]))
            continue
        if not isinstance(text, str) or not text.strip():
            reason = "empty text" if isinstance(text, str) else f"the text is {'null' if text is None else f'a {type(text).__name__}'}, not a string"
            on_bad(BadRecord(str(file.path), line, reason, repr(text)[:EXCERPT_CHARS]))
            continue
        if not text.isascii() and HALF_CHARACTER.search(text):  # JSON can spell one, as of an emoji that was cut in two
            on_bad(BadRecord(str(file.path), line, "half a character, replaced by U+FFFD", text[:EXCERPT_CHARS], "repaired"))
            text = HALF_CHARACTER.sub("\ufffd", text)
        date = parse_date(record.get(source.date_field)) if source.date_field and isinstance(record, dict) else None
        yield text, f"{file.name}:{line}", date


def text_field(record: dict, named: str | None) -> str | None:
    """The field that holds the text: the named one, else the first known name (with more than space in it, if there is one), else the
    only field that is a string."""
    if named is not None:
        return named if named in record else None
    lower = {str(key).lower(): key for key in record}
    known = [lower[name] for name in TEXT_FIELDS if name in lower and isinstance(record[lower[name]], str)]
    if known:
        return next((key for key in known if record[key].strip()), known[0])
    strings = [key for key, value in record.items() if isinstance(value, str)]
    return strings[0] if len(strings) == 1 == len(record) else None


def _needed(source: SourceSection, columns: list[str]) -> list[str] | None:
    """Of a table's columns the date and those that are or may be the text; None for all of them, where none may be."""
    text = [name for name in columns if (name == source.text_field if source.text_field else name.lower() in TEXT_FIELDS)]
    return [name for name in columns if name in text or name == source.date_field] if text else None


def check_columns(source: SourceSection) -> None:
    """UserError for a csv or parquet file of the source that has no column for the text, by its first record: before the files that go before it are
    read. A packed parquet is left to `read_documents`: it would be unpacked whole."""
    for file in data_files(source.path, lambda bad: None, f"source {source.name!r}"):
        if file.kind == "csv" or (file.kind == "parquet" and not file.packing):
            with suppress(OSError):  # `read_documents` reports it
                for record, _ in islice(_records(file, lambda bad: None, partial(_needed, source)), 1):
                    _require_columns(file, source, list(record))


def _require_columns(file: DataFile, source: SourceSection, columns: list[str]) -> None:
    named = source.text_field
    if named in columns or (named is None and text_field(dict.fromkeys(columns, ""), None) is not None):
        return
    problem = f"has no column {named!r}" if named else "has no column that looks like the text"
    raise UserError(
        f"source {source.name!r}: {file.path} {problem}; its columns are: {', '.join(map(str, columns))}. "
        f"Name the one to read with text_field in [[data.sources]], or leave the file out."
    )


def read_records(path: str, on_bad: OnBad) -> Iterator[tuple[dict, str, int]]:
    """(record, file, line) for every record of the jsonl, json, csv and parquet files that `path` names.

    Lines count from 1: lines of jsonl and csv, items of a json list, rows of parquet. Text and html files in a folder
    hold no records and are reported. Errors: UserError for a missing path or a single file of another kind.
    """
    files = data_files(path, on_bad)
    for file in files:
        if file.kind in ("text", "html"):
            if len(files) == 1:
                read = "jsonl, json, csv and parquet files (plain, .gz, .zst)"
                raise UserError(f"{file.path}: by its name this is {file.kind}, and records are read from {read}; if it is one of these, name it so.")
            on_bad(BadRecord(str(file.path), None, "a text file holds no records", kind="file"))
            continue
        empty, told = True, Reasons(on_bad)
        try:
            for record, line in _records(file, told, None):
                empty = False
                if isinstance(record, dict):
                    yield record, encodable(str(file.path)), line
                else:
                    on_bad(BadRecord(str(file.path), line, "not a record with named fields", repr(record)[:EXCERPT_CHARS]))
        except OSError as error:
            told(BadRecord(str(file.path), None, f"cannot be read: {error.strerror or error}", kind="file"))
        if empty and not told.counts:
            on_bad(BadRecord(str(file.path), None, "no records in the file", kind="file"))


def first_of(path: str, parse: Callable[[dict], Any]) -> Any:
    """What `parse` makes of the first record for which it raises no ValueError; None where there is none."""
    for record, _, _ in read_records(path, lambda bad: None):
        with suppress(ValueError):
            return parse(record)
    return None


def _records(file: DataFile, on_bad: OnBad, needed: Needed | None, named: str | None = None) -> Iterator[tuple[dict | str, int]]:
    """(record, line): a dict, or a string where a list or a line is only that. `needed` limits what parquet reads; `named` is the field
    that was said to hold the text."""
    if file.kind == "csv":
        return csv_records(file, on_bad)
    if file.kind == "parquet":
        return parquet_records(file, _whole(file, on_bad) if file.packing else None, on_bad, needed)
    return _json_records(file, on_bad, named) if file.kind == "json" or _begins_a_list(file) else _jsonl_records(file, on_bad)


def _begins_a_list(file: DataFile) -> bool:
    """Whether a file of lines is one JSON list instead, as programs write it that were only told the name of the file."""
    head = next(byte_chunks(file, lambda bad: None), b"")
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _jsonl_records(file: DataFile, on_bad: OnBad) -> Iterator[tuple[dict | str, int]]:
    for number, line in text_lines(file, on_bad):
        if not line.strip():
            continue
        try:
            record = json_value(line)
        except (json.JSONDecodeError, RecursionError) as error:
            where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            on_bad(BadRecord(str(file.path), number, f"malformed JSON: {getattr(error, 'msg', 'nested too deep')}", f"{where.strip()}: {line[:EXCERPT_CHARS]}"))
            continue
        if isinstance(record, (dict, str)):
            yield record, number
        else:
            on_bad(BadRecord(str(file.path), number, f"a JSON {type(record).__name__}, not an object", line[:EXCERPT_CHARS]))


def _json_records(file: DataFile, on_bad: OnBad, named: str | None) -> Iterator[tuple[dict | str, int]]:
    text = _whole_text(file, on_bad)
    if not text.strip():
        return
    try:
        value = json_value(text)
    except json.JSONDecodeError as error:
        first, _, rest = text.lstrip().partition("\n")
        if rest.strip() and (file.kind == "jsonl" or is_json(first)):  # JSON lines under the name .json are common
            yield from _jsonl_records(file, on_bad)
            return
        excerpt = text[max(error.pos - 20, 0) : error.pos + 60]
        on_bad(BadRecord(str(file.path), error.lineno, f"malformed JSON: {error.msg}", excerpt))
        return
    except RecursionError:
        on_bad(BadRecord(str(file.path), None, "malformed JSON: nested too deep"))
        return
    if isinstance(value, dict) and len(value) <= 3 and not _is_record(value, named):  # {"data": [...]} and its like
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        value = lists[0] if len(lists) == 1 else value
    for number, record in enumerate(value if isinstance(value, list) else [value], start=1):
        if isinstance(record, (dict, str)):
            yield record, number
        else:
            on_bad(BadRecord(str(file.path), number, f"a JSON {type(record).__name__}, not an object", repr(record)[:EXCERPT_CHARS]))


def _is_record(value: dict, named: str | None) -> bool:
    """Whether an object is a text with lists beside it (its authors), or a conversation: what it says would be lost with all but a list."""
    if text_field(value, named) is not None:
        return True
    turns = [value[key][0] for key in TURN_KEYS if isinstance(value.get(key), list) and value[key]]
    return any(isinstance(turn, dict) and ("role" in turn or {"from", "value"} <= turn.keys()) for turn in turns)


def _whole(file: DataFile, on_bad: OnBad) -> bytes:
    return b"".join(_limited(file, byte_chunks(file, on_bad), on_bad))


def _whole_text(file: DataFile, on_bad: OnBad) -> str:
    return "".join(_limited(file, text_blocks(file, on_bad), on_bad))


def _limited(file: DataFile, pieces: Iterator, on_bad: OnBad) -> list:
    """All pieces, or none of them, reported, when they pass MAX_WHOLE_BYTES (also a small archive that unpacks to much)."""
    held, size = [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > MAX_WHOLE_BYTES:
            too_large = f"a {file.kind} file of more than {MAX_WHOLE_BYTES >> 20} MiB; split it, or write a record a line (jsonl)"
            on_bad(BadRecord(str(file.path), None, too_large, kind="file"))
            return []
    return held
