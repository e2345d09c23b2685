"""evaluate of a finished model by itself: what the user's files say of it, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate import reasoning
from fromnoise.evaluate.likelihood import bits_per_byte
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import load_model, save_reward
from fromnoise.run import machine
from fromnoise.run.errors import UserError
from fromnoise.run.execute import check_recipe, execute
from fromnoise.run.folder import RunFolder
from fromnoise.run.recipe_load import load_recipe, to_toml
from fromnoise.run.verdict import stages_of, verdicts
from fromnoise.stages.report import run as report
from tests.stages import small_run
from tests.stages.small_run import Listening

PLAIN = ("dtype=float32", "compile=off", "num_threads=1", "evaluate.pass_k=2", "evaluate.num_sums=9", "evaluate.num_problems=2",
         "evaluate.sampling.max_new_tokens=8")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """run.json of a run on this machine, model/, reward/, texts/ with a broken record, letters.txt, problems.jsonl with a broken record, pairs.jsonl."""
    folder = tmp_path_factory.mktemp("alone")
    small_run.make(folder / "run")
    shutil.move(folder / "run" / "sft", folder / "model")
    RunFolder(folder).write_info(machine=machine.measure("cpu", 1))
    model, tokenizer = load_model(folder / "model"), Tokenizer.load(folder / "model")
    scorer = ScoreModel(model, mean=0.0, std=1.0)
    with torch.no_grad():
        scorer.score.weight.copy_(torch.randn(scorer.score.weight.shape, generator=torch.Generator().manual_seed(0)))
    save_reward(folder / "reward", scorer, tokenizer)
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("The ferry left at noon.\nThe ferry left at noon.\n" * 9)  # prepare would leave most of it out
    (folder / "texts" / "b.jsonl").write_text("".join(json.dumps({"text": f"Plum number {i}."}) + "\n" for i in range(20)) + "{\n")
    (folder / "letters.txt").write_text("Dear Mara, the plums are ripe. " * 30)
    problems = [{"question": f"What is {i} + 3?", "answer": f"#### {i + 3}"} for i in range(12)]
    write_jsonl(folder / "problems.jsonl", [*problems, {"question": "Why?"}])
    write_jsonl(folder / "pairs.jsonl", [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(8)])
    return folder


def measured(made, run: RunFolder, *settings: str, **options) -> dict:
    """The summary of `fromnoise evaluate SETTINGS`."""
    console = Listening()
    run.create()
    shutil.copy(made / "run.json", run.path)  # else the machine is measured each time
    execute(load_recipe(None, [*PLAIN, *settings], "evaluate"), run, "evaluate", console=console, **options)
    run.told = console.lines
    return json.loads((run.path / "evaluate" / "summary.json").read_text())


def settings_of(folder) -> list[str]:
    sources = json.dumps(str(folder / "letters.txt"))
    return [f"from={folder / 'model'}", f"data={folder / 'texts'}", f'data.sources=[{{name = "letters", path = {sources}}}]',
            f"reason.problems={folder / 'problems.jsonl'}"]  # fmt: skip


def test_a_finished_model_is_measured_on_the_users_texts_and_problems(made, tmp_path):
    run = RunFolder(tmp_path / "run")
    found = measured(made, run, *settings_of(made))
    names = [f"bits_per_byte/base/{source}" for source in ("letters", "texts", "all")] + ["reason/sums/base"]
    assert [name for name in found if not name.startswith(("reason/pass", "reason/steps"))] == names
    assert {f"reason/{what}/base/{level}" for what in ("pass_1", "pass_k", "steps") for level in (101, 102, 103)} < set(found)
    assert found["reason/sums/base"]["n"] == 9 and found["reason/pass_k/base/101"]["n"] == 2
    bits = found["bits_per_byte/base/all"]  # and said, as there is no report yet
    assert f"bits_per_byte/base/all: {bits['value']:.4g} ({bits['low']:.4g} to {bits['high']:.4g}), n = {bits['n']}" in run.told

    texts = [(made / "texts" / "a.txt").read_text(), *(f"Plum number {i}." for i in range(20))]
    tokenizer = Tokenizer.load(made / "model")
    assert found["bits_per_byte/base/texts"]["value"] == pytest.approx(bits_of(load_model(made / "model"), tokenizer, texts), abs=1e-5)
    rows = [row for row in read_jsonl(run.path / "evaluate/records/bits_per_byte_base.jsonl") if row["source"] == "texts"]
    assert sum(row["bytes"] for row in rows) == sum(len(text) for text in texts) == rows[0]["source_bytes"]

    bad = read_jsonl(run.path / "evaluate/bad.jsonl")
    assert [(one["file"], one["line"]) for one in bad] == [(str(made / "texts/b.jsonl"), 21), (str(made / "problems.jsonl"), 13)]
    assert sorted(path.name for path in run.path.iterdir() if not path.name.startswith(".")) == ["evaluate", "recipe.toml", "run.json"]
    assert not (run.path / "evaluate/train_state").exists()
    page = report(run.path).read_text()
    assert "bits per byte of text" in page and "problems of the file" in page and "Problems with checkable answers" in page and "not practised" not in page
    assert re.findall(r'<section id="(\w+)">', page) == ["stages", "reason", "likelihood", "again", "everything"] and 'class="missing"' not in page
    assert "What was measured on what" in page and "The texts" in page and "num_threads 1" in page and "trained on what" not in page
    assert "a finished model, measured by itself" in page and f">{made / 'model'}, problems.jsonl, texts, letters<" in page


def bits_of(model, tokenizer, texts) -> float:
    class Shards:
        sources = ("it",)

        def tokens(self, source):
            return torch.tensor([token for text in texts for token in [*tokenizer.encode(text), tokenizer.endoftext_id]]).numpy()

    return bits_per_byte(model, Shards(), tokenizer.token_bytes(), 10**6, 4, model.config.context_tokens, endoftext_id=tokenizer.endoftext_id)["it"]


def test_it_is_done_until_the_model_or_the_files_change(made, tmp_path):
    shutil.copytree(made, tmp_path / "mine")
    folder, run = tmp_path / "mine", RunFolder(tmp_path / "run")
    settings = settings_of(folder)
    first = measured(made, run, *settings)
    assert measured(made, run, *settings) == first and run.told == ["evaluate: done already"]
    assert [str(item) for item in verdicts(run, load_recipe(run.path))] == ["evaluate   done"]
    (folder / "letters.txt").write_text("Other letters. " * 30)
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(UserError, match=r"(?s)input data\.sources\.letters changed .*input from changed"):
        measured(made, run, *settings)
    with pytest.raises(UserError, match=r"evaluate\.pass_k 2 -> 1"):
        measured(made, run, *settings, "evaluate.pass_k=1")
    again = measured(made, run, *settings, rerun=True)
    assert again.keys() == first.keys() and again["bits_per_byte/base/all"] != first["bits_per_byte/base/all"]


def test_cut_off_it_goes_on_with_what_is_missing_and_ends_in_the_same_bytes(made, tmp_path, monkeypatch):
    whole, cut, solve = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut"), reasoning.solve
    measured(made, whole, *settings_of(made))

    def stop(*args):
        raise RuntimeError("killed")

    monkeypatch.setattr(reasoning, "solve", stop)
    with pytest.raises(RuntimeError, match="killed"):
        measured(made, cut, *settings_of(made))
    monkeypatch.setattr(reasoning, "solve", solve)
    measured(made, cut, *settings_of(made))
    assert "evaluate: bits per byte base" not in cut.told and "evaluate: reason sums base" in cut.told
    outputs = [run.record(stages_of(load_recipe(run.path))[0])["outputs"] for run in (whole, cut)]
    assert outputs[0] == outputs[1] and "evaluate/bad.jsonl" in outputs[0]


def test_a_reward_model_is_measured_on_pairs(made, tmp_path):
    run = RunFolder(tmp_path / "run")
    found = measured(made, run, f"from={made / 'reward'}", f"evaluate.reward_sets=[{json.dumps(str(made / 'pairs.jsonl'))}]")
    assert found["reward_sets/pairs/reward/accuracy"]["n"] == 8 and all(name.startswith("reward_sets/pairs/") for name in found)
    page = report(run.path).read_text()
    assert "right on pairs from elsewhere" in page and "audit model" not in page and 'class="missing"' not in page


@pytest.mark.parametrize(("settings", "message"), [
    (["from={made}/model"], r"nothing to measure .*/model on: give data\.path=FOLDER \(texts\), reason\.problems=FILE"),
    (["from={made}/model", "data={made}/nowhere"], r"data\.path = '.*nowhere': no such file or folder"),
    (["from={made}/model", "data={tmp}/scan.pdf"], r"scan\.pdf is of no kind that is read here"),
    (["from={made}/model", "data={tmp}/broken.txt.gz"], r"broken\.txt\.gz holds no text that could be read \(source 'broken'\)"),
    (["from={made}/model", "data={tmp}/malformed.jsonl"], r"malformed\.jsonl: 2 of 3 records are malformed, more than data\.max_bad_frac = 0\.1"),
    (["from={made}/model", "reason.problems={tmp}/malformed.jsonl"], r"malformed\.jsonl' holds no problem\. Most often: no question"),
    (["from={made}/model", "reason.problems={tmp}/empty.jsonl"], r"reason\.problems = '.*empty\.jsonl' holds no problem"),
    (["from={tmp}/untemplated", "reason.problems={made}/problems.jsonl"], r"untemplated: its tokenizer has no chat template, under which problems"),
    (["from={made}/model", "reason.problems={made}/problems.jsonl", "evaluate.sampling.max_new_tokens=64"], r"max_new_tokens = 64: .* context of 64 tokens"),
    (["from={made}/model", "evaluate.reward_sets={made}/pairs.jsonl"], r"LM.*is no reward model"),
    (["from={made}/reward", "data={made}/texts"], r"a reward model .*, where a language model is needed"),
    (["from={made}/texts", "data={made}/texts"], r"texts: holds no tokenizer\.json"),
    (["from={made}/none", "data={made}/texts"], r"none: no model folder there"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(made, tmp_path, settings, message):
    for name, text in (("scan.pdf", "%PDF"), ("broken.txt.gz", "no archive"), ("malformed.jsonl", '{"text": "Plums."}\n{\n[\n'), ("empty.jsonl", "")):
        (tmp_path / name).write_text(text)
    shutil.copytree(made / "model", tmp_path / "untemplated")
    config = json.loads((tmp_path / "untemplated/tokenizer_config.json").read_text())
    (tmp_path / "untemplated/tokenizer_config.json").write_text(json.dumps(config | {"chat_template": None}))
    with pytest.raises(UserError, match=message):
        measured(made, RunFolder(tmp_path / "run"), *(setting.format(made=made, tmp=tmp_path) for setting in settings))
    assert not (tmp_path / "run/evaluate/summary.json").exists()


@pytest.mark.parametrize("verb", ["evaluate", None])
def test_a_run_that_makes_models_is_not_taken_over(made, tmp_path, verb):
    """Without --name both are runs/run: the run's recipe was replaced, and `chat` and `run` knew nothing of its models any more."""
    run, mine = RunFolder(tmp_path / "run"), load_recipe(None, [f"data.path={made / 'texts'}"])
    run.stage_dir("base").mkdir(parents=True)
    (run.stage_dir("base") / "stage.json").write_text('{"status": "done", "config": {}, "inputs": {}, "outputs": {}}')
    (run.path / "recipe.toml").write_text(to_toml(mine))
    with pytest.raises(UserError, match=r"another run's, with base/, and its recipe would be replaced; .*--name"):
        execute(load_recipe(None, [*PLAIN, *settings_of(made)], "evaluate"), run, verb, console=Listening())
    assert load_recipe(run.path) == mine and sorted(path.name for path in run.path.iterdir()) == ["base", "recipe.toml"]


def test_a_recipe_that_trains_from_a_model_is_as_it_was(made):
    def verbs(*settings):
        return [stage.verb for stage in stages_of(load_recipe(None, ["from=some/model", f"data.path={made / 'texts'}", *settings]))]

    chats = f"data.conversations={made / 'pairs.jsonl'}"
    assert verbs() == ["evaluate"] and verbs(chats) == ["prepare", "sft"]
    assert verbs(chats, "data.preferences=b.jsonl") == ["prepare", "sft", "prefer", "reward", "rlhf", "evaluate"]
    with pytest.raises(UserError, match=r"has no data for evaluate: give data\.preferences=FILE"):
        check_recipe(load_recipe(None, ["from=some/model", chats]), "evaluate")
