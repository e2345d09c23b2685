"""Which conversations train, which validate, and what becomes of those that are too long."""

import json
from dataclasses import replace

import pytest

from fromnoise.data.conversation import Conversation
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.run.errors import UserError
from fromnoise.run.folder import RunFolder
from fromnoise.stages import sft
from fromnoise.stages.sft import encode

from . import small_run


def tokenizer():
    return Tokenizer.train(["one two three four five six seven eight nine ten " * 20], vocab_size=320)


def talk(*turns):
    roles = ("user", "assistant")
    return Conversation([{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)], "here")


def test_a_long_conversation_loses_whole_turns_and_one_that_never_fits_is_counted():
    found = [talk("one two", "three"), talk("one two four", "three", "five " * 60, "six"), talk("seven " * 90, "eight")]
    train, validation, counts = encode(found, tokenizer(), row_tokens=64, validation_frac=0.0, seed=0)
    assert counts == {"cut": 1, "set_aside": 1}
    assert len(train[0]) + len(validation[0]) == 2
    assert all(len(ids) <= 64 and any(mask) for side in (train, validation) for ids, mask in zip(*side, strict=True))


def test_an_exchange_too_long_for_a_template_that_fails_on_no_message_is_set_aside():
    """Qwen's templates begin with messages[0]."""
    strict = tokenizer()
    real = strict.encode_messages
    strict.encode_messages = lambda messages: real(messages) if messages[0] else None
    found = [talk("one two", "three"), talk("four", "five"), talk("seven " * 90, "eight " * 90)]
    assert encode(found, strict, row_tokens=64, validation_frac=0.0, seed=0)[2] == {"cut": 0, "set_aside": 1}


@pytest.mark.parametrize(("found", "row_tokens", "frac", "message"), [
    ([talk("one", "two " * 90), talk("three", "four " * 90)], 32, 0.05, "all 2 conversations are longer than sft.row_tokens = 32"),
    ([talk("one", "two")], 64, 0.05, "of 1 conversation, 1 fits"),
    ([talk("one", "two"), talk("three", "four " * 90)], 32, 0.05, "of 2 conversations, 1 fits"),
    ([talk("one", "two"), talk("three", "four")], 64, 1.0, "sft.validation_frac = 1.0 holds out all of 2 conversations"),
])  # fmt: skip
def test_too_few_to_train_and_validate_on_says_what_to_change(found, row_tokens, frac, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        encode(found, tokenizer(), row_tokens=row_tokens, validation_frac=frac, seed=0)


def test_where_the_draw_holds_out_nothing_all_of_one_first_question_are():
    found = [talk("one", "two"), talk("one", "two", "three", "four"), talk("three", "five"), talk("three", "six")]
    tok = tokenizer()
    for seed in range(4):
        train, validation, _ = encode(found, tok, row_tokens=64, validation_frac=0.0, seed=seed)
        firsts = [{"one" in tok.decode(ids.tolist()) for ids in side[0]} for side in (train, validation)]
        assert len(train[0]) == len(validation[0]) == 2 and len(train[1]) == len(validation[1]) == 2
        assert firsts[0].isdisjoint(firsts[1])
    train, validation, _ = encode(found[:1] * 3, tok, row_tokens=64, validation_frac=0.0, seed=0)  # one question alone: its last
    assert (len(train[0]), len(validation[0])) == (2, 1)


def test_the_stop_token_is_a_target_and_the_prompt_is_not():
    tok = tokenizer()
    train, _, _ = encode([talk("one two", "three"), talk("four", "five")], tok, row_tokens=64, validation_frac=0.0, seed=0)
    ids, mask = train[0][0].tolist(), train[1][0]
    counted = [token for token, counts in zip(ids, mask, strict=True) if counts]
    assert counted[-1] == tok.im_end_id and tok.control_ids["<|im_start|>"] not in counted
    assert tok.decode(counted).strip() in ("three", "five")


def test_an_answer_marked_as_context_is_read_and_not_learnt():
    tok = tokenizer()
    plain = talk("one two", "three", "four", "five")
    found = [plain, replace(plain, unlearnt=frozenset({0})), replace(plain, unlearnt=frozenset({1})), replace(plain, unlearnt=frozenset({0, 1}))]
    train, validation, counts = encode(found, tok, row_tokens=64, validation_frac=0.0, seed=0)
    ids, masks = train[0] + validation[0], train[1] + validation[1]
    assert counts["set_aside"] == 1 and len({tuple(one) for one in ids}) == 1  # the last has nothing to learn
    said = [tok.decode(one[mask].tolist(), skip_special=False) for one, mask in zip(ids, masks, strict=True)]
    assert said == [" three<|im_end|> five<|im_end|>", " five<|im_end|>", " three<|im_end|>"]


def test_turns_that_a_template_writes_in_pieces_cannot_be_left_out():
    tok = tokenizer()
    real = tok.encode_messages
    tok.encode_messages = lambda messages: (real(messages)[0], [at % 2 == 0 for at in range(len(real(messages)[0]))])
    with pytest.raises(UserError, match="in one piece"):
        encode([replace(talk("one", "two"), unlearnt=frozenset({0}))], tok, row_tokens=64, validation_frac=0.0, seed=0)


def test_one_prompt_never_stands_on_both_sides():
    found = [talk(f"one {number % 9} two", f"three {number}") for number in range(90)]
    tok = tokenizer()
    train, validation, _ = encode(found, tok, row_tokens=64, validation_frac=0.3, seed=1)

    def prompts(side):
        return {tuple(ids[: int(mask.argmax())]) for ids, mask in zip(*side, strict=True)}

    assert train[0] and validation[0] and not prompts(train) & prompts(validation)


def test_files_that_hold_no_records_do_not_count_as_malformed_ones(tmp_path):
    """A data set of the Hub lies beside its README and its licence."""
    folder = tmp_path / "talks"
    folder.mkdir()
    (folder / "talks.jsonl").write_text('{"prompt": "one", "response": "two"}\n' * 5)
    (folder / "README.md").write_text("Five talks.")
    (folder / "LICENCE").write_text("None.")
    ctx = small_run.context(RunFolder(tmp_path / "run"), "sft", small_run.recipe(data={"world": False, "conversations": [str(folder)]}))
    assert len(sft.read(ctx)) == 5 and "0 of 5 records set aside, and 2 files not read" in ctx.console.lines[-1]
    (folder / "more.jsonl").write_text("{}\n" * 2)
    with pytest.raises(UserError, match="2 of 7 records are malformed"):
        sft.read(ctx)


def test_bad_records_count_among_the_records_of_their_own_file(tmp_path):
    """Several conversations of a record hid them (2 of 3 was 2 of 12), and so did a large good file beside theirs (2 of 32)."""
    several, good = tmp_path / "several.jsonl", tmp_path / "good.jsonl"
    instances = [{"input": str(n), "output": "even"} for n in range(10)]
    several.write_text("{}\n" * 2 + json.dumps({"instruction": "Odd or even?", "instances": instances}) + "\n")
    good.write_text('{"prompt": "one", "response": "two"}\n' * 20)
    for files in ([str(several)], [str(good), str(several)]):
        data = {"world": False, "conversations": files, "max_bad_frac": 0.2}
        with pytest.raises(UserError, match=r"several\.jsonl: 2 of 3 records are malformed"):
            sft.read(small_run.context(RunFolder(tmp_path / "run"), "sft", small_run.recipe(data=data)))


def test_rows_beyond_the_context_of_a_model_from_elsewhere_are_refused(tmp_path):
    run = small_run.make(tmp_path / "run", num_prompts=10, context_tokens=32)
    talks = tmp_path / "talks.jsonl"
    talks.write_text('{"prompt": "one", "response": "two"}\n{"prompt": "three", "response": "four"}\n')
    settings = small_run.recipe(**{"from": str(run.path / "sft")}, data={"world": False, "conversations": [str(talks)]}, sft={"row_tokens": 64})
    with pytest.raises(UserError, match=r"sft\.row_tokens = 64 is more than the model sees, max_position_embeddings = 32"):
        small_run.do(RunFolder(tmp_path / "other"), "sft", settings)


def test_a_base_model_without_a_chat_template_says_where_one_goes(tmp_path):
    run = small_run.make(tmp_path / "run", num_prompts=10)
    base = run.path / "sft"
    keys = json.loads((base / "tokenizer_config.json").read_text())
    template = keys.pop("chat_template")
    (base / "tokenizer_config.json").write_text(json.dumps(keys))
    talks = tmp_path / "talks.jsonl"
    talks.write_text('{"prompt": "one", "response": "two"}\n{"prompt": "three", "response": "four"}\n')
    rows = {"row_tokens": 64, "batch_tokens": 128, "epochs": 1, "num_evaluations": 1}
    settings = small_run.recipe(**{"from": str(base)}, data={"world": False, "conversations": [str(talks)]}, sft=rows)
    with pytest.raises(UserError, match=r"has no chat template.*chat_template\.jinja beside"):
        small_run.do(RunFolder(tmp_path / "other"), "sft", settings)
    (base / "chat_template.jinja").write_text(template)
    small_run.do(RunFolder(tmp_path / "other"), "sft", settings)
    assert json.loads((tmp_path / "other/sft/tokenizer_config.json").read_text())["chat_template"] == template


def test_a_model_of_the_hub_stays_at_the_commit_that_the_run_fetched_first(tmp_path, monkeypatch):
    """The repository moves on while the stage is cut off; it goes on from what it began with, and so does what measures the base."""
    hub = pytest.importorskip("huggingface_hub")
    newest, asked = ["aaa"], []

    def fetched(source, revision=None, allow_patterns=None):
        asked.append((source, revision))
        return str(tmp_path / "cache" / (revision or newest[0]))

    monkeypatch.setattr(hub, "snapshot_download", fetched)
    run, settings = RunFolder(tmp_path / "run"), small_run.recipe(**{"from": "some/model"})
    run.create()
    assert small_run.context(run, "sft", settings).parent("base").name == "aaa"
    newest[0] = "bbb"
    assert small_run.context(run, "sft", settings).parent("base").name == "aaa" and asked[-1] == ("some/model", "aaa")
    assert small_run.context(run, "evaluate", settings).parent("base").name == "aaa"
    assert small_run.context(RunFolder(tmp_path / "other"), "sft", settings).parent("base").name == "bbb"  # a run that begins now


def test_progress_shows_loss_and_utilisation(tmp_path):
    run = small_run.make(tmp_path / "run", num_prompts=10)
    talks = tmp_path / "talks.jsonl"
    talks.write_text("".join(f'{{"prompt": "{n}", "response": "{n + 1}"}}\n' for n in range(40)))
    rows = {"row_tokens": 64, "batch_tokens": 128, "micro_batch_rows": 2, "validation_frac": 0.2, "epochs": 2, "num_evaluations": 1}
    settings = small_run.recipe(**{"from": str(run.path / "sft")}, data={"world": False, "conversations": [str(talks)]}, sft=rows)
    done = small_run.do(RunFolder(tmp_path / "other"), "sft", settings)
    assert len(done.progress) == done.summary["num_steps"] > 1
    assert all("  loss " in line and "  tokens_per_s " in line and "  mfu " in line for line in done.progress), done.progress
