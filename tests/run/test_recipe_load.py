"""Recipes: every shipped one loads, and every mistake is named with its place and its mending."""

from __future__ import annotations

import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.files import files_named
from fromnoise.run.budget import SHARES, parse_budget, share_s
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import Recipe
from fromnoise.run.recipe_load import all_keys, line_of, load_recipe, recipes_folder, shipped_recipes, to_toml


def refusal(*overrides: str, recipe=None, verb=None) -> str:
    with pytest.raises(UserError) as refused:
        load_recipe(recipe, overrides, verb)
    return str(refused.value)


@pytest.mark.parametrize("name", ["world", "text", "hub", "gpu", "multinode", "smoke", "reward-hacking", "reward-hacking-shared"])
def test_every_shipped_recipe_loads_and_survives_being_written(name):
    assert name in shipped_recipes()
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.model_validate(tomllib.loads(to_toml(recipe))) == recipe


def test_the_two_hacking_recipes_differ_in_who_is_bent_alone():
    one, shared = (load_recipe(name).model_dump() for name in ("reward-hacking", "reward-hacking-shared"))
    assert (one["prefer"]["bias"].pop("shared"), shared["prefer"]["bias"].pop("shared")) == (False, True)
    assert {**one, "name": ""} == {**shared, "name": ""}


def test_layers():
    assert load_recipe(None).pretrain.tokens == Recipe().pretrain.tokens
    recipe = load_recipe("smoke", ["pretrain.tokens=5e6", "compile=on", "pretrain.probes=Once", "num_threads=none", "budget=10m"])
    assert recipe.pretrain.tokens == 5_000_000 and recipe.compile == "on" and recipe.pretrain.probes == ("Once",)
    assert recipe.num_threads is None and recipe.budget == "10m" and recipe.model.num_layers == 2


def test_a_partly_set_section_keeps_its_own_defaults():
    """sft's optimizer differs from pretrain's: setting one of its keys must not pull the others back to the class's."""
    recipe = load_recipe(None, ["sft.optimizer.muon_lr=0.5"])
    assert recipe.sft.optimizer.muon_lr == 0.5 and recipe.sft.optimizer.adamw_lr == Recipe().sft.optimizer.adamw_lr


def test_a_section_given_as_a_whole_leaves_the_rest_of_it_as_the_recipe_has_it():
    """It took the recipe's other settings away: the answers of `smoke` had 64 tokens for 24. What is a table as a value is replaced."""
    smoke, world = load_recipe("smoke"), load_recipe("world")
    assert load_recipe("smoke", ["prefer.sampling={temperature=0.5}"]) == load_recipe("smoke", ["prefer.sampling.temperature=0.5"])
    assert load_recipe("smoke", [("prefer", {"num_pairs": 60, "sampling": {}})]).prefer == smoke.prefer.model_copy(update={"num_pairs": 60})
    assert load_recipe("world", ["prefer={borrowed={}}"]).prefer == world.prefer.model_copy(update={"borrowed": {}})
    assert refusal("prefer={num_pair=3}", recipe="smoke") == "command line: unknown key 'prefer.num_pair'. Did you mean 'prefer.num_pairs'?"


def test_lists_on_the_command_line():
    """bash takes the quotes of ["a","b"], and the hint for 1,2 was ["1,2"], which is refused as well."""
    assert refusal("pretrain.probes=[a,b]") == (
        """command line: 'pretrain.probes=[a,b]': not a list as TOML writes it; for a shell write 'pretrain.probes=["one", "another"]'"""
    )
    assert refusal("reason.levels=[1,", recipe="2]").endswith("for a shell write 'reason.levels=[1, 2]'")  # as a shell divides [1, 2]
    assert refusal("reason.levels=1,2") == 'command line: reason.levels = "1,2": must be a list, as [1,2]'
    assert refusal("data.sources.name=a", recipe="smoke").startswith("command line: data.sources = {'name': 'a'}: this is a list of sections, [[data.sources]]")


def test_unknown_keys_suggest_the_nearest():
    assert "'pretrain.tokens'" in refusal("pretrain.tokns=3")
    assert "'pretrain.batch_tokens'" in refusal("batch_tokens=3")
    assert "'sft.optimizer.muon_lr'" in refusal("sft.optimizer.mon_lr=1")


@pytest.mark.parametrize("setting", ["pretrian.tokens=4", "Pretrain.tokens=4", "pretrain..tokens=4", "data.sources.0.weight=2"])
def test_a_mistyped_section_is_the_command_lines_and_not_the_recipes(setting):
    assert refusal(setting, recipe="smoke").startswith("command line: ")


def test_mistakes_name_file_line_value_and_mending(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('seed = 1\n\n[pretrain]\ntokens = "abc"\n[model]\nwidht = 64\n')
    assert refusal(recipe=path) == f"{path}, line 6: unknown key 'model.widht'. Did you mean 'model.width'?"
    path.write_text('seed = 1\n\n[pretrain]\ntokens = "abc"\n')
    assert refusal(recipe=path).startswith(f'{path}, line 4: pretrain.tokens = "abc": input should be a valid integer')
    path.write_text("seed = 1\nbudget = 600\n")
    assert refusal(recipe=path).startswith(f"{path}, line 2: budget = 600: must be text, in quotes")
    path.write_text("seed = \n")
    assert f"{path}: not valid TOML" in refusal(recipe=path) and "line 1" in refusal(recipe=path)
    assert refusal("pretrain.tokens=abc").startswith('command line: pretrain.tokens = "abc"')
    assert "between 0 and 1" in refusal("prepare.validation_frac=1.5")
    assert "not negative" in refusal("pretrain.tokens=-5")
    assert "at least 1" in refusal("model.num_layers=0")
    assert "'auto', 'on' or 'off'" in refusal("compile=maybe")
    assert "this is a section" in refusal("pretrain=3")
    assert "data.sources = 3: this is a list of sections, [[data.sources]] in a recipe, each with name and path" in refusal("data.sources=3")
    assert "key.sub=value" in refusal("pretrain")
    assert refusal("reason.levels=1") == "command line: reason.levels = 1: must be a list, as [1]"
    assert "rlhf.audit_prompts = 1: input should be greater than or equal to 2" in refusal("rlhf.audit_prompts=1")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", ".", "", " "])
def test_a_name_does_not_lead_out_of_runs(name):
    assert refusal(f"name={name}") == f'command line: name = "{name.strip()}": must name a folder below runs/; for another place there is --run-dir'


def test_unknown_recipes_list_the_shipped_ones(tmp_path):
    message = refusal(recipe="wrld")
    assert "Did you mean 'world'?" in message and "smoke" in message
    assert "no such recipe file" in refusal(recipe=tmp_path / "none.toml")
    assert "not a run folder" in refusal(recipe=tmp_path)


def test_paths_are_relative_to_where_they_are_written(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep/mine.toml"
    path.write_text('[data]\npath = "books"\nconversations = ["a.jsonl"]\n[[data.sources]]\nname = "x"\npath = "../web"\n')
    monkeypatch.chdir(tmp_path)
    data = load_recipe(path).data
    assert (data.path, data.conversations, data.sources[0].path) == (f"{tmp_path}/deep/books", (f"{tmp_path}/deep/a.jsonl",), f"{tmp_path}/web")
    assert load_recipe(path, ["data.path=books"]).data.path == f"{tmp_path}/books"
    assert load_recipe(path, ["data.path=~/books"]).data.path.startswith("/")


def test_a_weight_that_no_memory_holds_is_refused():
    """Weights are relative, so someone may write numbers of tokens."""
    source = {"name": "a", "path": "a.txt"}
    assert load_recipe(None, [("data.sources", [{**source, "weight": 1000}])]).data.sources[0].weight == 1000
    with pytest.raises(UserError, match=r"data\.sources\.0\.weight = 25000000\.0: must be at most 1000.*divide all weights"):
        load_recipe(None, [("data.sources", [{**source, "weight": 25_000_000.0}])])


def test_a_pattern_is_found_in_a_folder_whose_name_looks_like_one(tmp_path, monkeypatch):
    folder = tmp_path / "texts [2024]"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.txt").write_text("text")
    (folder / "c[1].txt").write_text("text")
    (folder / "mine.toml").write_text('[data]\npath = "a/*.txt"\nconversations = ["c[1].txt"]\n')
    recipe = load_recipe(folder / "mine.toml")
    assert files_named(recipe.data.path)[1] == [folder / "a" / "b.txt"]
    assert recipe.data.conversations == (str(folder / "c[1].txt"),)
    monkeypatch.chdir(folder)
    assert files_named(load_recipe(None, ["data.path=a/*.txt"]).data.path)[1] == [folder / "a" / "b.txt"]
    again = load_recipe(None, [("data.path", recipe.data.path)])  # as a run's own recipe gives it
    assert again.data.path == recipe.data.path


@pytest.mark.parametrize("key", ["data.path", "data.conversations", "data.preferences", "reason.problems", "from"])
def test_an_empty_path_is_not_the_current_folder(key):
    assert refusal(f"{key}=").startswith(f"command line: {key} = '' names nothing; write a file or a folder")


def test_an_empty_path_in_a_file_and_files_that_are_not_utf_8(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text('seed = 1\n[[data.sources]]\nname = "x"\npath = " "\n')
    assert refusal(recipe=path).startswith(f"{path}, line 4: data.sources.path = ' ' names nothing")
    path.write_bytes(b'seed = 1\n[data]\npath = "caf\xe9"\n')
    assert refusal(recipe=path) == f"{path}, line 3: byte 0xe9 is not UTF-8, as TOML must be; save the recipe as UTF-8"
    path.write_bytes(b"\xef\xbb\xbfseed = 7\n")  # as Windows' editors save it
    assert load_recipe(path).seed == 7
    name = os.fsdecode(b"caf\xe9")
    assert refusal(f"data.path={name}") == "command line: 'data.path=caf\\udce9' is not UTF-8, as a recipe is; rename the file, or name the folder it is in"
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert "command line: data.path = 'a.txt' lies in" in refusal("data.path=a.txt")


def test_problems_and_reward_sets_are_paths_too(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep/mine.toml"
    path.write_text('[reason]\nproblems = "sums.jsonl"\n[evaluate]\nreward_sets = ["a.jsonl", "../votes/*/pairs.jsonl"]\n')
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(path)
    assert recipe.reason.problems == f"{tmp_path}/deep/sums.jsonl"
    assert recipe.evaluate.reward_sets == (f"{tmp_path}/deep/a.jsonl", f"{tmp_path}/votes/*/pairs.jsonl")
    given = load_recipe(path, ["reason.problems=sums.jsonl", "evaluate.reward_sets=b.jsonl"])
    assert given.reason.problems == f"{tmp_path}/sums.jsonl" and given.evaluate.reward_sets == (f"{tmp_path}/b.jsonl",)


@pytest.mark.parametrize(("verb", "key"), [("prepare", "path"), ("sft", "conversations"), ("reward", "preferences"), (None, "path")])
def test_data_shorthand(verb, key, tmp_path):
    value = getattr(load_recipe(None, [f"data={tmp_path}/x.jsonl"], verb).data, key)
    assert value in (f"{tmp_path}/x.jsonl", (f"{tmp_path}/x.jsonl",))


@pytest.mark.parametrize("verb", ["sft", None])
def test_a_finished_model_without_a_recipe_is_trained_as_the_recipe_for_finished_models_says(verb, tmp_path, monkeypatch):
    """The defaults' rates are those of models made from noise: muon_lr is eight times as high as here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").mkdir()  # a folder of that name is not the recipe that is meant
    own = ["from=Qwen/Qwen3-0.6B", "data.conversations=my.jsonl"]
    found, hub = load_recipe(None, own, verb), load_recipe(recipes_folder() / "hub.toml", [*own, "data.world=false", "name=run"])
    assert found == hub and found.sft.row_tokens == 1024 and found.sft.optimizer.muon_lr == 0.0005
    assert load_recipe(None, own[1:], verb).sft == Recipe().sft and load_recipe(None, ["from=none"]) == Recipe()
    more = load_recipe(None, [("from", "Qwen/Qwen3-0.6B"), ("data.world", True), ("sft.epochs", 3)])
    assert more.data.world and more.sft.epochs == 3 and more.sft.row_tokens == 1024
    with pytest.raises(UserError, match=r"^command line: unknown key 'sft.epoch'\. Did you mean 'sft\.epochs'\?$"):
        load_recipe(None, [*own, "sft.epoch=1"], verb)
    with pytest.raises(UserError, match=r"^command line: sft\.epochs = \"x\": "):
        load_recipe(None, [*own, "sft.epochs=x"], verb)


@pytest.mark.parametrize("section", ["rlhf", "reason"])
def test_a_repetition_penalty_is_for_what_trains_no_policy_alone(section):
    assert load_recipe(None, ["prefer.sampling.repetition_penalty=1.2"]).prefer.sampling.is_whole is False
    assert load_recipe(None, ["prefer.sampling.repetition_penalty=1"]).prefer.sampling == Recipe().prefer.sampling
    said = refusal(f"{section}.sampling.repetition_penalty=1.2")
    assert f"{section}.sampling = " in said and "repetition_penalty cannot be set here" in said and "over the whole vocabulary" in said
    assert "greater than 0" in refusal("evaluate.sampling.repetition_penalty=0")


def test_a_run_folder_is_a_recipe(tmp_path):
    recipe = load_recipe("smoke", ["seed=7", "from=some/model", 'pretrain.probes=["a \\"quoted\\" \\\\ one", "tab\\t"]'])
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path) == recipe and recipe.sft_from == "some/model"


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=3))
def test_toml_round_trip(probes):
    recipe = Recipe.model_validate({"pretrain": {"probes": probes}})
    assert Recipe.model_validate(tomllib.loads(to_toml(recipe))) == recipe


def test_names_of_kinds_are_written_as_toml_reads_them(tmp_path):
    borrowed = {"open question": ["a.b"], "x.y": ['say "no"'], 'say "no"': ["plain"], "plain": [], "": ["ä"], "ä": ["x.y"]}
    recipe = load_recipe("world", [("prefer.borrowed", borrowed)])
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path) == recipe
    assert load_recipe("world").prefer.borrowed and load_recipe("world", ["prefer.borrowed={}"]).prefer.borrowed == {}
    assert load_recipe("world", ['prefer.borrowed={"x.y" = ["plain"]}']).prefer.borrowed == {"x.y": ["plain"]}


def test_keys_and_lines():
    assert {"budget", "from", "sft.optimizer.muon_lr", "rlhf.sampling.temperature"} <= set(all_keys())
    text = "seed = 1\n[sft]\nepochs = 2\n[sft.optimizer]\nmuon_lr = 3\n"
    assert [line_of(text, key) for key in ("seed", "sft.epochs", "sft.optimizer.muon_lr", "rlhf.gamma")] == [1, 3, 5, None]


def test_budgets():
    assert [parse_budget(text) for text in ("90s", "10m", "1h30m", "2d", "0.5h")] == [90, 600, 5400, 172800, 1800]
    for text, reason in (("$100", "money"), ("1e18flops", "FLOPs"), ("ten", "not a time"), ("0m", "more than nothing"), ("10", "not a time")):
        with pytest.raises(UserError, match=reason):
            parse_budget(text)
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    assert share_s(load_recipe("world"), "pretrain") is None
    assert share_s(load_recipe("world", ["budget=100s"]), "pretrain") == pytest.approx(36)


@pytest.mark.parametrize(("setting", "message"), [
    ("rlhf.sampling.top_p=0.9", "compares probabilities over the whole vocabulary"), ("reason.sampling.top_k=5", "over the whole vocabulary"),
    ("evaluate.sampling.top_p=1.5", "less than or equal to 1"), ("rlhf.dpo.beta=0", "must be more than 0"), ("sft.batch_tokens=0", "must be at least 1"),
    ("sft.optimizer.adamw_betas=[2, 0.9]", r"sft\.optimizer\.adamw_betas\.0 = 2: input should be less than 1"),
    ("rlhf.sampling.temperature=0", r"rlhf\.sampling.* temperature must be more than 0"), ("reason.sampling.temperature=0", "temperature must be more than 0"),
    ("pretrain.tokens=true", r"pretrain\.tokens = true: must be a number"), ("sft.max_tokens=false", "must be a number"),
    ("sft.epochs=true", "must be a number"), ("pretrain.procedural_frac=true", "must be a number"),
    ("sft.max_tokens=0", "must be at least 1"), ("tokenizer.vocab_size=0", "must be at least 1"), ("tokenizer.train_bytes=0", "must be at least 1"),
    ("pretrain.optimizer.max_grad_norm=0", "must be more than 0"), ("pretrain.max_passes=0", "must be more than 0"), ("sft.epochs=0", "must be more than 0"),
    ("world.max_mentions=15", "greater than or equal to 16"), ("world.documents_tokens=0", "must be at least 1"),
    ("evaluate.pass_k=0", "must be at least 1"), ("rlhf.best_of.num_prompts=0", "greater than or equal to 1"),
    ("reward.num_normalise_answers=1", "greater than or equal to 2"), ("rlhf.dpo.label_smoothing_frac=0.5", "less than 0.5"),
    ("rlhf.gamma=1.5", "less than or equal to 1"), ("rlhf.gae_lambda=1.5", "less than or equal to 1"), ("reason.step_discount=3", "less than or equal to 1"),
    ("pretrain.optimizer.muon_momentum=1", "less than 1"), ("model.rope_theta=0", "must be more than 0"), ("sft.validation_frac=1", "less than 1"),
    ("prepare.near_duplicate_threshold=80", "less than or equal to 1"), ("prepare.near_duplicate_threshold=0", "must be more than 0"),
    ("rlhf.clip_ratio=0", "must be more than 0"), ("reason.clip_ratio_high=0", "must be more than 0"), ("rlhf.value_clip=0", "must be more than 0"),
    ("world.cutoff_year=0", "greater than or equal to 1000"),
    ("num_threads=100000", "less than or equal to 1024"), ("num_threads=true", "must be a number"), ("world.num_prompts=1e6", "less than or equal to 200000"),
    ("prefer.sampling.temperature=0", "temperature must be more than 0"), ("evaluate.sampling.temperature=0", "temperature must be more than 0"),
])  # fmt: skip
def test_values_that_cannot_be_meant_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        load_recipe("world", [setting])
