"""Every format is read; everything that cannot be read is counted with file and line, and reading goes on."""

import csv
import gzip
import json
import os
import random
import struct
import zlib
from datetime import datetime, time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from fromnoise.data import files, readers
from fromnoise.data.files import BadRecord
from fromnoise.data.readers import parse_date, read_documents, read_records
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import SourceSection

TEXT = "The ferry left at noon.\n\nNobody waved — it was raining, as ever."


def read(path, max_chars=1_000_000, **settings):
    bad: list[BadRecord] = []
    documents = list(read_documents(SourceSection(name="s", path=str(path), **settings), bad.append, max_chars))
    return documents, bad


def texts(path, **settings):
    documents, bad = read(path, **settings)
    assert bad == []
    return [document.text for document in documents]


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, lambda b: zstandard.ZstdCompressor().compress(b)], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize("kind", ["txt", "md", "rst", "html", "jsonl", "json", "csv", "parquet"])
def test_each_format_plain_and_packed(tmp_path, kind, pack):
    whole = tmp_path / f"whole.{kind}"
    if kind in ("txt", "md", "rst"):
        whole.write_text(TEXT)
    elif kind == "html":
        whole.write_text("<html><body><p>The ferry left at noon.</p><p>Nobody waved — it was raining, as ever.</p></body></html>")
    elif kind == "jsonl":
        whole.write_text(json.dumps({"text": TEXT}) + "\n")
    elif kind == "json":
        whole.write_text(json.dumps([{"text": TEXT}]))
    elif kind == "csv":
        with open(whole, "w", newline="") as file:
            csv.writer(file).writerows([["id", "text"], ["1", TEXT]])
    else:
        pq.write_table(pa.table({"id": [1], "text": [TEXT]}), whole)
    suffix = {b"\x1f\x8b": ".gz", b"\x28\xb5": ".zst"}.get(pack(b"x")[:2], "")
    packed = tmp_path / f"packed.{kind}{suffix}"
    packed.write_bytes(pack(whole.read_bytes()))
    assert texts(packed) == [TEXT]


def test_folder_file_and_glob_are_sorted_and_hidden_files_are_left_out(tmp_path):
    for name in ("b.txt", "a/2.md", "a/1.txt", ".git/config.txt", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["b.txt", "c.jsonl", "a/1.txt", "a/2.md"]
    assert texts(tmp_path / "b.txt") == ["b.txt"]
    assert texts(f"{tmp_path}/**/*.txt") == ["a/1.txt", "b.txt"]
    ids = [document.doc_id for document in read(tmp_path)[0]]
    assert len(set(ids)) == 4 and "a/1.txt" in ids


def reasons(bad):
    return {item.file.rsplit("/", 1)[1]: item.reason for item in bad}


def test_the_folder_of_a_run_beside_the_texts_is_passed_over_and_said(tmp_path):
    for name in ("a.txt", "runs/text/base/note.txt", "runs/text/recipe.toml", "runs/text/run.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for pattern in (tmp_path, f"{tmp_path}/**/*.txt", f"{tmp_path}/*"):
        documents, bad = read(pattern)
        assert [document.text for document in documents] == ["a.txt"]
        assert [(item.file, item.kind) for item in bad] == [(f"{tmp_path}/runs/text", "file")] and "the folder of a run" in bad[0].reason
    assert texts(f"{tmp_path}/runs/*/base/*.txt") == ["runs/text/base/note.txt"]  # named outright
    with pytest.raises(UserError, match=r"runs/text is the folder of a run; name the folder that holds the data"):
        read(tmp_path / "runs/text")


def test_links_are_followed_once_and_what_is_no_file_is_reported(tmp_path, monkeypatch):
    (tmp_path / "elsewhere/sub").mkdir(parents=True)
    (tmp_path / "elsewhere/sub/b.txt").write_text("behind a link")
    folder = tmp_path / "data"
    (folder / "locked").mkdir(parents=True)
    (folder / "a.txt").write_text("here")
    for name, target in {"linked": "../elsewhere", "loop": "..", "again": ".", "gone.txt": "nowhere", "round.txt": "round.txt"}.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.txt")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    documents, bad = read(folder)
    assert [document.text for document in documents] == ["here", "behind a link"] and documents[1].doc_id == "linked/sub/b.txt"
    assert reasons(bad) == {
        "again": "a folder read already under another name", "data": "a folder read already under another name",
        "elsewhere": "a folder read already under another name", "locked": "a folder that cannot be read: Permission denied",
        "gone.txt": "cannot be read: No such file or directory", "round.txt": "cannot be read: Too many levels of symbolic links",
        "pipe.txt": "a pipe, socket or device, not a file",
    }  # fmt: skip
    documents, bad = read(f"{folder}/**/*.txt")
    assert [document.doc_id for document in documents] == ["a.txt", "linked/sub/b.txt"] and len(reasons(bad)) == 7
    with pytest.raises(UserError, match=r"pipe\.txt is a pipe"):
        read(folder / "pipe.txt")


def test_names_and_keys_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / f"{name}.txt").write_text("A text.")
    (tmp_path / f"{name}.jsonl").write_text('{"\\ud800": 1}\n')
    documents, bad = read(tmp_path)
    assert [document.doc_id for document in documents] == ["caf\\udce9.txt"]
    assert [(item.file, item.excerpt) for item in bad] == [(f"{tmp_path}/caf\\udce9.jsonl", "fields: \\ud800")]


def test_separators_split_a_text_file(tmp_path):
    (tmp_path / "stories.txt").write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n\n<|endoftext|>\nThree.")
    documents, _ = read(tmp_path / "stories.txt")
    assert [document.text.strip() for document in documents] == ["One.", "Two.", "Three."]
    assert len({document.doc_id for document in documents}) == 3


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_separator_stands_alone_on_its_line_and_is_text_elsewhere(tmp_path, line_end):
    about = ["GPT-2 ends a document with <|endoftext|> and goes on.", "<|endoftext|> is one token.", "It is spelled <|endoftext|>", "> <|endoftext|>"]
    lines = [*about, " <|endoftext|>\t", "Two.", "<|endoftext|>"]
    (tmp_path / "page.md").write_bytes(line_end.join(lines).encode())
    documents, bad = read(tmp_path / "page.md")
    assert bad == [] and [document.text.strip() for document in documents] == [line_end.join(about), "Two."]
    assert [document.doc_id for document in documents] == ["page.md#1", "page.md#2"]


def test_a_separator_is_known_wherever_a_block_or_a_piece_ends(tmp_path, monkeypatch):
    text = "word " * 30 + "<|endoftext|>\n" + "one\n<|endoftext|>\n" + "a " * 40 + "\n<|endoftext|>\n" + "three <|endoftext|>\n<|endoftext|>"
    (tmp_path / "t.txt").write_text(text)
    expected = ["word " * 30 + "<|endoftext|>\none", "a " * 40, "three <|endoftext|>"]
    for size in range(1, 60):
        monkeypatch.setattr(readers, "text_blocks", lambda file, on_bad, size=size: (text[at : at + size] for at in range(0, len(text), size)))
        for max_chars in (25, 50, 1000):
            joined: dict[str, str] = {}
            for document in read(tmp_path / "t.txt", max_chars=max_chars)[0]:
                number = document.doc_id.split("#")[1] if max_chars == 1000 else None
                joined[number] = joined.get(number, "") + document.text
            if max_chars == 1000:
                assert [one.strip() for one in joined.values()] == [one.strip() for one in expected]
            else:
                assert joined[None].replace("\n", "") == "".join(expected).replace("\n", "")


def test_long_text_comes_in_pieces_that_join_to_the_whole(tmp_path):
    text = "\n\n".join(f"Paragraph {i} of a long book, which goes on and on." for i in range(500))
    (tmp_path / "book.txt").write_text(text)
    documents, _ = read(tmp_path / "book.txt", max_chars=1000)
    assert "".join(document.text for document in documents) == text
    assert all(len(document.text) <= 1000 and document.text.endswith("\n\n") for document in documents[:-1])
    assert documents[1].doc_id == "book.txt#2"


def test_one_line_of_many_megabytes_streams(tmp_path):
    (tmp_path / "line.txt").write_text("word " * 2_000_000)
    documents, bad = read(tmp_path / "line.txt")
    assert bad == [] and max(len(d.text) for d in documents) <= 1_000_000 and sum(len(d.text) for d in documents) == 10_000_000
    (tmp_path / "line.jsonl").write_text(json.dumps({"text": "word " * 1_000_000}) + "\n" + json.dumps({"text": "short"}))
    assert [len(text) for text in texts(tmp_path / "line.jsonl")] == [5_000_000, 5]
    with open(tmp_path / "field.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], ["word " * 500_000]])
    assert [len(text) for text in texts(tmp_path / "field.csv")] == [2_500_000]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_of_a_hundred_megabytes_is_kept_and_reported_with_file_and_line(tmp_path, monkeypatch, kind, end):
    """Of two blocks here; the limit is lowered from 16 Mi to 1 Mi."""
    monkeypatch.setattr(files, "LONG_LINE_CHARS", 1 << 20)
    records = ('{{"text": "First."}}', '{{"text": "{}"}}', '{{"text": "Last."}}')
    lines = {"txt": ("First.", "{}", "Last."), "jsonl": records, "csv": ("text", "{}", "Last.")}[kind]
    path, long = tmp_path / f"line.{kind}", "word " * 400_000
    path.write_text("\n".join(line.format(long) for line in lines) + end)
    documents, bad = read(path)
    assert "".join(document.text for document in documents).count(long) == 1 and documents[-1].text.strip().endswith("Last.")
    assert [(item.file, item.line, item.kind) for item in bad] == [(str(path), 2, "repaired")]
    assert bad[0].reason == "an unusually long line, of more than 1,048,576 characters" and bad[0].excerpt.startswith("2,000,0")
    monkeypatch.setattr(files, "MAX_LINE_CHARS", 1 << 20)
    path.write_text("\n".join(line.format(long) for line in lines) + end)
    documents, bad = read(path)
    kept = kind == "txt"  # in pieces, which need not be held whole
    assert [(item.line, item.kind) for item in bad] == [(2, "repaired" if kept else "record")]
    assert any("word" in document.text for document in documents) is kept and documents[-1].text.strip().endswith("Last.")


def test_bad_input_is_reported_with_file_and_line_and_reading_goes_on(tmp_path):
    good = json.dumps({"text": "a good record"})
    (tmp_path / "lines.jsonl").write_text(f'{good}\n{{"text": "cut o\n{good}\n[1, 2]\n{{"other": 1, "more": "x"}}\n{{"text": 5}}\n\n{good}\n')
    documents, bad = read(tmp_path / "lines.jsonl", text_field="text")
    assert len(documents) == 3
    assert [(item.line, item.kind) for item in bad] == [(2, "record"), (4, "record"), (5, "record"), (6, "record")]
    assert all(item.file.endswith("lines.jsonl") for item in bad) and "malformed JSON" in bad[0].reason and "other" in bad[2].excerpt


def test_empty_binary_and_unknown_files(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.md").write_text(" \n\n")
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\0\0\0" * 50)
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "more.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "good.txt").write_text("Fine.")
    documents, bad = read(tmp_path)
    assert [document.text for document in documents] == ["Fine."]
    reasons = {item.file.rsplit("/", 1)[1]: item.reason for item in bad}
    assert reasons == {
        "empty.txt": "empty file", "blank.md": "empty file", "none.jsonl": "empty file",
        "binary.txt": "binary file", "image.png": "unknown extension .png",
        "more.tar.gz": "unknown extension .tar.gz",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_truncated_and_damaged_archives_keep_what_came_before(tmp_path, suffix):
    words = random.Random("archive")
    lines = "".join(json.dumps({"text": f"record {i} {words.random()}"}) + "\n" for i in range(20_000)).encode()
    packed = gzip.compress(lines) if suffix == "gz" else zstandard.ZstdCompressor().compress(lines)
    (tmp_path / f"cut.jsonl.{suffix}").write_bytes(packed[: len(packed) // 2])
    documents, bad = read(tmp_path / f"cut.jsonl.{suffix}")
    assert 1000 < len(documents) < 20_000
    assert [item.reason for item in bad if item.kind == "file"] == [f"truncated {suffix} archive"]
    (tmp_path / f"damaged.jsonl.{suffix}").write_bytes(b"this is no archive at all, whatever its name says")
    _, bad = read(tmp_path / f"damaged.jsonl.{suffix}")
    assert [item.reason for item in bad] == [f"damaged {suffix} archive"]


def test_archives_of_several_members(tmp_path):
    (tmp_path / "two.txt.gz").write_bytes(gzip.compress(b"first ") + gzip.compress(b"second"))
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "two.txt.zst").write_bytes(pack(b"first ") + pack(b"second"))
    assert texts(tmp_path / "two.txt.gz") == texts(tmp_path / "two.txt.zst") == ["first second"]


def test_encodings(tmp_path):
    word = "Zoë’s café, 12 € – naïve"
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbf" + word.encode())
    (tmp_path / "utf16.txt").write_bytes(word.encode("utf-16"))
    assert texts(tmp_path / "bom.txt") == texts(tmp_path / "utf16.txt") == [word]

    (tmp_path / "windows.txt").write_bytes(("A plain line.\n" + word).encode("cp1252"))
    documents, bad = read(tmp_path / "windows.txt")
    assert documents[0].text == "A plain line.\n" + word
    assert [(item.line, item.kind) for item in bad] == [(2, "repaired")] and "Windows-1252" in bad[0].reason

    french = "LIBERTÉ\xa0: la voilà, née d’un été.\n" + "À l’été, où l’on dîna près du café, Zoë arriva.\n" * 9  # "É\\xa0" is UTF-8 by chance
    (tmp_path / "french.txt").write_bytes(french.encode("cp1252"))
    assert [document.text for document in read(tmp_path / "french.txt")[0]] == [french]

    (tmp_path / "damaged.txt").write_bytes("Zoë sat here.\n".encode() + b"A lost \xe2\x80 quote mark.\n")
    documents, bad = read(tmp_path / "damaged.txt")
    assert documents[0].text == "Zoë sat here.\nA lost \ufffd quote mark.\n"
    assert [(item.line, item.kind) for item in bad] == [(2, "repaired")] and "U+FFFD" in bad[0].reason

    (tmp_path / "garbage.txt").write_bytes(b"Before.\n" + bytes(range(128, 256)) + b"\nAfter.")
    documents, bad = read(tmp_path / "garbage.txt")
    assert documents[0].text == "Before.\n\nAfter." and [(item.line, item.kind) for item in bad] == [(2, "line")]


def test_damage_inside_utf_16_is_reported_with_its_line(tmp_path):
    """It became U+FFFD, and half a character at the end nothing, without an entry."""
    whole = "Zoë sat here.\n" * 40_000  # more than one chunk, with characters of one unit and, below, of two
    (tmp_path / "a.txt").write_bytes((whole + "🙂 a \U0001f642 b \ufffd\n").encode("utf-16"))
    assert texts(tmp_path / "a.txt") == [whole + "🙂 a 🙂 b \ufffd\n"]
    damaged = "\ufeff" + whole + "a \ud83d b\n\ude42\nc"
    (tmp_path / "a.txt").write_bytes(damaged.encode("utf-16-le", "surrogatepass") + b"d")
    documents, bad = read(tmp_path / "a.txt")
    assert documents[0].text == whole + "a \ufffd b\n\ufffd\nc\ufffd"
    assert [(item.line, item.kind) for item in bad] == [(40_001, "repaired"), (40_002, "repaired"), (40_003, "repaired")] and "UTF-16" in bad[0].reason


def test_half_a_character_in_json_is_reported(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Zoë"}\n{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude42"}\n')
    documents, bad = read(tmp_path / "a.jsonl")
    assert [document.text for document in documents] == ["Zoë", "cut \ufffd", "whole 🙂"]
    assert [(item.line, item.reason, item.kind) for item in bad] == [(2, "half a character, replaced by U+FFFD", "repaired")]


def test_undecodable_line_late_in_a_large_file_has_its_number(tmp_path):
    lines = [b"line %d of a file that is larger than a block" % i for i in range(1, 60_001)]
    lines[51_233] += b" caf\xe9"
    (tmp_path / "large.txt").write_bytes(b"\n".join(lines))
    _, bad = read(tmp_path / "large.txt")
    assert [item.line for item in bad] == [51_234]


def test_characters_are_not_cut_at_block_ends(tmp_path):
    text = "日本語テキスト€" * 200_000  # one line, 4.8 MB
    (tmp_path / "wide.txt").write_text(text, encoding="utf-8")
    documents, bad = read(tmp_path / "wide.txt")
    assert bad == [] and "".join(document.text for document in documents) == text


def test_a_json_document_with_a_list_of_records_beside_its_text_keeps_the_text(tmp_path):
    """A paper and its authors is one document; {"data": [...]} is a list of them."""
    authors = [{"name": "Jane", "bio": "Jane lives at the sea."}]
    (tmp_path / "paper.json").write_text(json.dumps({"title": "Salt", "text": TEXT, "authors": authors}))
    assert texts(tmp_path / "paper.json") == [TEXT]
    (tmp_path / "named.json").write_text(json.dumps({"abstract": TEXT, "authors": authors}))
    assert [document.text for document in read(tmp_path / "named.json", text_field="abstract")[0]] == [TEXT]
    (tmp_path / "list.json").write_text(json.dumps({"version": "1.1", "data": [{"text": TEXT}, {"text": "short"}]}))
    assert texts(tmp_path / "list.json") == [TEXT, "short"]


def test_documents_behind_one_that_came_in_pieces_have_ids_of_their_own(tmp_path):
    """The first was cut before the file was known to hold several."""
    (tmp_path / "all.txt").write_text("\n\n".join(["word " * 30] * 9000) + "\n<|endoftext|>\nsecond text\n<|endoftext|>\nthird text")
    documents, _ = read(tmp_path / "all.txt", max_chars=400_000)
    assert [document.doc_id for document in documents] == [f"all.txt#{number}" for number in range(1, 7)]


def test_line_ends_inside_json_strings_do_not_cut_records(tmp_path):
    text = "one\u2028two\u0085three"
    (tmp_path / "odd.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert texts(tmp_path / "odd.jsonl") == [text]


def test_wrong_columns_name_those_there_are(tmp_path):
    (tmp_path / "t.csv").write_text("instruction,response\nSay hi,Hi\n")
    with pytest.raises(UserError, match=r"t\.csv.*columns are: instruction, response.*text_field"):
        read(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"no column 'body'.*instruction, response"):
        read(tmp_path / "t.csv", text_field="body")
    assert texts(tmp_path / "t.csv", text_field="response") == ["Hi"]
    (tmp_path / "t.jsonl").write_text('{"instruction": "Say hi", "response": "Hi"}\n')
    assert [(item.reason, item.excerpt) for item in read(tmp_path / "t.jsonl")[1]] == [
        ("no field that looks like the text (name it with text_field in [[data.sources]])", "fields: instruction, response")
    ]
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="columns are: a, b"):
        read(tmp_path / "t.parquet")


def test_csv_rows_of_the_wrong_width(tmp_path):
    (tmp_path / "t.csv").write_text('text,n\n"two\nlines",1\nshort\n"fine, too",2\na,b,c\n')
    documents, bad = read(tmp_path / "t.csv")
    assert [document.text for document in documents] == ["two\nlines", "fine, too"]
    assert [item.line for item in bad] == [4, 6] and "1 values in a row of 2 columns" in bad[0].reason


def test_a_csv_of_texts_without_a_header_says_what_became_of_its_first_line(tmp_path):
    (tmp_path / "t.csv").write_text("The ferry left at noon.\nNobody waved.\n")
    documents, bad = read(tmp_path / "t.csv")
    assert [document.text for document in documents] == ["Nobody waved."]
    assert [(item.kind, item.excerpt) for item in bad] == [("repaired", "The ferry left at noon.")] and "name of the only column" in bad[0].reason
    (tmp_path / "t.csv").write_text("saying\nNobody waved.\n")
    assert texts(tmp_path / "t.csv") == ["Nobody waved."]


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_a_csv_whose_first_line_names_its_separator(tmp_path, mark):
    """As spreadsheets write it; it was taken for the header."""
    (tmp_path / "t.csv").write_bytes(f'sep={mark}\r\ntext{mark}n\r\n"one, two; three|",7\r\n'.replace(",7", f"{mark}7").encode())
    assert list(read_records(str(tmp_path / "t.csv"), pytest.fail)) == [({"text": "one, two; three|", "n": "7"}, str(tmp_path / "t.csv"), 3)]


def test_tabs_stand_between_the_columns_of_a_tsv(tmp_path):
    (tmp_path / "t.tsv").write_text("text\tnotes, if any\nOne, two.\tx\n")
    assert texts(tmp_path / "t.tsv", text_field="text") == ["One, two."]


def test_a_csv_quote_that_is_not_closed_takes_nothing_silently(tmp_path):
    (tmp_path / "t.csv").write_text('\n\ntext,n\nfine,1\n"a "quoted" word",2\n"still\nfine",3\n"open,4\n' + "lost,5\n" * 20)
    documents, bad = read(tmp_path / "t.csv")
    assert [(document.text, document.doc_id) for document in documents] == [("fine", "t.csv:4"), ("still\nfine", "t.csv:6")]
    assert [(item.line, item.kind, item.excerpt) for item in bad] == [(5, "record", ""), (8, "file", "lines 8 to 28")]
    assert "malformed csv" in bad[0].reason and bad[1].reason == "a quote that is never closed"
    (tmp_path / "t.csv").write_text('"text,n\nlost,1\n')
    assert [(item.line, item.reason, item.excerpt) for item in read(tmp_path / "t.csv")[1]] == [(1, "a quote that is never closed", "lines 1 to 2")]


def test_csv_of_a_classic_mac_and_columns_of_one_name(tmp_path):
    (tmp_path / "mac.csv").write_bytes(b'text;n\r"one\rtwo";1\rthree;2\r')
    assert texts(tmp_path / "mac.csv") == ["one\ntwo", "three"]
    (tmp_path / "twice.csv").write_text("text,n,text,,\nlost,1,kept,,\n")
    documents, bad = read(tmp_path / "twice.csv")
    assert documents == [] and [(item.line, item.kind, item.reason) for item in bad] == [(1, "file", "two columns are called 'text'; rename one")]
    pq.write_table(pa.Table.from_arrays([pa.array(["lost"]), pa.array(["kept"])], names=["text", "text"]), tmp_path / "twice.parquet")
    documents, bad = read(tmp_path / "twice.parquet")
    assert documents == [] and [(item.line, item.kind, item.reason) for item in bad] == [(None, "file", "two columns are called 'text'; rename one")]


def test_the_text_is_the_known_field_that_is_not_empty(tmp_path):
    records = {"text": " ", "content": "one"}, {"text": "two", "content": ""}, {"text": "three", "content": "no"}, {"text": "", "content": ""}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    documents, bad = read(tmp_path / "a.jsonl")
    assert [one.text for one in documents] == ["one", "two", "three"] and [(item.line, item.reason) for item in bad] == [(4, "empty text")]


def test_integers_of_more_digits_than_python_converts(tmp_path):
    digits = "1" * 5000
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one", "n": {digits}}}\n')
    (tmp_path / "b.json").write_text(f'[{{"text": "two", "n": {digits}}}, {{"text": "three"}}]')
    (tmp_path / "c.json").write_text(f'{{"text": "four", "n": {digits}}}\n{{"text": "five"}}')
    assert texts(tmp_path) == ["one", "two", "three", "four", "five"]


def test_parquet_values_that_python_cannot_hold(tmp_path):
    invalid = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(struct.pack("<3i", 0, 3, 6)), pa.py_buffer(b"\xff\xfe\xfdabc")])
    far = pa.array([10**14, 0], pa.timestamp("s"))
    columns = {"text": invalid, "when": pa.array([10**18 + 1, 1], pa.timestamp("ns")), "far": far}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    documents, bad = read(tmp_path / "t.parquet", date_field="when")  # "far" is not read at all
    assert [(document.text, document.date) for document in documents] == [("abc", "1970-01-01")]
    assert [(item.line, item.kind) for item in bad] == [(1, "repaired"), (1, "record")] and "column 'text' that cannot be read" in bad[0].reason
    bad.clear()
    assert [record["text"] for record, _, _ in read_records(str(tmp_path / "t.parquet"), bad.append)] == [None, "abc"]
    assert [(item.line, item.reason.split("'")[1]) for item in bad] == [(1, "text"), (1, "far")]


def test_a_text_that_is_no_string_is_said(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": null, "n": 1}\n{"Text": ["a"], "n": 1}\n{"text": "fine", "n": 1}\n')
    documents, bad = read(tmp_path / "t.jsonl")
    assert [document.text for document in documents] == ["fine"]
    assert [(item.line, item.reason) for item in bad] == [(1, "the text is null, not a string"), (2, "the text is a list, not a string")]


def test_damaged_parquet(tmp_path):
    pq.write_table(pa.table({"text": ["x" * 100] * 50}), tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "good.parquet").unlink()
    (tmp_path / "bad.parquet").write_bytes(data[: len(data) // 2])
    documents, bad = read(tmp_path)
    assert documents == [] and "damaged parquet" in bad[0].reason


def test_missing_paths_are_the_users_to_fix(tmp_path):
    with pytest.raises(UserError, match=r"source 's': there is no file or folder .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no file matches"):
        read(f"{tmp_path}/*.txt")
    (tmp_path / "x.docx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"x\.docx.*convert it"):
        read(tmp_path / "x.docx")
    with pytest.raises(UserError, match="holds none of"):
        read(tmp_path)


def test_a_folder_in_which_nothing_can_be_read_says_why(tmp_path, monkeypatch):
    """It said that there was no text in it."""
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=r"holds none of txt.*Most often: unknown extension \.pdf \(first at .*scan\.pdf"):
        read(tmp_path)
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"holds none of txt.*a folder that cannot be read: Permission denied"):
        read(tmp_path)


def denied(path):
    raise PermissionError(13, "Permission denied", str(path))


def test_nested_json_reads_as_headed_text(tmp_path):
    country = {
        "Introduction": {"Background": {"text": "<p>Long&nbsp;ago.</p> <p>And now.</p>"}},
        "Geography": {"Area": {"total": {"text": "5 sq km"}, "note": "<strong>note:</strong> small"}},
    }
    (tmp_path / "xx.json").write_text(json.dumps(country))
    (text,) = texts(tmp_path / "xx.json")
    assert text == "# Introduction\n\n## Background\n\nLong ago.\nAnd now.\n\n# Geography\n\n## Area\n\ntotal: 5 sq km\nnote: small"


def test_json_wrappers_and_json_lines_under_another_name(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"version": "1", "data": [{"text": "one"}, {"text": "two"}]}))
    (tmp_path / "b.json").write_text('{"text": "three"}\n{"text": "four"}\n')
    (tmp_path / "c.json").write_text('["five", "six"]')
    (tmp_path / "d.json").write_text('{"text": "cut')
    documents, bad = read(tmp_path)
    assert [document.text for document in documents] == ["one", "two", "three", "four", "five", "six"]
    assert len(bad) == 1 and bad[0].file.endswith("d.json") and "malformed JSON" in bad[0].reason


@pytest.mark.parametrize("begin, indent", [("", None), ("\ufeff\n ", 1)])
def test_a_json_list_under_the_name_of_lines_is_read(tmp_path, begin, indent):
    """Its records were lost as one "JSON list", or as malformed lines."""
    (tmp_path / "l.jsonl").write_text(begin + json.dumps([{"text": "one"}, {"text": "two"}, 3], indent=indent))
    documents, bad = read(tmp_path / "l.jsonl")
    assert [(document.text, document.doc_id) for document in documents] == [("one", "l.jsonl:1"), ("two", "l.jsonl:2")]
    assert [(item.line, item.reason) for item in bad] == [(3, "a JSON int, not an object")]
    for first in ("[3]", "[oops"):
        (tmp_path / "l.jsonl").write_text(first + '\n{"text": "one"}\n')
        documents, bad = read(tmp_path / "l.jsonl")
        assert [document.text for document in documents] == ["one"] and [item.line for item in bad] == [1]


def test_json_that_parses_but_is_too_deep_to_be_walked_is_reported(tmp_path, monkeypatch):
    """Pythons from 3.12 on parse deeper than they call; before, a few depths are such."""
    value = "word"
    for _ in range(5_000):
        value = {"a": value}
    monkeypatch.setattr(readers, "json_value", lambda text: value)
    (tmp_path / "d.json").write_text("{}")
    documents, bad = read(tmp_path / "d.json")
    assert documents == [] and [(item.line, item.reason) for item in bad] == [(1, "malformed JSON: nested too deep")]


def test_html_of_a_browser_kind(tmp_path):
    page = (
        "<html><head><title>T</title><style>x{}</style></head><body><nav>Home About</nav><h1>A  <b>page</b></h1><p>one<br>two &amp; <i>three</i></p>"
        "<ul><li>a<li>b</ul><pre>def f():\n    return 1\n</pre><script>bad()</script><table><tr><td>1</td><td>2</td></tr></table>" + "<div>" * 2000 + "deep"
    )
    (tmp_path / "p.html").write_text(page)
    (text,) = texts(tmp_path / "p.html")
    assert text == "A page\n\none\ntwo & three\n\n- a\n- b\n\ndef f():\n    return 1\n\n1 2\n\ndeep"
    (tmp_path / "l.html").write_bytes('<meta charset="iso-8859-1"><p>café'.encode("latin-1"))
    assert texts(tmp_path / "l.html") == ["café"]


@pytest.mark.parametrize(
    ("charset", "written", "text"),
    [("iso-8859-1", "cp1252", "I don’t know, 1914–1918, “yes”"), ("US-ASCII", "cp1252", "“yes”"), ("x-cp1251", "cp1251", "Да — нет"),
     ("ISO-8859-9", "cp1254", "“Şey” – ağ"), ("gb2312", "gb18030", "朱镕基 said 㐀"), ("gbk", "gb18030", "€ 㐀"), ("big5", "big5hkscs", "碁 香港 ①"),
     ("Shift_JIS", "cp932", "①髙橋"), ("x-sjis", "cp932", "㈱"), ("windows-31j", "cp932", "㈱"), ("EUC-JP", "euc_jis_2004", "①㈱"),
     ("euc-kr", "cp949", "똠방각하"), ("ks_c_5601-1987", "cp949", "펲시"), ("windows-949", "cp949", "똠"), ("tis-620", "cp874", "“ไทย”"),
     ("ISO-8859-8-I", "iso8859-8", "שלום"), ("iso-8859-2", "iso8859-2", "zażółć")],
)  # fmt: skip
def test_charsets_mean_what_browsers_take_them_for(tmp_path, charset, written, text):
    (tmp_path / "p.html").write_bytes(f'<meta charset="{charset}"><p>{text}'.encode(written))
    documents, bad = read(tmp_path / "p.html")
    assert [document.text for document in documents] == [text] and bad == []


@pytest.mark.parametrize("head, written", [
    ('<script charset="windows-1251" src="x.js"></script><link charset=koi8-r><meta charset="utf-8">', "utf-8"),
    ('<META HTTP-EQUIV="Content-Type" CONTENT="text/html; CHARSET=Shift_JIS">', "cp932"), ("<?xml version='1.0' encoding='EUC-JP'?><html>", "euc_jp"),
    ('<?xml version="1.0" encoding="utf-8"?><html><meta charset="euc-jp">', "euc_jp"),
])  # fmt: skip
def test_the_charset_of_a_page_is_its_own_not_its_scripts(tmp_path, head, written):
    """Once the first word "charset" in small letters decided: a script's made a page in UTF-8 nonsense, without a word."""
    (tmp_path / "p.xhtml").write_bytes(f"{head}<p>今日は天気がとても良い".encode(written))
    assert texts(tmp_path / "p.xhtml") == ["今日は天気がとても良い"]


@pytest.mark.parametrize("declared", ["", '<meta charset="iso-8859-1">', '<meta charset="gb2312">'])
def test_a_page_that_is_cut_off_or_too_large_is_reported_whatever_it_declares(tmp_path, monkeypatch, declared):
    words = random.Random("page")
    written = "gb2312" if "gb" in declared else "utf-8"
    page = (declared + "".join(f"<p>Paragraph {i}: 朱{words.random()}" if "gb" in declared else f"<p>{words.random()}" for i in range(20_000))).encode(written)
    packed = gzip.compress(page)
    (tmp_path / "p.html.gz").write_bytes(packed[: len(packed) // 2])
    documents, bad = read(tmp_path / "p.html.gz")
    assert [(item.reason, item.kind) for item in bad] == [("truncated gz archive", "file")]
    assert 100_000 < len(documents[0].text) < 500_000 and ("朱" in documents[0].text) == ("gb" in declared)
    monkeypatch.setattr(readers, "MAX_WHOLE_BYTES", 100_000)
    (tmp_path / "p.html.gz").write_bytes(packed)
    documents, bad = read(tmp_path / "p.html.gz")
    assert documents == [] and len(bad) == 1 and "a html file of more than" in bad[0].reason


def test_an_archive_cut_off_inside_a_character_is_still_in_its_charset(tmp_path):
    page = '<meta charset="euc-kr"><p>' + "가나다" * 50
    stream = zlib.compressobj(wbits=31)
    packed = stream.compress(page.encode("cp949")[:-1]) + stream.flush(zlib.Z_SYNC_FLUSH)
    (tmp_path / "p.html.gz").write_bytes(packed)
    documents, bad = read(tmp_path / "p.html.gz")
    assert documents[0].text == ("가나다" * 50)[:-1] and [item.reason for item in bad] == ["truncated gz archive"]


def test_pages_inside_a_form_are_read_without_its_controls(tmp_path):
    form = '<form action="x"><input value="i"><button>b</button><select><option>o</select><textarea>t</textarea>'
    (tmp_path / "page.html").write_text(f"<body>{form}<h1>News</h1><p>The ferry left.</form>")
    (tmp_path / "nothing.html").write_text(f"<body>{form}<script>x()</script></form>")
    (tmp_path / "empty.html").write_text(" \n")
    documents, bad = read(tmp_path)
    assert [document.text for document in documents] == ["News\n\nThe ferry left."]
    assert [(Path(item.file).name, item.reason) for item in bad] == [("empty.html", "empty file"), ("nothing.html", "no readable text")]


@pytest.mark.parametrize("markup, text", [
    ("10<sup>6</sup> m<sup>2</sup>, the 1<sup>st</sup> of 10<sup>-3</sup>", "10^6 m2, the 1st of 10^-3"), ("in 1990<sup><a href=#n>3</a></sup>", "in 1990^3"),
    ("5<br><sup>2</sup>", "5\n2"), ("H<sub>2</sub>O", "H2O"),
])  # fmt: skip
def test_numbers_raised_to_a_power_stay_what_they_are(tmp_path, markup, text):
    (tmp_path / "p.html").write_text(f"<p>{markup}</p>")
    assert texts(tmp_path / "p.html") == [text]


@pytest.mark.parametrize("charset", ["utf-16", "UTF-16LE", "utf-32", "utf-7", "punycode", "idna", "undefined", "unicode_escape", "base64", "none"])
def test_a_charset_that_cannot_be_true_of_a_page_is_not_believed(tmp_path, charset):
    ascii_page = f'<meta charset="{charset}"><p>A page +AGE- \\x41'
    (tmp_path / "a.html").write_text(ascii_page + " " * (-len(ascii_page) % 4))  # as UTF-16 and UTF-32 it has no half characters
    assert texts(tmp_path / "a.html") == ["A page +AGE- \\x41"]
    page = f'<meta charset="{charset}"><p>Zoë’s café +AGE- \\x41'
    (tmp_path / "p.html").write_text(page, encoding="utf-8")
    assert texts(tmp_path / "p.html") == ["Zoë’s café +AGE- \\x41"]
    (tmp_path / "p.html").write_text(page, encoding="utf-16")  # with its BOM
    assert texts(tmp_path / "p.html") == ["Zoë’s café +AGE- \\x41"]


def test_dates_of_records_and_of_headers(tmp_path):
    (tmp_path / "pep.rst").write_text("PEP: 8\nTitle: Style\nCreated: 05-Jul-2001\n\nText.")
    assert [document.date for document in read(tmp_path / "pep.rst", date_field="Created")[0]] == ["2001-07-05"]
    (tmp_path / "r.jsonl").write_text(json.dumps({"text": "x", "when": "2019-03-04T10:00:00Z"}))
    assert [document.date for document in read(tmp_path / "r.jsonl", date_field="when")[0]] == ["2019-03-04"]


@pytest.mark.parametrize(
    ("value", "date"),
    [("2001", "2001"), (2001, "2001"), ("2001-07", "2001-07"), ("05-Jul-2001, 01-Aug-2013", "2001-07-05"), (994334400, "2001-07-05"),
     (994334400000, "2001-07-05"), ("5 July 2001", "2001-07-05"), ("July 5, 2001", "2001-07-05"), ("Thu, 05 Jul 2001 10:00:00 +0200", "2001-07-05"),
     (20010705, "2001-07-05"), (20010705.0, "2001-07-05"), ("20010705", "2001-07-05"), (20019999, "1970-08-20"), ("20019999", None), (float("nan"), None),
     ("Thu, 05 Jul 99999999999 10:00:00 +0000", None), ("Thu, 05 Jul 2001 10:00:00 +" + "9" * 15, None), ("Thu, 05 Jul 2001 10:00:00 +9999", None),
     ("2001/07/05", "2001-07-05"), ("2001-7-5", "2001-07-05"), ("2001.07.05 10:00", "2001-07-05"), ("2001/02", "2001"), ("1914-1918", "1914"),
     ("994334400", "2001-07-05"), ("1262304000000", "2010-01-01"), ("200107051030", None), ("994334400.5", "2001-07-05"), ("12345", None),
     ("1999\u0660", "1999"), (0, None), (-1, None), (12.0, None), (-315619200, "1960-01-01"), ("\uff11\uff19\uff19\uff19", None),
     (datetime(2001, 7, 5, 10), "2001-07-05"), (time(10, 30), None),
     ("0000-00-00", None), ("2001-99-99", None), ("2001-02-29", None), (10**400, None), ("soon", None), (None, None), (True, None)],
)  # fmt: skip
def test_parse_date(value, date):
    assert parse_date(value) == date


def test_read_records_for_other_readers(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"x": 1}\nbroken\n{"x": 2}\n'))
    (tmp_path / "b.csv").write_text("x,y\n3,4\n")
    (tmp_path / "c.txt").write_text("no records")
    bad = []
    found = [(record["x"], file.rsplit("/", 1)[1], line) for record, file, line in read_records(str(tmp_path), bad.append)]
    assert found == [(1, "a.jsonl.gz", 1), (2, "a.jsonl.gz", 3), ("3", "b.csv", 2)]
    assert [item.line for item in bad] == [2, None]


def test_a_file_is_told_once_what_is_wrong_with_it(tmp_path):
    (tmp_path / "a.jsonl").write_text("broken\n")
    (tmp_path / "b.jsonl").write_text("\n")
    bad = []
    assert list(read_records(str(tmp_path), bad.append)) == []
    assert [(item.file[-7:], item.reason) for item in bad] == [("a.jsonl", "malformed JSON: Expecting value"), ("b.jsonl", "no records in the file")]
    for name, kind in (("c.txt.gz", "text"), ("pairs", "text"), ("p.html", "html")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=f"{name}: by its name this is {kind}, and records are read from jsonl, json"):
            list(read_records(str(tmp_path / name), bad.append))
