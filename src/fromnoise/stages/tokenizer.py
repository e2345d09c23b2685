"""tokenizer: document shards to a byte-level BPE tokenizer and token shards.

Reads `prepare/`; writes `tokenizer/`: tokenizer.json and tokenizer_config.json, `tokens/` (see data/shards.py) and
`compression.json`, how many bytes a token stands for, by source, on the validation part. The same shards and recipe
give the same bytes; cut off, it starts again from the beginning.
"""

from __future__ import annotations

import json
import lzma
import shutil
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.data.document import Document
from fromnoise.data.shards import encoded, read_document_shards, token_dtype, write_token_index, write_tokens
from fromnoise.data.tokenizer import Tokenizer, vocabulary_for
from fromnoise.run.errors import UserError

if TYPE_CHECKING:
    from fromnoise.run.context import StageContext

SPLITS = ("train", "validation")
COMPARED_CHARS = 4_000_000  # of validation text given to gzip and xz, by source


def run(ctx: StageContext) -> None:
    summary = make(ctx) if ctx.process.is_main else {}
    ctx.finish(summary)


def make(ctx: StageContext) -> dict[str, Any]:
    prepared, settings = ctx.path("prepare"), ctx.recipe.tokenizer
    sources = json.loads((prepared / "ledger.json").read_text(encoding="utf-8"))["sources"]
    train_bytes = {source["name"]: source["bytes_kept"] - source["validation_bytes"] for source in sources}
    if not sum(train_bytes.values()):
        raise UserError(f"{prepared}: the training part is empty; give prepare some text.")
    vocab_size = settings.vocab_size or vocabulary_for(sum(train_bytes.values()))
    ctx.info(f"tokenizer: learning a vocabulary of {vocab_size:,} from {min(sum(train_bytes.values()), settings.train_bytes) / 1e6:.1f} MB")
    tokenizer = Tokenizer.train(sample(prepared, train_bytes, settings.train_bytes, ctx.seed), vocab_size)
    tokenizer.save(ctx.folder)

    staging, tokens = ctx.folder / ".tokens", ctx.folder / "tokens"
    for folder in (staging, tokens):
        shutil.rmtree(folder, ignore_errors=True)
    dtype = token_dtype(tokenizer.vocab_size)
    splits: dict[str, dict[str, dict]] = {split: {} for split in SPLITS}
    compression: dict[str, dict] = {}
    with ctx.progress(max(sum(source["bytes_kept"] for source in sources) >> 10, 1), "kilobyte") as progress:
        for source in sources:
            for split in SPLITS:
                documents = read_document_shards(prepared, split, source["name"])
                counted = Counted(documents, keep_chars=COMPARED_CHARS if split == "validation" else 0)
                batches = encoded(tokenizer, counted, lambda num_bytes: progress.advance(num_bytes >> 10))
                counts = write_tokens(staging, split, source["name"], batches, dtype, tokenizer.endoftext_id)
                if counts["documents"] == 0:
                    for suffix in ("bin", "idx.npy"):  # by name: a pattern would find those of a source "a.b" beside "a"
                        (staging / f"{split}.{source['name']}.{suffix}").unlink()
                    continue
                splits[split][source["name"]] = {**counts, "bytes": counted.num_bytes}
                if split == "validation":
                    compression[source["name"]] = compare(counted, counts["tokens"] - counts["documents"])
    write_token_index(staging, splits, dtype)
    staging.rename(tokens)

    if compression:
        num_bytes, num_tokens = (sum(entry[key] for entry in compression.values()) for key in ("bytes", "tokens"))
        compression["all"] = {"bytes": num_bytes, "tokens": num_tokens, "bytes_per_token": round(num_bytes / max(num_tokens, 1), 4)}
    report = {"schema_version": 1, "vocab_size": tokenizer.vocab_size, "num_tokens_known": len(tokenizer), "split": "validation", "sources": compression}
    (ctx.folder / "compression.json").write_text(json.dumps(report, indent=1) + "\n")
    return {
        "vocab_size": tokenizer.vocab_size,
        **{f"{split}_tokens": sum(counts["tokens"] for counts in splits[split].values()) for split in SPLITS},
        "bytes_per_token": compression["all"]["bytes_per_token"] if compression else None,
    }  # fmt: skip


def sample(prepared: Path, train_bytes: dict[str, int], limit: int, seed: int) -> Iterator[str]:
    """Training text for the tokenizer: all of it, or, beyond `limit` bytes, the same share of every source.

    Documents are drawn by a hash of the seed and their id, so that the sample does not depend on their order.
    """
    share = min(limit / sum(train_bytes.values()), 1.0)
    for name, num_bytes in train_bytes.items():
        left = num_bytes * share
        for document in read_document_shards(prepared, "train", name):
            draw = int.from_bytes(sha256(f"{seed}\n{name}\n{document.doc_id}".encode()).digest()[:6], "big") / (1 << 48)
            if share < 1 and draw >= share:
                continue
            text = document.text if left >= 4 * len(document.text) else document.text.encode()[: int(left)].decode("utf-8", "ignore")
            left -= len(text.encode())
            yield text
            if left < 1:
                break


class Counted:
    """Documents passed through, their UTF-8 bytes counted and the first of their text kept."""

    def __init__(self, documents: Iterator[Document], keep_chars: int):
        self.documents, self.keep_chars = documents, keep_chars
        self.num_bytes, self.kept = 0, []

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            self.num_bytes += len(document.text.encode())
            if self.keep_chars > 0:
                self.kept.append(document.text[: self.keep_chars])
                self.keep_chars -= len(document.text)
            yield document


def compare(counted: Counted, num_tokens: int) -> dict[str, Any]:
    """Bytes per token beside what general compressors make of the same text (raw bytes to packed bytes)."""
    raw = "\n".join(counted.kept).encode()
    return {
        "bytes": counted.num_bytes, "tokens": num_tokens, "bytes_per_token": round(counted.num_bytes / max(num_tokens, 1), 4),
        "gzip_ratio": round(len(raw) / len(zlib.compress(raw, 9)), 4), "xz_ratio": round(len(raw) / len(lzma.compress(raw, preset=6)), 4),
    }  # fmt: skip
