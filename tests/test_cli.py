"""The command line: quick, lazy, and every mistake one message with exit code 2."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fromnoise.cli import main
from fromnoise.pipeline import STAGES
from fromnoise.run.console import Console
from fromnoise.run.folder import RunFolder
from tests.run.toy import patched, toy_run

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def fromnoise(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command, run in this process."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
        raise SystemExit(0)
    out = capsys.readouterr()
    return left.value.code or 0, out.out, out.err


def best_seconds(*command: str) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], env=ENVIRONMENT, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.timed
def test_help_is_quick_and_lists_every_verb(capsys):
    assert best_seconds("-m", "fromnoise", "--help") < 0.5
    code, out, _ = fromnoise(capsys, "--help")
    verbs = [stage.verb for stage in STAGES]
    assert code == 0 and all(f" {verb} " in out for verb in [*verbs, "run", "chat", "report", "ls", "plan"])
    assert [out.index(f" {verb} ") for verb in verbs] == sorted(out.index(f" {verb} ") for verb in verbs)  # in the pipeline's order


def test_version(capsys):
    import fromnoise as package

    assert fromnoise(capsys, "--version") == (0, f"fromnoise {package.__version__}\n", "")


@pytest.mark.timed
def test_importing_the_package_is_quick_and_light():
    assert best_seconds("-c", "import fromnoise") - best_seconds("-c", "pass") < 0.2
    code = "import sys, fromnoise, fromnoise.cli; print([m for m in ('torch', 'numpy', 'pydantic', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_run_can_be_called():
    import fromnoise

    assert callable(fromnoise.run) and fromnoise.run.__name__ == "fromnoise.run"
    from fromnoise.run.errors import UserError

    with pytest.raises(UserError, match="no recipe called"):
        fromnoise.run("no-such-recipe")
    with pytest.raises(UserError, match=r"sft\.epochz"):
        fromnoise.run("smoke", sft={"epochz": 1})
    with pytest.raises(UserError, match="no model here"):
        fromnoise.load("/nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "wrld"], "Did you mean 'world'?"),
        (["run", "world", "pretrain.tokns=3"], "Did you mean 'pretrain.tokens'?"),
        (["run", "world", "smoke"], "one recipe at a time"),
        (["run", "smoke", "run_dir=x"], "an option, --run-dir"),
        (["run", "world", "model.num_heads=4"], "model.num_heads (4) must be a multiple of num_kv_heads (3)"),
        (["run", "world", "--dry-run", "--run-dir", "/dev/null"], "a run is a folder"),
        (["run", "smoke", "--dry-run", "pretrain.row_tokens=8"], "pretrain.row_tokens = 8"),
        (["run", "text"], "give data.path="),
        (["run", "~nobody-of-that-name/x"], "no recipe called '~nobody-of-that-name/x'"),
        (["run", "from=~nobody-of-that-name/x", "data.path=."], "from = ~nobody-of-that-name/x: no model folder there"),
        (["run", "world", "budget=$100"], "money"),
        (["run", "world", "budget=1e18flops"], "FLOPs"),
        (["run", "world", "data.conversations=/nowhere.jsonl"], "no such file"),
        (["run", "world", "--name", "a", "--run-dir", "b"], "give one of them"),
        (["run", "world", "--name", "../a"], 'name = "../a": must name a folder below runs/'),
        (["sft", "world"], "prepare"),
        (["pretrain", "hub"], "nothing to do here"),
        (["report", "nowhere"], "not a run folder"),
        (["chat", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_one_message(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = fromnoise(capsys, *arguments)
    assert code == 2 and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []  # nothing was made on the way


def written_to(output, folder: Path, command: str, unbuffered: str, errors=subprocess.PIPE) -> subprocess.CompletedProcess:
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run([sys.executable, "-m", "fromnoise", *command.split()], env=environment, cwd=folder, stdout=output, stderr=errors, text=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # the full disk shows at the end, or at the first line
@pytest.mark.parametrize("command", ["ls", "--version", "--help"])
def test_output_that_cannot_be_written_is_one_message(tmp_path, command, unbuffered):
    with open("/dev/full", "w") as full:
        done = written_to(full, tmp_path, command, unbuffered)
    assert (done.returncode, done.stderr) == (2, "fromnoise: the output cannot be written (No space left on device); free some space, or write elsewhere\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
@pytest.mark.parametrize(("verb", "named"), [(("prepare", "smoke", "--run-dir"), "recipe.toml"), (("report",), "report.html")])
def test_a_disk_that_is_full_before_anything_is_made_is_named(capsys, tmp_path, verb, named):
    """'The output cannot be written' was said of a run's own files, and 'make it writable' of a report."""
    (tmp_path / "recipe.toml").write_text("")
    (tmp_path / f".{named}.tmp-{os.getpid()}").symlink_to("/dev/full")
    code, _, err = fromnoise(capsys, *verb, str(tmp_path))
    assert code == 2 and err.startswith(f"fromnoise: {tmp_path / named} cannot be written (No space left on device); free some space")


def test_output_that_nobody_reads_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done, run = (written_to(writing, tmp_path, command, unbuffered="") for command in ("ls", "prepare smoke"))
    both = written_to(writing, tmp_path, "prepare smoke", unbuffered="", errors=writing)  # `2>&1 | head`
    first, neither = (written_to(writing, tmp_path, "ls", unbuffered="1", errors=errors) for errors in (subprocess.PIPE, writing))  # at the first line
    os.close(writing)
    assert (done.returncode, done.stderr) == (first.returncode, first.stderr) == (0, "") and neither.returncode == 0
    # but of a run, which it stops: it ended with 1 and without a word
    assert (run.returncode, run.stderr) == (130, "fromnoise: stopped: nobody reads the output any more. Go on with: fromnoise prepare runs/smoke\n")
    assert both.returncode == 130


@pytest.mark.parametrize("term", ["closed", "dumb", "xterm"])
def test_progress_is_shown_as_far_as_the_output_can(monkeypatch, term):
    """Lines where no bar can be drawn; nothing, and no error, where Python has no output at all (`>&-`)."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    output = None if term == "closed" else Terminal()
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("fromnoise.run.console.LINE_EVERY_S", 0.0)
    console = Console()
    with console.progress("stage", 10, "step") as progress:
        progress.advance(3)
    assert output is None or ("stage: 3/10 steps" in output.getvalue()) == (term == "dumb")


def test_cuda_is_there_or_plainly_refused(capsys, tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    monkeypatch.chdir(tmp_path)
    code, _, err = fromnoise(capsys, "run", "world", "device=cuda")
    assert code == 2 and "device=cuda" in err and "device=cpu" in err


def test_dry_run_prints_verdicts_and_touches_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = fromnoise(capsys, "run", "smoke", "--dry-run")
    assert code == 0 and out.count("missing") == len(STAGES) and list(tmp_path.iterdir()) == []


def test_ls_and_a_finished_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no runs" in fromnoise(capsys, "ls")[1]
    toy_run(tmp_path / "runs/one")
    first, second = patched()
    with first, second:
        assert fromnoise(capsys, "ls")[1].strip() == "one  make done  learn done"
        assert fromnoise(capsys, "ls", "runs/one")[1].strip() == "one  make done  learn done"  # the folder of a run holds no runs
        code, out, _ = fromnoise(capsys, "run", "runs/one", "--dry-run", "sft.epochs=9")
        assert code == 0 and "stale    sft.epochs 2.0 -> 9.0" in out
        code, _, err = fromnoise(capsys, "run", "runs/one", "sft.epochs=9")
        assert code == 2 and "--rerun" in err and "sft.epochs 2.0 -> 9.0" in err


def test_a_folder_without_a_file_that_is_read_is_refused_before_the_run(capsys, tmp_path, monkeypatch):
    """Conversations are wanted an hour after the text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("The ferry left at noon.\n")
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks/talks.xlsx").write_text("")
    for path, message in (("talks", "talks holds none of txt"), ("talks/talks.xlsx", "is of no kind that is read here")):
        code, _, err = fromnoise(capsys, "run", "text", "--dry-run", "data.path=a.txt", f"data.conversations={path}")
        assert code == 2 and "data.conversations: " in err and message in err, err


def test_a_recipe_that_may_not_be_read_is_one_message(capsys, tmp_path, monkeypatch):
    """Another user's, on a machine that several share; `ls` goes on to the next."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "theirs"):
        toy_run(tmp_path / "runs" / name)
    read = Path.read_text

    def refuse(path, *args, **settings):
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **settings)

    monkeypatch.setattr(Path, "read_text", refuse)
    code, out, _ = fromnoise(capsys, "ls")
    assert code == 0 and re.search(r"^mine .*\ntheirs .*cannot be read: .*recipe\.toml.*Permission denied", out), out
    code, _, err = fromnoise(capsys, "run", "runs/theirs")
    assert code == 2 and "recipe.toml cannot be read (Permission denied)" in err


def test_ls_shows_a_name_without_doing_what_it_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a\x1b[2J", "b\nc\td", "plain"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.toml").write_text("nothing = 1\n")
    out = fromnoise(capsys, "ls")[1]
    assert [line.partition("  ")[0] for line in out.splitlines()] == ["a\u241b[2J", "b\u240ac\u2409d", "plain"] and "\x1b" not in out


def test_commands_to_copy_hold_the_path_as_a_shell_reads_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fromnoise.run.execute.execute", lambda *arguments, **options: None)
    monkeypatch.setattr("fromnoise.run.execute.make_report", lambda run, console: run.path / "report.html")
    folder = str(tmp_path / "my run; it's")
    lines = fromnoise(capsys, "run", "smoke", "--run-dir", folder)[1].splitlines()
    commands = [shlex.split(line.partition(":")[2]) for line in lines if "fromnoise chat" in line]
    assert commands == [["fromnoise", "chat", folder], ["fromnoise", "chat", folder, "--compare"]]
    out = fromnoise(capsys, "run", "from=some/model", "data.path=texts", "--run-dir", folder)[1]  # measured by itself: the run holds no model
    assert "fromnoise chat" not in out and "report.html" in out


def test_a_setting_longer_than_a_file_name_can_be_is_a_setting(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("The ferry left at noon.\n")
    probes = [f"The cat number {n} sat on the" for n in range(20)]
    code, out, err = fromnoise(capsys, "run", "smoke", "--dry-run", f"pretrain.probes={json.dumps(probes)}")
    assert (code, err) == (0, "") and "pretrain" in out


def test_plan_of_a_run_from_a_model_speaks_of_that_model(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fromnoise.cli._print_machine", lambda recipe: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": "Hello?", "response": "Hi."}) + "\n")
    settings = ["data.conversations=chats.jsonl"]
    out = fromnoise(capsys, "plan", "from=owner/name", *settings)[1]
    assert "model: from owner/name\n" in out and "layers" not in out and "pretraining" not in out
    assert "pretrain" not in fromnoise(capsys, "plan", "from=owner/name", "budget=10m", *settings)[1]
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 24,
              "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    out = fromnoise(capsys, "plan", "from=model", *settings)[1]
    assert re.search(r"model: from .*model, about 7,632 parameters", out), out
    for damaged in ("{", "[]"):
        (tmp_path / "model" / "config.json").write_text(damaged)
        code, _, err = fromnoise(capsys, "plan", "from=model", *settings)
        assert code == 2 and "model/config.json: " in err, err


def test_a_run_folder_in_ones_home_is_not_a_folder_called_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder("~/runs/short").path == tmp_path / "runs" / "short"


def test_plan_knows_the_machine(capsys):
    code, out, _ = fromnoise(capsys, "plan", "--machine", "compile=off")
    assert code == 0 and "GFLOP/s" in out and "dtype" in out


def test_plan_says_where_a_run_of_ones_own_text_ends(monkeypatch, capsys, tmp_path):
    """And of one stage alone not how a budget's shares are divided."""
    monkeypatch.setattr("fromnoise.cli._print_machine", lambda recipe: None)
    (tmp_path / "a.txt").write_text("The ferry left at noon.")
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": "Hello?", "response": "Hi."}))
    given = ["plan", "text", f"data.path={tmp_path / 'a.txt'}", "budget=30m"]
    code, out, _ = fromnoise(capsys, *given)
    assert code == 0 and "the run ends with base/: to go on, give data.conversations=FILE" in out and "each takes its share" not in out
    _, out, _ = fromnoise(capsys, *given, f"data.conversations={tmp_path / 'chats.jsonl'}")
    assert "the run ends with sft/: to go on, give data.preferences=FILE" in out and "each takes its share" in out
    _, out, _ = fromnoise(capsys, "plan", f"from={tmp_path}", f"data={tmp_path}")
    assert "the run ends" not in out and "evaluate   missing" in out


def test_quiet_and_plain_output_is_clean(capsys, tmp_path):
    toy_run(tmp_path / "one", console=Console(quiet=True))
    assert capsys.readouterr().out == ""
    toy_run(tmp_path / "two", console=Console())
    out = capsys.readouterr().out
    assert "\x1b" not in out and "learn: done in" in out and len(out.splitlines()) < 10


def test_the_time_left_is_whole_in_80_columns(monkeypatch):
    """All columns were cut alike, the time to 0:0… too; now what is shown last is."""
    from rich.console import Console

    from fromnoise.run.console import _bar, describe

    bar = _bar()
    shown = describe({"loss": 6.927, "tokens_per_s": 11240.0, "mfu": 0.4143})
    bar.add_task("pretrain", total=1660, completed=1000, rate="1.096 step/s", shown=shown)
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(bar.make_tasks_table(bar.tasks))
    (line,) = captured.get().splitlines()
    assert "pretrain" in line and " 1000/1660 1.096 step/s -:--:-- loss 6.927" in line and len(line) <= 80
