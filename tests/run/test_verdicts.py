"""done, stale, partial, missing: by content, with the cause named, and nothing overwritten."""

from __future__ import annotations

import json
import os

import pytest
import torch

from fromnoise.data.files import BadRecord
from fromnoise.model import hf
from fromnoise.model.config import ModelConfig
from fromnoise.model.transformer import Transformer
from fromnoise.run.budget import SHARES, share_s
from fromnoise.run.errors import Interrupted, UserError
from fromnoise.run.execute import check_recipe, out_of_memory
from fromnoise.run.files import HashCache, sha256_file
from fromnoise.run.folder import RunFolder, stage_of
from fromnoise.run.recipe_load import load_recipe
from fromnoise.run.verdict import check_user_files, config_changes, config_of, digest_path, input_changes, inputs_of, stages_of, verdicts
from tests.run import toy_learn, toy_make
from tests.run.toy import toy_run, toy_verdicts


@pytest.fixture
def run(tmp_path):
    toy_run(tmp_path / "run")
    return tmp_path / "run"


def test_from_missing_to_done(tmp_path):
    assert toy_verdicts(tmp_path / "run") == {"make": "missing", "learn": "missing"}
    toy_run(tmp_path / "run")
    assert toy_verdicts(tmp_path / "run") == {"make": "done", "learn": "done"}


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"),
])  # fmt: skip
def test_too_little_memory_is_said_with_what_to_lower(tmp_path, monkeypatch, error):
    """It was a traceback; and the setting to lower can be changed without --rerun where nothing had been made."""

    def refuse(ctx):
        ctx.decide("clock", lambda: 1.0)
        raise error

    monkeypatch.setattr(toy_learn, "run", refuse)
    with pytest.raises(UserError, match=r"learn needs more memory than there is \((MemoryError|.enforce fail.*|CUDA out.*GiB\.)\).* a smaller model"):
        toy_run(tmp_path / "run")
    assert toy_verdicts(tmp_path / "run", "sft.micro_batch_rows=1") == {"make": "done", "learn": "missing"}
    assert "Lower pretrain.micro_batch_rows = 8, pretrain.row_tokens = 256, or take" in out_of_memory(load_recipe("world"), "pretrain", error)
    assert "Take a smaller model" in out_of_memory(load_recipe("world"), "evaluate", error)


def test_done_is_skipped(run):
    before = (run / "learnt/stage.json").stat().st_mtime_ns
    toy_run(run)
    assert (run / "learnt/stage.json").stat().st_mtime_ns == before


def test_a_changed_setting_is_named_and_refused(run):
    weights = sha256_file(run / "learnt/model.safetensors")
    assert toy_verdicts(run, "sft.epochs=3") == {"make": "done", "learn": "stale    sft.epochs 2.0 -> 3.0"}
    with pytest.raises(UserError, match=r"sft\.epochs 2\.0 -> 3\.0"):
        toy_run(run, "sft.epochs=3")
    assert sha256_file(run / "learnt/model.safetensors") == weights
    assert "epochs = 2.0" in (run / "recipe.toml").read_text()


def test_a_stage_that_refuses_at_its_start_leaves_nothing_behind(tmp_path, monkeypatch):
    """The setting that it names can be changed without moving folders aside; what had been made stays."""
    folder, too_many = tmp_path / "run", UserError("sft.max_tokens is too many")
    real = toy_learn.run

    def refuse(ctx):
        ctx.decide("clock", lambda: 1.0)
        raise too_many

    monkeypatch.setattr(toy_learn, "run", refuse)
    with pytest.raises(UserError, match="too many"):
        toy_run(folder, "sft.max_tokens=41")
    assert toy_verdicts(folder, "sft.max_tokens=40") == {"make": "done", "learn": "missing"}

    def refuse_late(ctx):
        ctx.log(0, loss_nats=1.0)
        raise too_many

    monkeypatch.setattr(toy_learn, "run", refuse_late)
    with pytest.raises(UserError, match="too many"):
        toy_run(folder, "sft.max_tokens=41")
    assert toy_verdicts(folder, "sft.max_tokens=40")["learn"].startswith("stale")  # what is there was made with another setting
    monkeypatch.setattr(toy_learn, "run", real)
    toy_run(folder, "sft.max_tokens=41")
    assert toy_verdicts(folder, "sft.max_tokens=41") == {"make": "done", "learn": "done"}


def test_a_list_that_a_refusal_names_outlives_it(tmp_path, monkeypatch):
    """prepare writes what it cannot read to .staging/bad.jsonl, and names that when it is too much."""
    folder, real = tmp_path / "run", toy_make.run

    def refuse(ctx):
        (ctx.folder / ".staging").mkdir()
        (ctx.folder / ".staging/bad.jsonl").write_text("{}\n")
        raise UserError("too much is malformed")

    monkeypatch.setattr(toy_make, "run", refuse)
    with pytest.raises(UserError, match="malformed"):
        toy_run(folder)
    assert (folder / "made/.staging/bad.jsonl").is_file() and toy_verdicts(folder, "sft.max_tokens=40")["make"] == "missing"
    monkeypatch.setattr(toy_make, "run", real)
    toy_run(folder)
    assert toy_verdicts(folder) == {"make": "done", "learn": "done"}


def test_a_file_that_is_mended_as_a_refusal_asks_is_read_without_rerun(tmp_path, monkeypatch):
    """What is set aside stands in the stage's own folder, and the refusal names it: neither makes the stage one of other inputs."""
    folder, listed, real = tmp_path / "run", tmp_path / "run/learnt/bad.jsonl", toy_learn.run

    def read(ctx):
        ctx.on_bad(BadRecord("talks.jsonl", ctx.recipe.sft.max_tokens, "no conversation"))
        ctx.check_bad(2, "records.jsonl")
        real(ctx)

    monkeypatch.setattr(toy_learn, "run", read)
    for line in (41, 42):
        most_often = rf"Most often: no conversation \(first at talks\.jsonl:{line}\)\."
        with pytest.raises(UserError, match=rf"1 of 3 records are malformed.*{most_often}.*learnt/bad\.jsonl"):
            toy_run(folder, f"sft.max_tokens={line}")
        assert [json.loads(one)["line"] for one in listed.read_text().splitlines()] == [line]
    assert toy_verdicts(folder) == {"make": "done", "learn": "missing"}
    toy_run(folder, "data.max_bad_frac=0.4")
    assert len(listed.read_text().splitlines()) == 1 and toy_verdicts(folder) == {"make": "done", "learn": "done"}


def test_hidden_files_do_not_make_a_stage_that_was_not_begun_stale(tmp_path):
    """A kill while the first stage.json is written leaves its temporary file; a file manager leaves its own."""
    for name in (".stage.json.tmp-4711", ".DS_Store"):
        (tmp_path / "run/made").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run/made" / name).write_text("{")
    assert toy_verdicts(tmp_path / "run")["make"] == "missing"
    toy_run(tmp_path / "run")
    assert toy_verdicts(tmp_path / "run") == {"make": "done", "learn": "done"}


def test_what_a_killed_process_had_half_written_is_removed(tmp_path, monkeypatch):
    """A kill while the weights of step 1 were kept left a folder that no later process looked at."""
    folder, real = tmp_path / "run", toy_learn.run
    model = Transformer(ModelConfig(vocab_size=8, num_layers=1, width=8, num_heads=1, num_kv_heads=1, head_size=8, ffn_width=8, context_tokens=8))

    def killed(ctx):
        with monkeypatch.context() as patch:
            patch.setattr(hf, "fsync_file", toy_killed)
            patch.setattr(hf.shutil, "rmtree", lambda *args, **options: None)  # a kill runs no `finally`
            for where in (ctx.folder, ctx.folder / "checkpoints/step-000001"):
                with pytest.raises(KeyboardInterrupt):
                    hf.save_model(where, model)
        for half in (ctx.path("beside") / ".copy.txt.tmp-4711", folder / ".run.json.tmp-4711", folder / ".recipe.toml.tmp-4711"):
            half.write_text("half")
        raise KeyboardInterrupt

    def toy_killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_learn, "run", killed)
    with pytest.raises(Interrupted):
        toy_run(folder)
    left = [path for path in folder.rglob("*") if ".tmp-" in path.name]
    assert len(left) == 5
    monkeypatch.setattr(toy_learn, "run", real)
    toy_run(folder)
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]


def test_rerun_moves_the_old_folders_aside(run):
    old = sha256_file(run / "learnt/model.safetensors")
    toy_run(run, "sft.max_tokens=41", rerun=True)
    assert sha256_file(run / "learnt.old-1/model.safetensors") == old and (run / "beside.old-1/copy.txt").exists()
    assert sha256_file(run / "learnt/model.safetensors") != old
    assert not (run / "made.old-1").exists()  # only what is stale is made again
    toy_run(run, rerun=True)
    assert sha256_file(run / "learnt/model.safetensors") == old and (run / "learnt.old-2").exists()


def test_when_something_is_saved_changes_no_result(run):
    assert toy_verdicts(run, "sft.checkpoint_every_s=1")["learn"] == "done"


def test_how_much_may_be_malformed_changes_no_result(tmp_path):
    """A refusal asks to raise it, hours behind prepare. Older runs have it in their records."""
    recipe = load_recipe(None, ["data.world=true", "data.max_bad_frac=0.4"])
    config = config_of(recipe, stage_of("prepare"))
    assert config_changes({"config": config | {"data.max_bad_frac": 0.1}}, config) == []


def test_an_upstream_change_reaches_downstream_by_content(run):
    """min_chars is in made/numbers.txt: learn waits for make, and is stale once its input really changed."""
    found = toy_verdicts(run, "prepare.min_chars=7")
    assert found["make"] == "stale    prepare.min_chars 40 -> 7"
    assert found["learn"] == "stale    inputs still to be made: made/"
    toy_run(run, "prepare.min_chars=7", rerun=True)
    assert (run / "made.old-1").exists() and (run / "learnt.old-1").exists()


def test_an_upstream_rerun_with_the_same_bytes_leaves_downstream_done(run):
    toy_run(run, "prepare.max_chars=999", rerun=True)
    assert (run / "made.old-1").exists() and not (run / "learnt.old-1").exists()
    assert toy_verdicts(run, "prepare.max_chars=999") == {"make": "done", "learn": "done"}


def test_a_missing_upstream_is_made_again_without_rerun(run):
    os.rename(run / "made", run / "elsewhere")
    assert toy_verdicts(run) == {"make": "missing", "learn": "stale    inputs still to be made: made/"}
    toy_run(run)
    assert toy_verdicts(run) == {"make": "done", "learn": "done"}


def test_touched_outputs_are_found(run):
    (run / "learnt/model.safetensors").write_bytes(b"something else")
    assert toy_verdicts(run)["learn"] == "stale    output learnt/model.safetensors was changed"
    (run / "learnt/model.safetensors").unlink()
    assert toy_verdicts(run)["learn"] == "stale    output learnt/model.safetensors is gone"


def test_a_changed_date_alone_means_nothing(run):
    os.utime(run / "made/numbers.txt")
    assert toy_verdicts(run) == {"make": "done", "learn": "done"}


def test_foreign_files_are_not_overwritten(tmp_path):
    (tmp_path / "run/made").mkdir(parents=True)
    (tmp_path / "run/made/precious.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no stage\.json"):
        toy_run(tmp_path / "run")
    assert (tmp_path / "run/made/precious.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"status": "done", "config": {}, "inputs": [], "outputs": {}}'])
def test_a_damaged_record_is_said(run, text):
    (run / "made/stage.json").write_text(text)
    with pytest.raises(UserError, match=r"made/stage\.json is .*move the folder away"):
        toy_verdicts(run)


def test_a_file_where_the_run_should_be_and_a_lock_that_cannot_be_written_are_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be read \(Not a directory\); a run is a folder"):
        toy_verdicts(tmp_path / "file")
    (run / ".lock").unlink()
    (run / ".lock").mkdir()  # as a read-only folder refuses it; root may write there
    with pytest.raises(UserError, match=r"\.lock cannot be written \(.*--run-dir"):
        toy_run(run)


def test_a_single_stage(tmp_path):
    with pytest.raises(UserError, match=r"learn needs .*made, which is missing"):
        toy_run_verb(tmp_path / "run", "learn")
    assert not (tmp_path / "run").exists()
    toy_run_verb(tmp_path / "run", "make")
    assert toy_verdicts(tmp_path / "run") == {"make": "done", "learn": "missing"}
    toy_run_verb(tmp_path / "run", "make", rerun=True)
    assert (tmp_path / "run/made.old-1").exists()
    (tmp_path / "run/made/numbers.txt").write_text("1 1\n")
    with pytest.raises(UserError, match=r"made, which is stale: make it with `fromnoise make --rerun` .* `fromnoise run --rerun`"):
        toy_run_verb(tmp_path / "run", "learn")


def test_a_single_stage_leaves_the_settings_of_the_others_alone(run):
    kept = (run / "recipe.toml").read_text()
    for rerun in (False, True):
        with pytest.raises(UserError, match=r"learn: sft\.epochs 2\.0 -> 3\.0\nNothing was overwritten.*--name NAME"):
            toy_run_verb(run, "make", "sft.epochs=3", rerun=rerun)
    with pytest.raises(UserError, match=r"make: prepare\.min_chars 40 -> 7"):
        toy_run_verb(run, "learn", "prepare.min_chars=7")
    toy_run_verb(run, "make", "reward.epochs=3")  # nothing is done, so nothing is written
    assert (run / "recipe.toml").read_text() == kept and not (run / "made.old-1").exists()
    toy_run_verb(run, "make", "seed=1", rerun=True)  # its own setting as well: what follows is made again with the same
    toy_run_verb(run, "learn", "seed=1", "sft.epochs=3", "reward.epochs=3", rerun=True)
    assert toy_verdicts(run, "seed=1", "sft.epochs=3") == {"make": "done", "learn": "done"}
    assert "seed = 1\n" in (run / "recipe.toml").read_text()


def test_a_single_stage_may_change_what_is_not_made_yet_and_keep_what_was_stale(run):
    os.rename(run / "learnt", run / "elsewhere")
    toy_run_verb(run, "make", "prepare.max_chars=999", "sft.epochs=3", rerun=True)
    assert toy_verdicts(run, "prepare.max_chars=999", "sft.epochs=3") == {"make": "done", "learn": "missing"}
    assert "epochs = 3.0" in (run / "recipe.toml").read_text()
    os.rename(run / "elsewhere", run / "learnt")  # made with epochs = 2, which the run's recipe no longer says
    toy_run_verb(run, "make", "prepare.max_chars=998", "sft.epochs=3", rerun=True)
    (run / "recipe.toml").unlink()
    with pytest.raises(UserError, match=r"learn: sft\.epochs 2\.0 -> 3\.0"):
        toy_run_verb(run, "make", "prepare.max_chars=998", "sft.epochs=3")


def toy_run_verb(folder, verb, *settings, **options):
    toy_run(folder, *settings, verb=verb, **options)


def test_lineage_and_environment_are_kept(run):
    info = json.loads((run / "run.json").read_text())
    learn = info["stages"]["learn"]
    assert learn["inputs"] == {"made": RunFolder(run).digest("made")}
    assert learn["outputs"]["learnt/model.safetensors"] == sha256_file(run / "learnt/model.safetensors")
    assert learn["config"]["sft.max_tokens"] == 40 and "sft.checkpoint_every_s" not in learn["config"]
    assert info["versions"]["torch"] and info["hardware"]["num_cores"] and info["seed"] == 0


def test_looking_at_a_run_elsewhere_does_not_say_it_was_made_there(run, monkeypatch):
    monkeypatch.setattr("fromnoise.run.execute.environment", lambda: {"hardware": {"processor": "another"}})
    toy_run(run)  # everything is done already
    assert RunFolder(run).read_info()["hardware"]["num_cores"]
    toy_run(run, "sft.max_tokens=41", rerun=True)
    assert RunFolder(run).read_info()["hardware"] == {"processor": "another"}


def test_tokenizers_of_two_parents_must_agree(tmp_path):
    for name, text in (("base", "{}"), ("sft", "{} ")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text)
    folders = {name: tmp_path / name for name in ("base", "sft")}
    with pytest.raises(UserError) as refused:
        RunFolder(tmp_path).check_tokenizers(folders)
    for folder in folders.values():
        assert sha256_file(folder / "tokenizer.json") in str(refused.value)
    RunFolder(tmp_path).check_tokenizers({"base": tmp_path / "base"})


def test_user_files_count_by_content_not_by_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.txt").write_text("the same text")
    stages = {stage.verb: stage for stage in stages_of(load_recipe(None, [f"data.path={one}"]))}

    def inputs(path):
        return inputs_of(RunFolder(tmp_path / "run"), load_recipe(None, [f"data.path={path}"]), stages["prepare"])

    assert inputs(one) == inputs(two)
    (two / "a.txt").write_text("another text")
    assert inputs(one) != inputs(two)
    assert "data.path" not in config_of(load_recipe(None, [f"data.path={one}"]), stages["prepare"])


def test_a_file_is_no_model_folder_though_its_name_may_be_an_id_of_the_hub(tmp_path, monkeypatch):
    """It was found out when sft began, after prepare and its texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("chats.jsonl", "model/model.safetensors"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(UserError, match=r"from = model/model\.safetensors: no model folder there"):
        check_recipe(load_recipe(None, ["from=model/model.safetensors", "data.conversations=chats.jsonl"]), None)


def test_a_model_that_was_moved_is_named_and_at_its_new_place_the_same(tmp_path):
    """It was "no longer given", and --rerun moved finished stages aside before it failed."""
    model, chats = tmp_path / "model", tmp_path / "chats.jsonl"
    model.mkdir()
    (model / "config.json").write_text("{}")
    chats.write_text("{}\n")

    def asked(place):
        recipe = load_recipe(None, [f"from={place}", f"data.conversations={chats}"])
        stage = next(stage for stage in stages_of(recipe) if stage.verb == "sft")
        return recipe, config_of(recipe, stage), inputs_of(RunFolder(tmp_path / "run"), recipe, stage)

    recipe, config, inputs = asked(model)
    model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"from = .*/model: no model folder there.*if it was moved"):
        check_recipe(recipe, None)
    for recorded in (config, config | {"from": str(model)}):  # older records hold its place
        record = {"config": recorded, "inputs": inputs}
        assert config_changes(record, asked(tmp_path / "moved")[1]) == input_changes(record, asked(tmp_path / "moved")[2]) == []
        assert config_changes(record, asked("owner/name")[1]) and input_changes(record, asked("owner/name")[2]) == ["input from is no longer given"]


@pytest.mark.parametrize("kept", ("[]", "null", '"x"', "{half", '{"KEY": 5}', '{"KEY": [SIZE, TIME]}', '{"KEY": [SIZE, TIME, null]}'))
def test_a_damaged_cache_of_hashes_is_computed_anew(tmp_path, kept):
    file = tmp_path / "a.txt"
    file.write_text("text")
    stat = file.stat()
    (tmp_path / "cache.json").write_text(kept.replace("KEY", str(file)).replace("SIZE", str(stat.st_size)).replace("TIME", str(stat.st_mtime_ns)))
    hashes = HashCache(tmp_path / "cache.json")
    assert hashes.sha256(file) == sha256_file(file)
    hashes.save()
    assert HashCache(tmp_path / "cache.json")._known == hashes._known


def test_a_run_within_its_own_data_and_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    for name in ("a.txt", os.fsdecode(b"caf\xe9.txt")):
        (tmp_path / name).write_text("text")
    hashes = HashCache(tmp_path / ".hashes.json")
    before = digest_path(str(tmp_path), "data.path", hashes)
    toy_run(tmp_path / "runs/text")
    assert digest_path(str(tmp_path), "data.path", hashes) == before
    hashes.save()
    assert len(HashCache(tmp_path / ".hashes.json")._known) == 2

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fromnoise.run.files.sha256_file", refuse)
    (tmp_path / "a.txt").write_text("another text")
    assert digest_path(str(tmp_path), "data.path", hashes) != before
    for name, target in (("one", "."), ("two", ".")):
        (tmp_path / name).symlink_to(target)
    check_user_files(load_recipe(None, [f"data.path={tmp_path}/**/*.txt"]))  # links that lead back do not hold it up
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt': no such file or folder, or none that can be read"):
        digest_path(f"{tmp_path}/pipe.txt", "data.path", hashes)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.conversations", "no conversation found in"), ("data.preferences", "no preference pair found in"), ("data.prompts", "no prompt found in"),
        ("reason.problems", "holds no problem"), ("evaluate.reward_sets", "no preference pair found in"),
    ],
)  # fmt: skip
def test_records_of_no_known_form_are_refused_before_a_run(tmp_path, setting, message):
    """`reason` refused them behind all the stages before it."""
    (tmp_path / "records.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(UserError, match=rf"{message}.*Most often: .*records\.jsonl:1"):
        check_user_files(load_recipe(None, ["data.world=true", f"{setting}={tmp_path / 'records.jsonl'}"]))


def test_every_file_of_a_glob_counts(tmp_path):
    """Files of one name in several folders, and folders that the pattern names; where all of it lies does not count."""
    hashes, digests = lambda: HashCache(tmp_path / "hashes.json"), []
    for place in ("here", "there"):
        for rater in ("ann", "ben"):
            (tmp_path / place / rater).mkdir(parents=True)
            (tmp_path / place / rater / "pairs.jsonl").write_text(rater)
        digests.append([digest_path(f"{tmp_path}/{place}/{pattern}", "x", hashes()) for pattern in ("*/pairs.jsonl", "*", "**/*.jsonl")])
    assert digests[0] == digests[1] and len(set(digests[0])) == 1
    (tmp_path / "here/ann/pairs.jsonl").write_text("not what it was")
    for pattern, before in zip(("*/pairs.jsonl", "*", "**/*.jsonl"), digests[0], strict=True):
        assert digest_path(f"{tmp_path}/here/{pattern}", "x", hashes()) != before
    with pytest.raises(UserError, match="no such file or folder"):
        digest_path(f"{tmp_path}/nowhere/*.jsonl", "x", hashes())


def test_what_a_file_says_that_is_not_read_does_not_count(tmp_path):
    """A recipe beside the texts that it names: editing it would make every stage stale."""
    (tmp_path / "a.txt").write_text("text")
    hashes, digests = HashCache(tmp_path / ".hashes.json"), []
    for text in ("seed = 1", "seed = 1  # the same"):
        (tmp_path / "library.toml").write_text(text)
        digests.append(digest_path(str(tmp_path), "data.path", hashes))
    (tmp_path / "library.toml").rename(tmp_path / "other.toml")  # the name stands in bad.jsonl
    digests.append(digest_path(str(tmp_path), "data.path", hashes))
    assert digests[0] == digests[1] != digests[2]


def test_a_run_goes_as_far_as_there_is_data_for(tmp_path):
    path = f"data.path={tmp_path}"

    def verbs(*settings):
        return [stage.verb for stage in stages_of(load_recipe("text", [path, *settings]))]

    tuned = ["prepare", "tokenizer", "pretrain", "sft"]
    assert verbs() == tuned[:3] and verbs('data.conversations=["a.jsonl"]') == tuned
    assert verbs('data.conversations=["a.jsonl"]', "data.preferences=b.jsonl") == [*tuned, "prefer", "reward", "rlhf", "evaluate"]
    with pytest.raises(UserError, match=r"no data for sft: give data\.conversations=FILE"):
        check_recipe(load_recipe("text", [path]), "sft")
    with pytest.raises(UserError, match=r"no data for any stage: give data\.conversations=FILE"):
        check_recipe(load_recipe(None, ["from=some/model"]), None)
    assert sum(share_s(load_recipe("text", [path, "budget=100s"]), verb) for verb in SHARES if verb in verbs()) == pytest.approx(100.0)


def test_levels_that_do_not_exist_are_refused_at_once():
    with pytest.raises(UserError, match=r"reason\.levels: there is no level 99; the world's are 1, 2"):
        check_recipe(load_recipe("world", ["reason.levels=[1, 99]"]), None)


def test_sources_without_a_weight_are_refused_before_hours_of_preparing_them(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    sources = [{"name": "a", "path": str(tmp_path / "a.txt"), "weight": 0.0}]
    with pytest.raises(UserError, match="every source is 0"):
        check_recipe(load_recipe(None, [("data.sources", sources)]), None)
    check_recipe(load_recipe(None, [("data.sources", sources)]), "prepare")
    check_recipe(load_recipe(None, [("data.sources", sources), ("data.world", True)]), None)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_groups_of_one_answer_are_refused_at_once(method):
    with pytest.raises(UserError, match=rf"rlhf\.group_size = 1: {method} compares .* raise rlhf\.group_size"):
        check_recipe(load_recipe("world", [f"rlhf.method={method}", "rlhf.group_size=1"]), None)
    check_recipe(load_recipe("world", ["rlhf.method=ppo", "rlhf.group_size=1"]), None)  # ppo has no groups
    check_recipe(load_recipe("world", ["rlhf.method=dpo", "rlhf.kl_coef=0", "rlhf.kl_target_nats=6"]), None)  # dpo steers no coefficient


def test_practice_in_groups_of_one_answer_is_refused_where_there_is_any(tmp_path):
    with pytest.raises(UserError, match=r"reason\.group_size = 1: GRPO compares .* raise reason\.group_size"):
        check_recipe(load_recipe("world", ["reason.group_size=1"]), None)
    check_recipe(load_recipe("world", ["reason.group_size=1"]), "rlhf")
    check_recipe(load_recipe("text", [f"data.path={tmp_path}", "reason.group_size=1"]), None)  # which ends with the base model


@pytest.mark.parametrize(("settings", "verb", "message"), [
    (["rlhf.sampling.max_new_tokens=256"], "rlhf", r"rlhf\.sampling\.max_new_tokens = 256.* rlhf\.row_tokens = 256"),
    (["prefer.sampling.max_new_tokens=300"], "prefer", r"prefer\.sampling\.max_new_tokens = 300.* prefer\.row_tokens = 256"),
    (["reason.row_tokens=72"], "reason", r"reason\.sampling\.max_new_tokens = 72.* reason\.row_tokens = 72"),
    (["reason.row_tokens=128", "rlhf.sampling.max_new_tokens=128"], "reason", r"rlhf\.sampling\.max_new_tokens = 128.* anchors .* reason\.row_tokens = 128"),
    (["evaluate.sampling.max_new_tokens=512"], "evaluate", r"evaluate\.sampling\.max_new_tokens = 512.* model\.context_tokens = 512"),
    (["rlhf.kl_coef=0", "rlhf.kl_target_nats=6"], "rlhf", r"rlhf\.kl_target_nats = 6\.0 .* rlhf\.kl_coef = 0"),
    (["reward.text_coef=1", "model.tie_embeddings=false"], "reward", r"reward\.text_coef = 1\.0 .* model\.tie_embeddings"),
    (["reason.levels=[]"], "reason", r"reason\.levels is empty"),
    (["reason.levels=[2, 1, 2]"], "reason", r"reason\.levels = \[2, 1, 2\] names a level twice"),
    (["world.num_conversations_curated=1"], "sft", r"world\.num_conversations_curated = 1: sft needs two"),
    (["sft.conversations=noisy", "world.num_conversations_noisy=0"], "sft", r"world\.num_conversations_noisy = 0: sft needs two"),
    (["world.num_prompts=7"], "prefer", r"world\.num_prompts = 7: rlhf needs at least 8"),
    (["rlhf.answers_per_prompt=225"], "rlhf", r"rlhf\.answers_per_prompt = 225 .* rlhf\.rollouts_per_iteration = 224"),
    (["rlhf.method=grpo", "rlhf.group_size=256"], "rlhf", r"rlhf\.group_size = 256 .* rlhf\.rollouts_per_iteration = 224"),
])  # fmt: skip
def test_what_a_late_stage_could_not_work_with_is_refused_before_any_work(settings, verb, message, tmp_path):
    for asked in (None, verb):
        with pytest.raises(UserError, match=message):
            check_recipe(load_recipe("world", settings), asked)
    check_recipe(load_recipe("world", settings), "pretrain")
    check_recipe(load_recipe("text", [f"data.path={tmp_path}", *settings]), None)  # which ends with the base model


@pytest.mark.parametrize("key", ["prefer.audit_frac", "prefer.held_out_frac", "reward.validation_frac"])
def test_splits_with_an_empty_side_are_refused_before_any_work(key, tmp_path):
    for frac in ("0", "1"):
        for verb in (None, key.split(".")[0], "reward"):
            with pytest.raises(UserError, match=rf"{key} = {frac}\.0: reward needs pairs on both sides"):
                check_recipe(load_recipe("world", [f"{key}={frac}"]), verb)
        check_recipe(load_recipe("world", [f"{key}={frac}"]), "sft")
        check_recipe(load_recipe("text", [f"data.path={tmp_path}", f"{key}={frac}"]), None)


@pytest.mark.parametrize(("setting", "message"), [
    ("model.num_heads=4", r"model\.num_heads \(4\) must be a multiple of num_kv_heads \(3\)"), ("model.head_size=63", r"model\.head_size must be even"),
    ("pretrain.batch_tokens=100", r"pretrain\.batch_tokens = 100 is less than one row"), ("sft.micro_batch_rows=7", r"sft\.micro_batch_rows = 7 does"),
    ("pretrain.row_tokens=1024", r"pretrain\.row_tokens = 1024 is more than the model sees, model\.context_tokens = 512"),
    ("reason.row_tokens=1024", r"reason\.row_tokens = 1024 is more"),
    ("model.context_tokens=64", r"^pretrain\.row_tokens = 256, sft\.row_tokens = 256, .*, reason\.row_tokens = 256 are more .* pretrain\.row_tokens and sft"),
])  # fmt: skip
def test_shapes_that_do_not_go_together_are_refused_at_once(setting, message):
    with pytest.raises(UserError, match=message):
        check_recipe(load_recipe("world", [setting]), None)
    check_recipe(load_recipe("world", [setting]), "prepare")  # which has nothing to do with it


@pytest.mark.parametrize(("settings", "verb", "message"), [
    (["from=some/model"], None, r"sft\.replay_frac = 0\.125 trains on pretraining text as well, and with from=some/model there is none"),
    (["from=some/model", "sft.replay_frac=0"], None, r"rlhf\.ptx_coef = 1\.0 trains on pretraining text"),
    (["data.prompts={file}"], None, r"prefer\.raters=world: the world's raters know what is right for its own prompts"),
    (["data.world=false", "data.path={folder}", "data.conversations={file}", "data.prompts={file}"], "prefer", r"set prefer\.raters=people"),
])  # fmt: skip
def test_what_cannot_work_with_what_is_given_is_refused_at_once(tmp_path, settings, verb, message):
    file = tmp_path / "some.jsonl"
    file.write_text('{"prompt": "one", "response": "two"}\n')
    given = [setting.format(file=file, folder=tmp_path) for setting in settings]
    with pytest.raises(UserError, match=message):
        check_recipe(load_recipe("world", given), verb)
    check_recipe(load_recipe("world", [*given, "sft.replay_frac=0", "rlhf.ptx_coef=0", "prefer.raters=people"]), verb)


@pytest.mark.parametrize("name", ["world", "gpu", "multinode", "smoke", "reward-hacking", "reward-hacking-shared"])
def test_shipped_recipes_pass_the_check(name):
    check_recipe(load_recipe(name, ["device=cpu"]), None)


def test_ranks_that_rows_cannot_be_shared_out_over_are_refused_at_once():
    with pytest.raises(UserError, match="cannot be shared out evenly over 3 ranks"):
        check_recipe(load_recipe("world"), None, world_size=3)


def test_starting_from_a_model_needs_no_base(tmp_path):
    recipe = load_recipe(None, ["from=some/model", 'data.conversations=["chats.jsonl"]', "data.preferences=pairs.jsonl"])
    assert [stage.verb for stage in stages_of(recipe)] == ["sft", "prefer", "reward", "rlhf", "evaluate"]
    assert all(item.state == "missing" for item in verdicts(RunFolder(tmp_path), recipe))
