"""What lies on disk between the stages: documents in parquet, tokens in flat files.

`prepare/train/SOURCE-00000.parquet` holds text, source, doc_id, date, licence, exempt; `removed/` also the reason, and
what it repeats. `tokenizer/tokens/SPLIT.SOURCE.bin` holds the tokens of a source's documents one after the other,
`<|endoftext|>` behind each, as little-endian uint16 (uint32 for vocabularies over 65,536); `SPLIT.SOURCE.idx.npy` the
int64 offsets at which documents begin, and the end; `index.json` the sources, the type, and counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fromnoise.data.document import Document
from fromnoise.run.errors import UserError

if TYPE_CHECKING:
    from fromnoise.data.tokenizer import Tokenizer

SHARD_BYTES = 64 << 20  # of text, before compression
BATCH_BYTES = 2_000_000  # of text, encoded at a time
GROUP_BYTES = 4 << 20  # a parquet row group: what a reader holds at a time
DOCUMENT_FIELDS = ("text", "source", "doc_id", "date", "licence", "exempt")
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
SCHEMA_VERSION = 1


class DocumentWriter:
    """Writes documents into `folder`, a file or more for each source, in the order they come. Same documents, same bytes."""

    def __init__(self, folder: Path, extra: Sequence[str] = ()):
        self.folder, self.extra = folder, tuple(extra)  # extra: names of further string columns
        self.open: dict[str, _Shards] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, document: Document, **extra: str | None) -> None:
        if document.source not in self.open:
            self.open[document.source] = _Shards(self.folder, document.source, self.extra)
        self.open[document.source].write(document, extra)

    def close(self) -> None:
        for shards in self.open.values():
            shards.close()
        self.open.clear()

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shards:
    """The files of one source."""

    def __init__(self, folder: Path, source: str, extra: tuple[str, ...]):
        import pyarrow as pa

        self.folder, self.source, self.extra = folder, source, extra
        self.columns: dict[str, list] = {name: [] for name in (*DOCUMENT_FIELDS, *extra)}
        kinds = {name: pa.string() for name in self.columns} | {"text": pa.large_string(), "exempt": pa.bool_()}
        self.schema = pa.schema(list(kinds.items()))
        self.number, self.writer, self.held, self.written = 0, None, 0, 0

    def write(self, document: Document, extra: dict) -> None:
        for name in DOCUMENT_FIELDS:
            self.columns[name].append(getattr(document, name))
        for name in self.extra:
            self.columns[name].append(extra.get(name))
        self.held += len(document.text)
        if self.held >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.writer is None:
            path = self.folder / f"{self.source}-{self.number:05d}.parquet"
            self.writer = pq.ParquetWriter(path, self.schema, compression="zstd", compression_level=3)
        self.writer.write_table(pa.table(self.columns, schema=self.schema))
        self.written += self.held
        self.columns, self.held = {name: [] for name in self.columns}, 0
        if self.written >= SHARD_BYTES:
            self.close()
            self.number, self.written = self.number + 1, 0

    def close(self) -> None:
        if self.columns["text"]:
            self._flush()
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def read_document_shards(folder: Path, split: str, source: str | None = None) -> Iterator[Document]:
    """The documents of `prepare/`'s `split` ("train", "validation" or "removed"), source by source, in their order."""
    for values in _read(folder, split, source, DOCUMENT_FIELDS):
        yield Document(*values)


def read_document_ids(folder: Path, split: str, source: str) -> Iterator[str]:
    for (doc_id,) in _read(folder, split, source, ("doc_id",)):
        yield doc_id


def _read(folder: Path, split: str, source: str | None, fields: Sequence[str]) -> Iterator[tuple]:
    import pyarrow.parquet as pq

    for path in sorted((Path(folder) / split).glob("*.parquet")):
        if source is not None and path.name[: -len("-00000.parquet")] != source:
            continue
        with pq.ParquetFile(path) as table:
            for group in range(table.num_row_groups):
                rows = table.read_row_group(group, columns=list(fields))
                yield from zip(*(rows.column(name).to_pylist() for name in fields), strict=True)


# ----------------------------------------------------------------------------------------------------- token shards


class TokenShards:
    """The tokens of one split, memory-mapped. `folder` is `tokenizer/tokens`."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = Path(folder), split
        path = self.folder / "index.json"
        if not path.is_file():
            raise UserError(f"{path}: not found. The tokenizer stage writes it; run `fromnoise tokenizer` first.")
        self.index = json.loads(path.read_text())
        if self.index["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path}: schema version {self.index['schema_version']}, this program reads {SCHEMA_VERSION}; rerun the tokenizer stage.")
        self.sources: list[str] = list(self.index["splits"].get(split, {}))
        self.dtype = np.dtype(self.index["dtype"])

    def tokens(self, source: str) -> np.ndarray:
        """(tokens,) read-only memory map, uint16 or uint32: each document's tokens, then `<|endoftext|>`."""
        path = self.folder / f"{self.split}.{source}.bin"
        if path.stat().st_size == 0:
            return np.empty(0, dtype=self.dtype)
        return np.memmap(path, dtype=self.dtype, mode="r")

    def offsets(self, source: str) -> np.ndarray:
        """(documents + 1,) int64: document i is tokens[offsets[i] : offsets[i + 1]], its `<|endoftext|>` included."""
        return np.load(self.folder / f"{self.split}.{source}.idx.npy")

    @property
    def num_tokens(self) -> int:
        return sum(counts["tokens"] for counts in self.index["splits"].get(self.split, {}).values())


def token_dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def encoded(tokenizer: Tokenizer, documents: Iterable[Document], advance: Callable[[int], None]) -> Iterator[list[list[int]]]:
    """Documents encoded in batches of about BATCH_BYTES bytes of UTF-8, on all cores; `advance` is told how many were."""
    texts, num_bytes = [], 0
    for document in documents:
        texts.append(document.text)
        num_bytes += len(document.text.encode("utf-8", "replace"))
        if num_bytes >= BATCH_BYTES:
            yield tokenizer.encode_batch(texts)
            advance(num_bytes)
            texts, num_bytes = [], 0
    if texts:
        yield tokenizer.encode_batch(texts)
        advance(num_bytes)


def write_tokens(folder: Path, split: str, source: str, batches: Iterable[Sequence[Sequence[int]]], dtype: np.dtype, end_id: int) -> dict:
    """Write one source's documents, given in batches of token lists, with `end_id` behind each. Returns its counts."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths: list[int] = []
    end = np.array([end_id], dtype=dtype)
    with open(folder / f"{split}.{source}.bin", "wb") as out:
        for batch in batches:
            pieces = []
            for ids in batch:
                pieces += [np.asarray(ids, dtype=dtype), end]
                lengths.append(len(ids) + 1)
            out.write(np.concatenate(pieces).tobytes() if pieces else b"")
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    np.save(folder / f"{split}.{source}.idx.npy", offsets)
    return {"documents": len(lengths), "tokens": int(offsets[-1])}


def write_token_index(folder: Path, splits: dict[str, dict[str, dict]], dtype: np.dtype) -> None:
    """Written last: its presence says that the token files are whole. splits: {split: {source: counts}}"""
    index = {"schema_version": SCHEMA_VERSION, "dtype": dtype.str, "splits": splits}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
