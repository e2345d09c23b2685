"""prepare and tokenizer from end to end on small folders, good and bad."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fromnoise.data.dedup import signatures
from fromnoise.data.document import Document
from fromnoise.data.shards import TokenShards, read_document_shards
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import Recipe
from fromnoise.run.seeds import seed_from
from fromnoise.stages import prepare, tokenizer

NOUNS = ["miller", "ferry", "lamp", "market", "river", "letter", "bridge", "orchard", "clock", "baker", "harbour", "winter", "garden", "wheel", "coat", "song"]
VERBS = ["sold", "carried", "broke", "mended", "found", "lost", "painted", "counted", "followed", "hid", "opened", "kept", "burned", "forgot"]
PLACES = ["by the quay", "in the attic", "before dawn", "at the mill", "on the hill", "near the school", "after the fair", "under the stairs"]


class Context:
    """The part of StageContext that these stages use."""

    def __init__(self, root, verb, **settings):
        self.recipe = Recipe.model_validate(settings)
        self.root, self.folder = Path(root), Path(root) / verb
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seed = seed_from(self.recipe.seed, verb)
        self.process = SimpleNamespace(is_main=True)
        self.said, self.summary = [], None

    def path(self, name):
        return self.root / name

    parent = path

    def info(self, text):
        self.said.append(text)

    @contextmanager
    def progress(self, total, unit="step", start=0):
        yield SimpleNamespace(advance=lambda n=1, **shown: None)

    def finish(self, summary):
        self.summary = summary


def story(seed, sentences=12):
    rng = random.Random(f"story {seed}")
    pick = rng.choice
    return " ".join(
        f"The {pick(NOUNS)} that {pick(NOUNS)} {pick(VERBS)} {pick(PLACES)} was {pick(VERBS)} {pick(PLACES)} by the {pick(NOUNS)}." for _ in range(sentences)
    )


def write_stories(folder, count=80):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:03d}.txt").write_text(story(i))
    return folder


def run(root, **settings):
    ctx = Context(root, "prepare", **settings)
    prepare.run(ctx)
    ledger = json.loads((ctx.folder / "ledger.json").read_text())
    return ctx, {source["name"]: source for source in ledger["sources"]}


def digest(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def documents(ctx, split, source=None):
    return list(read_document_shards(ctx.folder, split, source))


def balanced(entry):
    """What came in is what stayed and what left."""
    left = sum(what["documents"] for what in entry["removed"].values())
    return entry["documents_in"] == entry["documents_kept"] + left


def test_a_date_field_that_no_document_has_is_named(tmp_path):
    source = {"name": "s", "path": str(tmp_path / "s.jsonl"), "date_field": "date"}
    for key, told in (("date", False), ("Date", True)):
        (tmp_path / "s.jsonl").write_text("".join(json.dumps({"text": story(i), key: "2001-07-05"}) + "\n" for i in range(5)))
        ctx, ledger = run(tmp_path / key, data={"sources": [source]})
        assert any("none of its documents has a date in 'date'" in line for line in ctx.said) is told
        assert ledger["s"]["dates"]["documents"] == (0 if told else 5)


def test_a_folder_of_stories(tmp_path):
    folder = write_stories(tmp_path / "stories")
    (folder / "copy.txt").write_text(story(3).upper() + "\n")
    (folder / "near.txt").write_text(story(5).replace("miller", "brewer", 1) + " The end, says c.d@example.org.")  # goes, and is not counted as scrubbed
    (folder / "short.txt").write_text("Too short.")
    (folder / "spam.txt").write_text("Buy the best lamps in town today\n" * 30)
    (folder / "contact.txt").write_text(story(99) + " Write to a.b@example.org or call +44 20 7946 0958 before 2001-07-05.")
    ctx, ledger = run(tmp_path / "run", data={"path": str(folder)}, prepare={"validation_frac": 0.1})
    entry = ledger["stories"]
    assert balanced(entry) and entry["documents_in"] == 85 and entry["documents_kept"] == 81
    assert {reason: what["documents"] for reason, what in entry["removed"].items()} == {
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "repeated_lines": 1,
        "too_short": 1,
    }
    assert entry["scrubbed"] == {"emails": 1, "phones": 1} and entry["licence"] == "private" and not entry["simulated"]
    train, validation = documents(ctx, "train"), documents(ctx, "validation")
    assert len(validation) == entry["validation_documents"] == 8 and len(train) == 73
    assert not {document.text for document in train} & {document.text for document in validation}
    assert any("[email] or call [phone] before 2001-07-05." in document.text for document in train + validation)
    kept_bytes = sum(len(document.text.encode()) for document in train + validation)
    assert kept_bytes == entry["bytes_kept"] == ctx.summary["bytes"]
    removed = [row for path in (ctx.folder / "removed").iterdir() for row in pq.read_table(path).to_pylist()]
    assert {(row["reason"], row["doc_id"], row["duplicate_of"]) for row in removed} == {
        ("exact_duplicate", "copy.txt", "stories/003.txt"), ("near_duplicate", "near.txt", "stories/005.txt"),
        ("too_short", "short.txt", None), ("repeated_lines", "spam.txt", None),
    }  # fmt: skip
    assert not (ctx.folder / ".staging").exists()


def test_everything_bad_at_once_is_counted_and_the_run_goes_on(tmp_path):
    folder = write_stories(tmp_path / "mixed", 40)
    lines = "".join(json.dumps({"text": story(1000 + i)}) + "\n" for i in range(60))
    (folder / "malformed.jsonl").write_text(lines + '{"text": "cut off\n')
    packed = gzip.compress("".join(json.dumps({"text": story(2000 + i)}) + "\n" for i in range(200)).encode())
    (folder / "truncated.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    (folder / "latin.txt").write_bytes((story(7001) + "\nA café by the river.\n").encode("latin-1"))
    (folder / "garbage.txt").write_bytes(story(7002).encode() + b"\n" + bytes(range(128, 256)))
    (folder / "empty.txt").write_text("")
    (folder / "picture.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "binary.txt").write_bytes(b"\x00\x01" * 100)
    (folder / "line.txt").write_text(" ".join(story(9000 + i) for i in range(2_000)))  # 1.6 MB in one line
    (folder / "gone.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.txt")
    (folder / os.fsdecode(b"na\xefve.txt")).write_text(story(7003))
    (folder / os.fsdecode(b"fl\xe8che.bin")).write_text("")
    ctx, ledger = run(tmp_path / "run", data={"path": str(folder)})
    entry = ledger["mixed"]
    assert balanced(entry) and entry["documents_kept"] > 150
    kept = documents(ctx, "train") + documents(ctx, "validation")
    assert any("café by the river" in document.text for document in kept) and any(document.doc_id == "na\\udcefve.txt" for document in kept)
    reported = [json.loads(line) for line in (ctx.folder / "bad.jsonl").read_text().splitlines()]
    found = {(Path(item["file"]).name, item["line"], item["reason"].split(",")[0].split(":")[0]) for item in reported}
    assert {
        ("malformed.jsonl", 61, "malformed JSON"), ("truncated.jsonl.gz", None, "truncated gz archive"), ("latin.txt", 2, "undecodable bytes"),
        ("garbage.txt", 2, "bytes that are not text in UTF-8"), ("empty.txt", None, "empty file"), ("picture.jpg", None, "unknown extension .jpg"),
        ("binary.txt", None, "binary file"), ("gone.txt", None, "cannot be read"), ("pipe.txt", None, "a pipe"),
        ("fl\\udce8che.bin", None, "unknown extension .bin"),
    } <= found  # fmt: skip
    repaired = [item for item in reported if item["kind"] == "repaired"]
    assert sum(entry["bad_counts"].values()) == len(reported) - len(repaired) == ctx.summary["bad_records"]
    assert entry["repaired_counts"] == {"undecodable bytes, read as Windows-1252": 1} and len(repaired) == ctx.summary["repaired_records"] == 1
    assert len(entry["bad"]) == min(len(reported), 20)
    assert any("bad.jsonl" in line for line in ctx.said)


def test_same_input_same_bytes_and_what_an_earlier_attempt_left_does_not_matter(tmp_path):
    folder = write_stories(tmp_path / "stories", 60)
    settings = {"data": {"sources": [{"name": "a", "path": str(folder)}, {"name": "b", "path": f"{folder}/00*.txt"}]}}
    (tmp_path / "two/prepare/.staging/kept").mkdir(parents=True)
    (tmp_path / "two/prepare/.staging/kept/a-00007.parquet").write_text("left over")
    (tmp_path / "two/prepare/train").mkdir()
    (tmp_path / "two/prepare/train/a-00009.parquet").write_text("left over")
    first, ledger = run(tmp_path / "one", **settings)
    second, _ = run(tmp_path / "two", **settings)
    assert digest(first.folder) == digest(second.folder)
    assert ledger["b"]["documents_kept"] == 0 and ledger["b"]["removed"]["exact_duplicate"]["documents"] == 10
    other, _ = run(tmp_path / "three", seed=1, **settings)
    assert {d.doc_id for d in documents(other, "validation")} != {d.doc_id for d in documents(first, "validation")}


def test_of_duplicates_the_one_that_is_trained_on_stays(tmp_path):
    folder = write_stories(tmp_path / "stories", 60)
    (folder / "059.txt").write_text(story(59) + " The end.")
    near = write_stories(tmp_path / "near", 60)
    sources = [{"name": "a", "path": str(folder), "weight": 0.0}, {"name": "b", "path": str(near), "weight": 0.001}]
    ctx, ledger = run(tmp_path / "run", data={"sources": sources})
    assert "prepare: source 'a': none of its 60 documents is left (59 × exact_duplicate, 1 × near_duplicate)" in ctx.said
    assert ledger["b"]["documents_kept"] == 60 and ledger["a"]["documents_kept"] == 0
    assert {reason: what["documents"] for reason, what in ledger["a"]["removed"].items()} == {"exact_duplicate": 59, "near_duplicate": 1}


def test_killed_and_started_again_ends_in_the_same_bytes(tmp_path):
    folder = write_stories(tmp_path / "stories", 150)
    script = (
        "import sys; sys.path[:0] = [{src!r}, {tests!r}]\n"
        "from tests.stages.test_prepare import Context; from fromnoise.stages import prepare, tokenizer\n"
        "prepare.run(Context({root!r}, 'prepare', data={{'path': {folder!r}}}))\n"
        "tokenizer.run(Context({root!r}, 'tokenizer', tokenizer={{'vocab_size': 512}}))\n"
    )
    base = Path(prepare.__file__).parents[2], Path(__file__).parents[2]

    def command(root):
        return [sys.executable, "-c", script.format(src=str(base[0]), tests=str(base[1]), root=str(root), folder=str(folder))]

    subprocess.run(command(tmp_path / "whole"), check=True)
    for delay in (0.5, 0.9, 1.3):
        child = subprocess.Popen(command(tmp_path / "killed"))
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run(command(tmp_path / "killed"), check=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")


def test_one_book_still_yields_a_validation_part(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(story(i, 4) for i in range(400)))
    ctx, ledger = run(tmp_path / "run", data={"path": str(tmp_path / "book.txt")})
    train, validation = documents(ctx, "train"), documents(ctx, "validation")
    assert 1 <= len(validation) <= 4 and len(train) > 50 and ledger["book"]["documents_in"] == len(train) + len(validation)


def test_many_short_documents_are_signed_some_at_a_time(tmp_path, monkeypatch):
    """All at once they took half a GB: a document's hashes are numbers of Python's until they are an array."""
    at_once = []
    monkeypatch.setattr(prepare, "HELD_SHINGLES", 1_000)
    monkeypatch.setattr(prepare, "signatures", lambda shingles: at_once.append(len(shingles)) or signatures(shingles))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"The ferry number {n} left at noon."}) + "\n" for n in range(50)))
    run(tmp_path / "run", data={"path": str(tmp_path / "a.jsonl")}, prepare={"min_chars": 1})
    assert max(at_once) < 10 and sum(at_once) == 50


def test_exempt_documents_are_kept_as_they_are_and_in_the_training_part(tmp_path, monkeypatch):
    spam = "Buy  now\u00a0a@b.org\n" * 9
    world = [Document(story(i), ("web", "books")[i % 2], f"w{i}", f"{1900 + i}", "synthetic") for i in range(120)]
    exempt = [Document(spam, "web", f"e{i}", None, "synthetic", True) for i in range(4)]
    first = Document(story(500), "web", "before", None, "synthetic")
    counted = Document(story(500), "books", "counted", None, "synthetic", True)
    build = SimpleNamespace(documents=lambda seed, section: iter([first, *world, *exempt, counted]))
    records = SimpleNamespace(write_records=lambda folder, seed, section: (folder.mkdir(parents=True), (folder / "facts.jsonl").write_text("{}\n")))
    monkeypatch.setitem(sys.modules, "fromnoise.world.build", build)
    monkeypatch.setitem(sys.modules, "fromnoise.world.records", records)
    mine = write_stories(tmp_path / "mine", 60)
    settings = {"data": {"world": True, "sources": [{"name": "mine", "path": str(mine), "licence": "public"}]}, "prepare": {"validation_frac": 0.2}}
    ctx, ledger = run(tmp_path / "run", **settings)
    train = documents(ctx, "train", "web")
    assert [document.text for document in train if document.exempt] == [spam] * 4
    assert [document.doc_id for document in documents(ctx, "train", "books") if document.exempt] == ["counted"]
    assert not any(document.exempt for document in documents(ctx, "validation"))
    assert "before" not in {document.doc_id for document in train + documents(ctx, "validation", "web")}
    assert ledger["web"]["simulated"] and not ledger["mine"]["simulated"] and ledger["web"]["licence"] == "synthetic" and ledger["mine"]["licence"] == "public"
    assert ledger["web"]["exempt_documents"] == 4 and ledger["web"]["removed"]["near_duplicate"]["documents"] >= 1
    assert ledger["books"]["dates"] == {"min": "1961", "max": "2019", "documents": 30} and all(map(balanced, ledger.values()))
    assert (ctx.folder / "world/facts.jsonl").is_file()


def test_too_much_bad_ends_the_run_and_says_where(tmp_path):
    good = "".join(json.dumps({"text": story(i)}) + "\n" for i in range(50))
    (tmp_path / "mostly.jsonl").write_text(good + "broken\n" * 20)
    with pytest.raises(UserError, match=r"20 of 70 records.*max_bad_frac = 0\.1.*malformed JSON.*mostly\.jsonl:51"):
        run(tmp_path / "run", data={"path": str(tmp_path / "mostly.jsonl")})
    run(tmp_path / "run", data={"path": str(tmp_path / "mostly.jsonl"), "max_bad_frac": 0.5})
    (tmp_path / "few.jsonl").write_text(good[: good.index("\n") + 1] * 2 + "broken\n")
    run(tmp_path / "few", data={"path": str(tmp_path / "few.jsonl")})


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_without_text_is_named_before_anything_is_read(tmp_path, monkeypatch, kind):
    """Behind 100 seconds of texts, at best."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text(story(1))
    table = tmp_path / f"data/b.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"price": ["1"], "size": ["2"]}), table)
    else:
        text = b"price,size\n1,2\n"
        table.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    monkeypatch.setattr(prepare.Intake, "add", lambda *given: pytest.fail("a text was taken in"))
    with pytest.raises(UserError, match=rf"b\.{kind} has no column that looks like the text; its columns are: price, size\..*or leave the file out"):
        run(tmp_path / "run", data={"path": str(tmp_path / "data")})


def test_documents_that_are_files_of_malformed_json_count_as_records(tmp_path):
    """One document a file is how exports come; four of five were set aside and the run went on with the fifth."""
    (tmp_path / "pages").mkdir()
    for number in range(50):
        text = json.dumps({"title": "T", "text": story(number)})
        (tmp_path / "pages" / f"{number}.json").write_text(text if number % 5 == 0 else text[:-1])
    with pytest.raises(UserError, match=r"40 of 50 records.*malformed JSON.*1\.json"):
        run(tmp_path / "run", data={"path": str(tmp_path / "pages")})


def test_bad_records_do_not_hide_among_the_pieces_of_good_ones(tmp_path):
    """20 long articles are read, whatever number of chapters they are cut into, and whatever text lies beside them."""
    good = "".join(json.dumps({"text": "\n\n".join(story(100 * i + k) for k in range(25))}) + "\n" for i in range(20))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/long.jsonl").write_text(good + "broken\n" * 11)
    with pytest.raises(UserError, match=r"11 of 31 records.*the first 1,000 for each reason"):
        run(tmp_path / "run", data={"path": str(tmp_path / "data/long.jsonl")})
    (tmp_path / "data/book.txt").write_text("\n\n".join(story(9000 + i) for i in range(300)))
    with pytest.raises(UserError, match="11 of 31 records"):
        run(tmp_path / "run", data={"path": str(tmp_path / "data")})


def test_lost_lines_of_a_text_are_judged_by_its_lines(tmp_path):
    lines = [story(i, 2).encode() for i in range(200)]
    bad = "Очень плохая строка".encode("koi8-r")
    (tmp_path / "book.txt").write_bytes(b"\n\n".join(lines + [bad] * 20))
    ctx, ledger = run(tmp_path / "run", data={"path": str(tmp_path / "book.txt")})
    assert ledger["book"]["bad_counts"] == {"bytes that are not text in UTF-8": 20} and ctx.summary["bad_records"] == 20
    (tmp_path / "book.txt").write_bytes(b"\n\n".join(lines + [bad] * 30))
    with pytest.raises(UserError, match="30 of 230 lines cannot be read"):
        run(tmp_path / "run", data={"path": str(tmp_path / "book.txt")})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "/nowhere/at/all"}, "no file or folder '/nowhere/at/all'"),
        ({"sources": [{"name": "a b", "path": "x"}]}, "'a b' is no name"),
        ({"sources": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "two sources are called 'a'"),
        ({"world": True, "sources": [{"name": "web", "path": "x"}]}, "the world has one of that name"),
        ({"sources": [{"name": "all", "path": "x"}]}, "'all' means all sources together"),
    ],
)
def test_mistakes_in_the_recipe(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", data=data)


def test_nothing_left(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(UserError, match=r"none is left after cleaning.*too_short"):
        run(tmp_path / "run", data={"path": str(tmp_path / "a.txt")})
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"no document could be read.*empty file.*a\.txt"):
        run(tmp_path / "run", data={"path": str(tmp_path / "a.txt")})


def test_tokenizer_stage(tmp_path):
    sources = [{"name": "a", "path": str(write_stories(tmp_path / "a", 100))}, {"name": "b", "path": str(write_stories(tmp_path / "b", 120))}]
    ctx, ledger = run(tmp_path / "run", data={"sources": sources}, prepare={"validation_frac": 0.1})
    assert ledger["b"]["documents_kept"] == 20
    stage = Context(tmp_path / "run", "tokenizer", tokenizer={"vocab_size": 600, "train_bytes": 20_000})
    tokenizer.run(stage)
    trained = Tokenizer.load(stage.folder)
    assert trained.vocab_size == 640
    for split in ("train", "validation"):
        shards = TokenShards(stage.folder / "tokens", split)
        assert shards.sources == ["a", "b"]
        for source in shards.sources:
            tokens, offsets = shards.tokens(source), shards.offsets(source)
            texts = [document.text for document in documents(ctx, split, source)]
            assert len(offsets) == len(texts) + 1
            for i, text in enumerate(texts):
                ids = tokens[offsets[i] : offsets[i + 1]].tolist()
                assert ids[-1] == trained.endoftext_id and trained.decode(ids[:-1]) == text
    report = json.loads((stage.folder / "compression.json").read_text())
    entry = report["sources"]["a"]
    assert entry["bytes"] == ledger["a"]["validation_bytes"] and entry["bytes_per_token"] == pytest.approx(entry["bytes"] / entry["tokens"], abs=1e-3)
    assert entry["gzip_ratio"] > 1 and set(report["sources"]) == {"a", "b", "all"} and report["vocab_size"] == 640
    again = Context(tmp_path / "run", "tokenizer", tokenizer={"vocab_size": 600, "train_bytes": 20_000})
    before = digest(stage.folder)
    tokenizer.run(again)
    assert digest(again.folder) == before


def test_a_source_without_a_validation_part_leaves_one_whose_name_begins_alike_its_own(tmp_path):
    (tmp_path / "one.txt").write_text(story(1))
    sources = [{"name": "a.b", "path": str(write_stories(tmp_path / "a", 60))}, {"name": "a", "path": str(tmp_path / "one.txt")}]
    run(tmp_path / "run", data={"sources": sources})
    stage = Context(tmp_path / "run", "tokenizer", tokenizer={"vocab_size": 320})
    tokenizer.run(stage)
    shards = TokenShards(stage.folder / "tokens", "validation")
    assert shards.sources == ["a.b"] and len(shards.tokens("a.b")) == shards.num_tokens


def test_the_tokenizers_sample_is_even_and_within_its_limit(tmp_path):
    sources = [{"name": "a", "path": str(write_stories(tmp_path / "a", 200))}]
    ctx, ledger = run(tmp_path / "run", data={"sources": sources})
    train_bytes = {"a": ledger["a"]["bytes_kept"] - ledger["a"]["validation_bytes"]}
    whole = list(tokenizer.sample(ctx.folder, train_bytes, 10**9, 0))
    assert sum(len(text.encode()) for text in whole) == train_bytes["a"]
    part = sum(len(text.encode()) for text in tokenizer.sample(ctx.folder, train_bytes, 50_000, 0))
    assert 30_000 < part <= 50_000


DATA = os.environ.get("FROMNOISE_DATA")


@pytest.mark.skipif(not DATA, reason="FROMNOISE_DATA is not set: no real data here")
def test_real_data_goes_through(tmp_path):
    """A book, the factbook, proposals, stories and web pages: nearly all of it stays, and nothing is malformed."""
    sources = [
        {"name": "book", "path": f"{DATA}/books/Conrad*.txt"}, {"name": "shakespeare", "path": f"{DATA}/shakespeare"},
        {"name": "docs", "path": f"{DATA}/docs/pep-000*.rst", "date_field": "Created"},
        {"name": "encyclopedia", "path": f"{DATA}/encyclopedia/factbook/europe/*.json"}, {"name": "web", "path": f"{DATA}/web"},
        {"name": "stories", "path": f"{DATA}/stories/*.txt"},
    ]  # fmt: skip
    ctx, ledger = run(tmp_path / "run", data={"sources": sources})
    for name, entry in ledger.items():
        assert balanced(entry) and entry["bytes_kept"] > 0.97 * entry["bytes_in"] and entry["validation_documents"] >= 1, name
        assert entry["bad_counts"] == entry["repaired_counts"] == {}
    assert ledger["docs"]["dates"]["min"].startswith("200")
    assert not any("<p>" in document.text or "&nbsp;" in document.text for document in documents(ctx, "train", "encyclopedia"))
