"""What is written is what is read, and the same input gives the same bytes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fromnoise.data.document import Document, chapters_if_few, split_document, split_text
from fromnoise.data.shards import DocumentWriter, TokenShards, encoded, read_document_ids, read_document_shards, token_dtype, write_token_index, write_tokens
from fromnoise.run.errors import UserError


def write_documents(folder, documents):
    with DocumentWriter(folder) as writer:
        for document in documents:
            writer.write(document)


def test_documents_round_trip(tmp_path):
    documents = [Document("one\u2028é\n", "a", "f:1", "2001-07", "public", True), Document("two", "a", "f:2"), Document("x" * 9_000_000, "b", "g")]
    write_documents(tmp_path / "train", documents)
    assert list(read_document_shards(tmp_path, "train")) == documents
    assert list(read_document_shards(tmp_path, "train", "b")) == documents[2:]
    assert list(read_document_ids(tmp_path, "train", "a")) == ["f:1", "f:2"]
    write_documents(tmp_path / "again", documents)
    for path in (tmp_path / "train").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_source_names_that_begin_alike(tmp_path):
    write_documents(tmp_path / "train", [Document("1", "web", "x"), Document("2", "web-2", "x"), Document("3", "web-00000", "x")])
    assert [document.text for document in read_document_shards(tmp_path, "train", "web")] == ["1"]


def test_shards_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("fromnoise.data.shards.SHARD_BYTES", 1000)
    monkeypatch.setattr("fromnoise.data.shards.GROUP_BYTES", 300)
    documents = [Document(f"{i} " + "x" * 99, "a", str(i)) for i in range(50)]
    write_documents(tmp_path / "train", documents)
    assert len(list((tmp_path / "train").iterdir())) > 3
    assert list(read_document_shards(tmp_path, "train")) == documents


def test_what_was_encoded_is_counted_in_bytes():
    """Of text in Cyrillic half was never shown as done, and the time left was twice what it took."""
    done = []
    tokenizer = SimpleNamespace(encode_batch=lambda texts: [[1] for _ in texts])
    documents = [Document("Тихий Дон. " * 20, "a", "1"), Document("half a character: \ud800", "a", "2")]
    assert list(encoded(tokenizer, documents, done.append)) == [[[1], [1]]]
    assert sum(done) == sum(len(document.text.encode("utf-8", "replace")) for document in documents) > sum(len(document.text) for document in documents) + 100


@pytest.mark.parametrize(("vocab_size", "dtype"), [(512, "<u2"), (65_536, "<u2"), (65_600, "<u4")])
def test_tokens_round_trip(tmp_path, vocab_size, dtype):
    assert token_dtype(vocab_size) == np.dtype(dtype)
    counts = write_tokens(tmp_path, "train", "a", [[[5, 6], []], [[vocab_size - 1]]], token_dtype(vocab_size), 1)
    write_token_index(tmp_path, {"train": {"a": counts}}, token_dtype(vocab_size))
    shards = TokenShards(tmp_path, "train")
    assert shards.sources == ["a"] and shards.num_tokens == 6 and counts == {"documents": 3, "tokens": 6}
    assert shards.tokens("a").tolist() == [5, 6, 1, 1, vocab_size - 1, 1] and shards.tokens("a").dtype == np.dtype(dtype)
    assert shards.offsets("a").tolist() == [0, 3, 4, 6] and shards.offsets("a").dtype == np.int64
    assert TokenShards(tmp_path, "validation").sources == []


def test_missing_and_foreign_indexes(tmp_path):
    with pytest.raises(UserError, match="tokenizer stage"):
        TokenShards(tmp_path, "train")
    (tmp_path / "index.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        TokenShards(tmp_path, "train")


@pytest.mark.parametrize("text", ["", "short", "a" * 950, "word " * 300, "para one\n\n" * 100, "line\n" * 200, "One. " * 200])
def test_split_text_joins_to_the_whole(text):
    pieces = list(split_text(text, 100))
    assert "".join(pieces) == text and all(len(piece) <= 100 for piece in pieces) and all(len(piece) >= 50 for piece in pieces[:-1])


def test_few_documents_are_cut_into_chapters_and_many_are_not():
    book = "\n\n".join(f"Paragraph {i}, as long as a paragraph is in a book." for i in range(5_000))
    pieces = list(chapters_if_few([Document(book, "s", "book.txt")]))
    assert 90 <= len(pieces) <= 120 and "".join(piece.text for piece in pieces) == book
    assert pieces[3].doc_id == "book.txt#4"
    many = [Document(book, "s", str(i)) for i in range(50)]
    assert list(chapters_if_few(many)) == many
    exempt = Document(book, "s", "x", exempt=True)
    assert list(split_document(exempt, 100)) == [exempt]
