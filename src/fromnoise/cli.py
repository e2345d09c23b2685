"""The command line: `fromnoise VERB [RECIPE] [key.sub=value ...]`. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import io
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from fromnoise.pipeline import STAGES, Stage
from fromnoise.run.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted, UserError, Waiting, is_disk_full

if TYPE_CHECKING:
    from fromnoise.run.folder import RunFolder
    from fromnoise.run.recipe import Recipe

app = typer.Typer(
    name="fromnoise",
    help="From random noise to a chat model: every stage of the pipeline, one verb each, and `run` for all of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from fromnoise import __version__

        print(f"fromnoise {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and stop.")] = False) -> None:
    """Before any verb."""


Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY.SUB=VALUE]...",
        help="A shipped recipe's name, a .toml file, or a run folder (its settings); then settings to change, as pretrain.tokens=1_000_000.",
        show_default=False,
    ),
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="The run's folder.", show_default="runs/NAME")]
Name = Annotated[str | None, typer.Option("--name", help="The run's name below runs/.", show_default="the recipe's")]
Rerun = Annotated[bool, typer.Option("--rerun", help="Make what is stale again; the old folders are moved aside, not removed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the verdict for each stage: done, stale (and why), partial, waiting, missing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and the result.")]
Different = Annotated[bool, typer.Option("--allow-different-numerics", help="Go on with another thread count, torch or dtype; the bytes will differ.")]


@app.command("run", rich_help_panel="The whole pipeline")
def run_command(
    arguments: Arguments = None, run_dir: RunDir = None, name: Name = None, rerun: Rerun = False, dry_run: DryRun = False,
    quiet: Quiet = False, allow_different_numerics: Different = False,
) -> None:  # fmt: skip
    """Every stage, from noise to reasoning, and the report; goes on with whatever is missing."""
    recipe, run = _open(arguments, run_dir, name)
    if dry_run:
        return _print_verdicts(recipe, run)
    _execute(recipe, run, None, rerun, quiet, allow_different_numerics)


def _add_stage(stage: Stage) -> None:
    """One verb of the pipeline as a command."""

    def command(
        arguments: Arguments = None, run_dir: RunDir = None, name: Name = None, rerun: Rerun = False, dry_run: DryRun = False,
        quiet: Quiet = False, allow_different_numerics: Different = False,
    ) -> None:  # fmt: skip
        recipe, run = _open(arguments, run_dir, name, stage.verb)
        if dry_run:
            return _print_verdicts(recipe, run, stage.verb)
        _execute(recipe, run, stage.verb, rerun, quiet, allow_different_numerics)

    summary = stage.summary[:1].upper() + stage.summary[1:]
    app.command(stage.verb, help=f"{summary}.", short_help=summary, rich_help_panel="One stage")(command)


for _stage in STAGES:
    _add_stage(_stage)


@app.command("report", rich_help_panel="Look at a run")
def report_command(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")] = Path("runs/world"), quiet: Quiet = False) -> None:
    """Write a run's report, one self-contained report.html."""
    from fromnoise.run.console import Console
    from fromnoise.run.execute import make_report
    from fromnoise.run.folder import RunFolder

    _need_run(run_folder)
    path = make_report(RunFolder(run_folder), Console(quiet=True))
    if not quiet:
        print(path)


@app.command("chat", rich_help_panel="Look at a run")
def chat_command(
    target: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a model folder.")] = Path("runs/world"),
    stage: Annotated[str | None, typer.Option(help="Which model of the run: base, sft, rlhf or reason.", show_default="the latest")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="All of the run's models side by side.")] = False,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that hold this much probability.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1, words of the conversation and of the answer are less likely to come again.")] = 1.0,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.", show_default="a quarter of the context")] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Talk to a model in the terminal."""
    from fromnoise.run.machine import prepare_environment

    prepare_environment()
    from fromnoise.stages.chat import run

    sampling = {"temperature": temperature, "top_p": top_p, "repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens}
    run(target, stage=stage, compare=compare, seed=seed, **sampling)


@app.command("label", rich_help_panel="Look at a run")
def label_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose answers have been sampled by prefer.")] = Path("runs/world"),
    host: Annotated[str, typer.Option(help="Address to listen on. Beyond this machine (0.0.0.0) every rater needs their own link.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535)] = 8700,
    rater: Annotated[list[str] | None, typer.Option("--rater", metavar="NAME", help="Who may vote; repeat it for more.", show_default="anybody")] = None,
    order: Annotated[str, typer.Option(help="Next pair: unsure (where the reward model's scores are closest), random, or auto.")] = "auto",
    reward: Annotated[Path | None, typer.Option(help="The reward model for `unsure`.", show_default="RUN/reward")] = None,
    repeat_frac: Annotated[float, typer.Option(help="Pairs shown to their rater again, for each new one.", min=0, max=1)] = 0.1,
    shared_frac: Annotated[float, typer.Option(help="Share of the pairs that several raters judge.", min=0, max=1)] = 0.2,
    raters_per_shared_pair: Annotated[int, typer.Option(min=1)] = 2,
    public_name: Annotated[list[str] | None, typer.Option("--public-name", metavar="HOST", help="A name this server is reached under; repeat it.")] = None,
    export: Annotated[Path | None, typer.Option("--export", help="Write the votes as chosen/rejected jsonl, and stop.")] = None,
    import_file: Annotated[Path | None, typer.Option("--import", help="Take the votes of a file, and stop.")] = None,
    agreement: Annotated[bool, typer.Option("--agreement", help="How far raters agree with themselves and each other, and stop.")] = False,
) -> None:  # fmt: skip
    """Serve a page where people compare two answers; export and import their votes."""
    from fromnoise.stages import label

    _need_run(run_folder)
    if export or import_file or agreement:
        label.without_page(run_folder, import_file=import_file, export=export, measure=agreement)
        return
    options = label.Options(host, port, tuple(rater or ()), order, reward, repeat_frac, shared_frac, raters_per_shared_pair, tuple(public_name or ()))
    label.run(run_folder, options)


@app.command("ls", rich_help_panel="Look at a run")
def ls_command(folder: Annotated[Path, typer.Argument(help="The folder that holds the runs, or one of them.")] = Path("runs")) -> None:
    """The runs there are, and the state of each one's stages."""
    from fromnoise.evaluate.text import visible
    from fromnoise.run.folder import RunFolder
    from fromnoise.run.recipe_load import load_recipe
    from fromnoise.run.verdict import verdicts

    runs = [folder.resolve()] if (folder / "recipe.toml").is_file() else sorted(path.parent for path in folder.glob("*/recipe.toml"))
    if not runs:
        print(f"no runs in {folder}/; `fromnoise run` makes the first one")
    width = max((len(path.name) for path in runs), default=0)
    for path in runs:
        try:
            states = "  ".join(f"{item.stage.verb} {item.state}" for item in verdicts(RunFolder(path), load_recipe(path)))
        except UserError as error:
            states = f"cannot be read: {str(error).splitlines()[0]}"
        print(visible(f"{path.name:<{width}}  {states}").replace("\n", "\u240a").replace("\t", "\u2409"))  # a folder's name may hold anything: one line a run


@app.command("plan", rich_help_panel="The whole pipeline")
def plan_command(
    arguments: Arguments = None, run_dir: RunDir = None, name: Name = None,
    machine: Annotated[bool, typer.Option("--machine", help="Only measure this machine: matrix products, memory, compiling, and what follows.")] = False,
) -> None:  # fmt: skip
    """What a run would do, before it does it: the state of each stage, sizes and this machine's speed."""
    recipe, run = _open(arguments, run_dir, name)
    _print_machine(recipe)
    if not machine:
        _print_sizes(recipe)
        _print_verdicts(recipe, run)
        _print_end(recipe)


def _open(arguments: list[str] | None, run_dir: Path | None, name: str | None, verb: str | None = None) -> tuple[Recipe, RunFolder]:
    """The resolved recipe and the run folder that the arguments speak of."""
    from fromnoise.api import default_folder
    from fromnoise.run.folder import RunFolder
    from fromnoise.run.recipe_load import load_recipe

    words, overrides = [], []
    for argument in arguments or []:
        (overrides if "=" in argument and not os.path.exists(argument) else words).append(argument)
    if len(words) > 1:
        raise UserError(f"one recipe at a time: got {' and '.join(words)}; settings are written key.sub=value")
    own_data = any(override.split("=")[0].split(".")[0] in ("data", "from") for override in overrides)
    chosen = words[0] if words else None if own_data else "world"
    if run_dir is not None and name is not None:
        raise UserError("--run-dir and --name both say where the run goes; give one of them")
    if name is not None:
        run_dir, overrides = default_folder(None, name), [*overrides, ("name", name)]
    recipe = load_recipe(chosen, overrides, verb)
    return recipe, RunFolder(run_dir or default_folder(chosen, recipe.name))


def _execute(recipe: Recipe, run: RunFolder, verb: str | None, rerun: bool, quiet: bool, allow_different_numerics: bool) -> None:
    from fromnoise.parallel.process import Process
    from fromnoise.run.console import Console
    from fromnoise.run.execute import execute, make_report
    from fromnoise.run.machine import prepare_environment
    from fromnoise.run.verdict import evaluates_alone

    prepare_environment()
    console, process = Console(quiet), Process.from_environment()
    execute(recipe, run, verb, rerun=rerun, allow_different_numerics=allow_different_numerics, console=console, process=process)
    if verb is None and process.is_main:
        report = make_report(run, console)
        _print_end(recipe, before="\n")
        chat = f"fromnoise chat {shlex.quote(str(run.path))}"
        talk = "" if evaluates_alone(recipe) else f"talk to it:       {chat}\nside by side:     {chat} --compare\n"  # else the run holds no model
        print(f"\n{talk}read the report:  {report}")
    process.leave()


def _print_end(recipe: Recipe, before: str = "") -> None:
    """Where a run of the user's own data ends for want of more of it, and what to give."""
    from fromnoise.run.verdict import evaluates_alone, missing_data, stages_of

    if (missing := missing_data(recipe)) and not evaluates_alone(recipe):
        print(f"{before}the run ends with {stages_of(recipe)[-1].writes[0]}/: to go on, give {missing}")


def _print_verdicts(recipe: Recipe, run: RunFolder, verb: str | None = None) -> None:
    from fromnoise.run.execute import check_recipe
    from fromnoise.run.verdict import verdicts

    check_recipe(recipe, verb)
    print(f"{run.path}{'' if run.path.exists() else ' (new)'}")
    for item in verdicts(run, recipe):
        if verb in (None, item.stage.verb):
            print(f"  {item}")


def _print_machine(recipe: Recipe) -> None:
    from fromnoise.planner.machine import describe

    for line in describe(recipe):
        print(line, flush=True)


def _print_sizes(recipe: Recipe) -> None:
    from fromnoise.run.budget import SHARES, num_parameters, share_s
    from fromnoise.run.console import duration

    total = num_parameters(recipe)
    shape = recipe.model
    if recipe.sft_from is not None:
        print(f"model: from {recipe.sft_from}" + (f", about {total:,} parameters" if total else ""))
    else:
        print(f"model: about {total:,} parameters, {shape.num_layers} layers x {shape.width}")
        if recipe.budget is None:
            print(f"pretraining: {recipe.pretrain.tokens:,} tokens at most, {recipe.pretrain.tokens / total:.1f} a parameter")
    if recipe.budget is not None:
        shares = {verb: seconds for verb in SHARES if (seconds := share_s(recipe, verb)) is not None}
        print("time: " + ", ".join(f"{verb} {duration(seconds)}" for verb, seconds in shares.items()))
        if len(shares) > 1:
            print("each takes its share of what is left when it begins; a budget adds no passes over conversations or pairs"
                  + ("" if recipe.sft_from else ", and half of what\nlater stages leave of theirs goes to pretrain"))  # fmt: skip


def _need_run(folder: Path) -> None:
    if not (folder / "recipe.toml").is_file():
        raise UserError(f"{folder}: not a run folder (no recipe.toml); `fromnoise ls` lists the runs")


def _run_verb(arguments: list[str] | None) -> Any:
    """The verb, and all that it printed on its way out: a full disk or a closed pipe shows here, not when Python ends."""
    try:
        return app(args=arguments)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # met while it was printing, where typer ends with 1
            raise end.__context__ from None
        if sys.stdout is not None:
            sys.stdout.flush()
        raise


def _give_up(stream: TextIO) -> None:
    """Close what cannot be written: Python would try once more at its end, complain, and exit with 120."""
    with suppress(OSError):
        stream.close()


def _say(message: object) -> None:
    """On stderr, which nobody reads either in `fromnoise run 2>&1 | head`."""
    try:
        print(f"fromnoise: {message}", file=sys.stderr)
    except BrokenPipeError:
        _give_up(sys.stderr)


def main(arguments: list[str] | None = None) -> Any:
    """The console script. Exit codes: 0 done or waiting for people, 2 something to mend (one message), 130 stopped by Ctrl-C, SIGTERM or a closed pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text in the terminal's encoding
    try:
        return _run_verb(arguments)
    except UserError as error:
        _say(error)
        raise SystemExit(EXIT_USER_ERROR) from None
    except Waiting as wait:
        print(wait)
        raise SystemExit(0) from None
    except Interrupted as stop:
        _say(stop)
        if isinstance(stop.__context__, BrokenPipeError):
            _give_up(sys.stdout)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # `fromnoise ls | head`
        _give_up(sys.stderr)
        _give_up(sys.stdout)
        raise SystemExit(0) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        what = error.filename or "the output"
        _say(f"{what} cannot be written ({error.strerror or error}); free some space, or write elsewhere")
        if not error.filename:
            _give_up(sys.stdout)
        raise SystemExit(EXIT_USER_ERROR) from None
