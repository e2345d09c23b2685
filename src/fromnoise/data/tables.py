"""Records out of tables: csv and parquet."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from fromnoise.data.files import EXCERPT_CHARS, BadRecord, DataFile, OnBad, text_lines

if TYPE_CHECKING:
    import pyarrow as pa

_SEP = re.compile(r"sep=([,\t;|])\s*")  # a first line by which spreadsheets say what stands between columns
Needed = Callable[[list[str]], list[str] | None]  # of a table's columns, those to read; None: all


def csv_records(file: DataFile, on_bad: OnBad) -> Iterator[tuple[dict, int]]:
    """(row by column name, the line it begins in). A quote that is not closed takes what follows with it: that is reported."""
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB refuses long articles
    numbered, ended = text_lines(file, on_bad), False
    filled = ((number - 1, line) for number, line in numbered if line.strip())
    before, first = next(filled, (0, ""))
    named = _SEP.fullmatch(first)
    if named:
        before, first = next(filled, (0, ""))
    end = "\r" if "\r" in first else "\n"  # lines that end in CR alone (classic Mac) have come as a single one

    def lines() -> Iterator[str]:
        nonlocal ended
        for line in chain([first], (line for _, line in numbered)):
            yield from (part.replace("\0", "") + "\n" for part in line.split(end))
        ended = True

    marks = "\t,;|" if ".tsv" in file.path.name.lower() else ",\t;|"
    head = next((part for part in first.split(end) if part.strip()), "")
    delimiter = named[1] if named else max(marks, key=head.count) if any(mark in head for mark in marks) else ","
    rows, header = csv.reader(lines(), delimiter=delimiter, strict=True), None
    while True:
        line = before + rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            last = before + rows.line_num
            spans = f"lines {line} to {last}" if last > line else ""
            if ended or header is None:
                on_bad(BadRecord(str(file.path), line, "a quote that is never closed" if ended else f"malformed csv header: {error}", spans, "file"))
                return
            on_bad(BadRecord(str(file.path), line, f"malformed csv: {error}", spans))
            continue
        if not any(value.strip() for value in row) and (header is None or not row):
            continue
        if header is None:
            header = [name.strip() for name in row]
            if twice := _twice(header):
                on_bad(BadRecord(str(file.path), line, twice, delimiter.join(row)[:EXCERPT_CHARS], "file"))
                return
        elif len(row) != len(header):
            on_bad(BadRecord(str(file.path), line, f"{len(row)} values in a row of {len(header)} columns", delimiter.join(row)[:EXCERPT_CHARS]))
        else:
            yield dict(zip(header, row, strict=True)), line


def _twice(columns: list[str]) -> str | None:
    """What is wrong with columns of which two have one name: which is meant cannot be told."""
    return next((f"two columns are called {name!r}; rename one" for name, count in Counter(columns).items() if name and count > 1), None)


def parquet_records(file: DataFile, data: bytes | None, on_bad: OnBad, needed: Needed | None) -> Iterator[tuple[dict, int]]:
    """(row by column name, its number). data: the file's bytes, where it had to be unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(io.BytesIO(data) if data is not None else str(file.path)) as table:
            if twice := _twice(table.schema_arrow.names):
                on_bad(BadRecord(str(file.path), None, twice, ", ".join(table.schema_arrow.names)[:EXCERPT_CHARS], "file"))
                return
            for batch in table.iter_batches(batch_size=256, columns=needed(table.schema_arrow.names) if needed else None):
                columns = [_values(column, name, number, file, on_bad) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield dict(zip(batch.schema.names, values, strict=True)), number
    except (pa.ArrowException, OSError, ValueError) as error:
        after = f"after row {number}" if number else "from its beginning"
        on_bad(BadRecord(str(file.path), number or None, f"damaged parquet {after}", str(error)[:EXCERPT_CHARS], "file"))


def _values(column: pa.Array, name: str, before: int, file: DataFile, on_bad: OnBad) -> list[Any]:
    """A column as Python has it. What it cannot hold (a year of six digits, text that is not UTF-8) is reported, and None."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return column.to_pylist()
    except (ArithmeticError, LookupError, ValueError, pa.ArrowException):
        values = []
    for number, value in enumerate(column, start=before + 1):
        try:
            values.append(value.as_py())
        except (ArithmeticError, LookupError, ValueError, pa.ArrowException) as error:
            on_bad(BadRecord(str(file.path), number, f"a value of column {name!r} that cannot be read, left out", str(error)[:EXCERPT_CHARS], "repaired"))
            values.append(None)
    return values
