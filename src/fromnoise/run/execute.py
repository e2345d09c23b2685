"""Carry a recipe out: for each stage its verdict, then skip, resume, or run it. Stage modules are imported by name, late."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fromnoise.parallel.process import Process
from fromnoise.pipeline import Stage
from fromnoise.run.budget import expected_s, parse_budget
from fromnoise.run.console import Console, describe, duration
from fromnoise.run.context import StageContext
from fromnoise.run.errors import Interrupted, UserError, Waiting, is_disk_full, is_out_of_memory
from fromnoise.run.files import write_atomic
from fromnoise.run.folder import RunFolder, environment, stage_of
from fromnoise.run.interrupts import Interrupts, ended_by_ctrl_c
from fromnoise.run.machine import COMPILE_PAYS_S, prepare_environment, release_memory, resolve_device
from fromnoise.run.recipe import Recipe
from fromnoise.run.recipe_check import check_learnable, check_shapes
from fromnoise.run.recipe_load import load_recipe, to_toml
from fromnoise.run.verdict import (
    Verdict,
    check_user_files,
    config_changes,
    config_of,
    evaluates_alone,
    has_documents,
    input_changes,
    inputs_of,
    missing_data,
    reads,
    required,
    stages_of,
    stages_of_run,
    verdict,
    verdicts,
)
from fromnoise.tasks.problems import BY_NUMBER


def execute(
    recipe: Recipe,
    run: RunFolder,
    verb: str | None = None,
    *,
    rerun: bool = False,
    allow_different_numerics: bool = False,
    console: Console | None = None,
    process: Process | None = None,
) -> None:
    """Make everything the recipe says, or one stage when `verb` is given, in the run's folder.

    Done stages are skipped, cut-off ones go on. A stale one stops everything before anything is touched, unless
    `rerun`, which moves its folder aside; with a single `verb`, `rerun` makes that stage again even when it is done.
    Raises UserError, Interrupted with how to go on, or Waiting with what people have to do first.
    """
    prepare_environment()
    console, process = console or Console(), process or Process.from_environment()
    check_recipe(recipe, verb, process.world_size)
    process.barrier()  # a rank that refuses, where a file is missing say, ends the others now, not behind the stages that the main one does alone
    if not process.is_main:
        return follow(recipe, run, process, allow_different_numerics)
    refuse_taking_over(recipe, run)
    if verb is not None:
        refuse_elsewhere(recipe, run, verb)
        required(run, recipe, verb, verdicts(run, recipe))  # before a folder is made for nothing
    run.create()
    with run.lock():
        found = verdicts(run, recipe)
        todo = [item for item in found if verb in (None, item.stage.verb)]
        if not rerun:
            refuse_stale(todo, run)
        if verb is None or rerun or any(item.state != "done" for item in todo) or not (run.path / "recipe.toml").exists():
            write_atomic(run.path / "recipe.toml", to_toml(recipe))  # a verb that has nothing to do changes nothing
        made_here = any(item.state != "done" or rerun for item in todo if item.stage.verb not in LOOK_ON)
        run.write_info(name=run.path.name, seed=recipe.seed, waiting=None, **(environment() if made_here or not run.read_info() else {}))
        warming = start_warming(recipe, todo)
        again = how_to_go_on(run, verb, rerun, process.world_size)
        earlier: list[Verdict] = []
        try:
            with Interrupts(console.warn) as interrupts:
                for item in found:
                    now = verdict(run, recipe, item.stage, earlier)
                    if verb in (None, item.stage.verb):
                        if warming is not None and needs_torch(item.stage):
                            warming.wait()  # measured beside a compiler, the machine seemed half as fast, and utilisation to be above 1
                        now = bring_up_to_date(now, recipe, run, process, console, interrupts, rerun, verb is not None, allow_different_numerics)
                    earlier.append(now)
        except (Interrupted, KeyboardInterrupt, BrokenPipeError) as stop:
            raise Interrupted(f"{why_stopped(stop)}. Go on with: {again}") from None
        except Waiting as wait:
            run.write_info(waiting=str(wait))
            raise Waiting(f"waiting: {wait}\n  label them:   {wait.how}\n  then go on:   {again}") from None
        finally:
            if len(earlier) == len(found) or found[len(earlier)].stage.verb not in DISTRIBUTED:  # in its middle the others wait for no verb: they end with us
                with suppress(UserError):  # nobody waits on a rank that has ended, and its end must not stand where this one's news belongs
                    process.broadcast(None)
            run.hashes.save()
            if warming is not None:
                warming.poll()  # long done; else it ends by itself


def how_to_go_on(run: RunFolder, verb: str | None, rerun: bool, world_size: int) -> str:
    """The command. Stages further on may still be stale: without --rerun the run would be refused where it was left. How many ranks there are is
    part of the numerics."""
    launcher = "torchrun ... -m " if world_size > 1 else ""
    return f"{launcher}fromnoise {verb or 'run'} {shlex.quote(str(run.path))}" + (" --rerun" if rerun else "")


def why_stopped(stop: BaseException) -> str:
    """`fromnoise run | head` is no error of its own, but the run is not at its end."""
    return "stopped: nobody reads the output any more" if isinstance(stop, BrokenPipeError) else str(stop) or "Ctrl-C"


LOOK_ON = ("evaluate", "report")  # they make no model: where they ran is not where the run was made
FAST_CPU_FLOPS = 1e12  # where compiling pays even at this rate, it will


def start_warming(recipe: Recipe, todo: list[Verdict]) -> subprocess.Popen | None:
    """While `prepare` leaves a core idle, another process builds what a machine's first compilation begins with: 10 of the 34 s
    before pretraining's first step on two cores. It writes to the compile cache alone, under the compiler's own lock, where pretrain waits for it."""
    missing = {item.stage.verb for item in todo if item.state == "missing"}
    pays = recipe.compile == "on" or expected_s(recipe, "pretrain", FAST_CPU_FLOPS) >= COMPILE_PAYS_S
    if recipe.compile == "off" or not pays or not {"prepare", "pretrain"} <= missing:
        return None
    call = f"from fromnoise.run.machine import warm_up_compiler; warm_up_compiler({recipe.device!r})"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", call], start_new_session=True, **quiet)  # a Ctrl-C must not tear what it writes


# Stages whose work is shared out over the ranks; the main rank does the others alone while the rest wait.
DISTRIBUTED = ("pretrain", "sft")


def bring_up_to_date(
    item: Verdict, recipe: Recipe, run: RunFolder, process: Process, console: Console, interrupts: Interrupts,
    rerun: bool, single: bool, allow_different_numerics: bool,
) -> Verdict:  # fmt: skip
    """Skip, resume or make one stage; its verdict afterwards."""
    stage = item.stage
    if item.state == "done" and not (rerun and single):
        run.clean_up(stage)
        run.write_lineage(stage, run.record(stage))
        console.line(f"{stage.verb}: done already")
        return item
    interrupts.stop_before(stage.verb)
    if item.state in ("stale", "done"):
        if not rerun:
            refuse_stale([item], run)
        for old, new in run.move_aside(stage):
            console.line(f"{stage.verb}: {run.path / old} moved to {run.path / new}")
    if stage.verb in DISTRIBUTED:
        process.broadcast(stage.verb)
    else:
        process = Process.single()
    run_stage(stage, recipe, run, process, console, interrupts, allow_different_numerics)
    return Verdict(stage, "done")


def run_stage(
    stage: Stage, recipe: Recipe, run: RunFolder, process: Process, console: Console, interrupts: Interrupts, allow_different_numerics: bool
) -> None:  # fmt: skip
    """One stage from its begin, or from its latest checkpoint, to its end."""
    if process.is_main:
        run.check_tokenizers({name: run.stage_dir(name) for name in reads(recipe, stage)})
        console.line(f"{stage.verb}: {stage.summary}")
    inputs, config = inputs_of(run, recipe, stage), config_of(recipe, stage)
    check_same_work(process, config, inputs)
    ctx = None
    try:
        ctx = StageContext(
            stage, recipe, run, inputs=inputs, config=config, process=process, console=console,
            interrupts=interrupts, allow_different_numerics=allow_different_numerics,
        )  # fmt: skip
        if needs_torch(stage):
            say_choices(ctx)  # first of all, for `ctx.machine` sets threads and determinism before the stage's first tensor
        importlib.import_module(stage.module).run(ctx)
    except Waiting as wait:
        ctx.wait(str(wait))
        raise
    except UserError:
        if ctx is not None:
            ctx.withdraw()
        raise
    except Exception as error:
        if is_disk_full(error):
            raise UserError(f"the disk is full ({run.path}): {stage.verb} stopped, nothing is damaged. Free some space and start again: it goes on") from None
        if is_out_of_memory(error):
            if ctx is not None:
                ctx.withdraw()
            raise UserError(out_of_memory(recipe, stage.verb, error)) from None
        raise
    finally:
        interrupts.reset()
        release_memory()
    if not ctx.finished:
        raise RuntimeError(f"{stage.module}.run returned without ctx.finish(...)")
    if process.is_main:
        console.line(f"{stage.verb}: {summary_line(ctx.record)}")


def out_of_memory(recipe: Recipe, verb: str, error: BaseException) -> str:
    section = getattr(recipe, verb, None)
    smaller = [f"{verb}.{name} = {getattr(section, name)}" for name in ("micro_batch_rows", "batch_prompts", "row_tokens") if hasattr(section, name)]
    lower = f"Lower {', '.join(smaller)}, or take" if smaller else "Take"
    detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{verb} needs more memory than there is ({detail}); what was saved is not damaged. {lower} a smaller model or a machine with more memory"


def say_choices(ctx: StageContext) -> None:
    """Decide what the stage computes with, and tell it: once a run, and again where it becomes something else."""
    chosen = ctx.machine
    if ctx.process.is_main:
        info = ctx.run.read_info()
        choices = importlib.import_module("fromnoise.planner.machine").stage_choices(ctx.recipe, ctx.stage.verb, chosen, info["machine"])
        if info.get("choices") != choices:
            ctx.run.write_info(choices=choices)
            ctx.info(choices)


def follow(recipe: Recipe, run: RunFolder, process: Process, allow_different_numerics: bool) -> None:
    """What the ranks beside the main one do: run each stage it names, until it names none. They save nothing, so that they end at once when asked to."""
    with ended_by_ctrl_c():
        while (verb := process.broadcast(None)) is not None:
            run_stage(stage_of(verb), recipe, run, process, Console(quiet=True), Interrupts(), allow_different_numerics)


def check_same_work(process: Process, config: dict[str, Any], inputs: dict[str, str]) -> None:
    """UserError on a rank that has other settings or reads other files than the main one: its gradients would be of something else, unseen."""
    main = process.broadcast({"config": config, "inputs": inputs})
    if changes := config_changes(main, config) + input_changes(main, inputs):
        raise UserError(
            f"rank {process.rank} was not started with what rank 0 was: {'; '.join(changes)}. All ranks need the same recipe and the same files, "
            f"the run's folder among them, on a file system that they share"
        )


def needs_torch(stage: Stage) -> bool:
    """All stages but those that come before any model: they would only wait for torch to load."""
    return not set(stage.reads) <= {"prepare"}


def check_recipe(recipe: Recipe, verb: str | None, world_size: int = 1) -> None:
    """What types cannot say: raises UserError before any work is done."""
    if recipe.budget is not None:
        parse_budget(recipe.budget)
    if not has_documents(recipe) and (verb in ("prepare", "tokenizer", "pretrain") or (verb is None and recipe.sft_from is None)):
        raise UserError(f"recipe {recipe.name!r} has no text to train on: give data.path=FOLDER (txt, md, html, jsonl, csv, parquet), or data.world=true")
    stages = {stage.verb for stage in stages_of(recipe)}
    if not stages or (verb is not None and verb not in stages):
        if verb == "evaluate" and evaluates_alone(recipe):
            raise UserError(
                f"evaluate has nothing to measure {recipe.sft_from} on: give data.path=FOLDER (texts), reason.problems=FILE (questions and answers) or, "
                f"for a reward model, evaluate.reward_sets=FILE (pairs)"
            )
        made_already = verb in ("prepare", "tokenizer", "pretrain") and recipe.sft_from is not None
        if (missing := missing_data(recipe)) and not made_already:
            raise UserError(f"recipe {recipe.name!r} has no data for {verb or 'any stage'}: give {missing}, or data.world=true")
        if verb == "reason":
            raise UserError("reason has no problems to practise on: give reason.problems=FILE (question and answer records), or data.world=true")
        raise UserError(f"{verb} has nothing to do here: with from={recipe.sft_from} the model and its tokenizer are made already")
    weighed = recipe.data.world or recipe.data.path is not None or any(source.weight for source in recipe.data.sources)
    if verb in (None, "pretrain") and "pretrain" in stages and not weighed:
        raise UserError("data.sources: the weight of every source is 0, so that there is no text to train on; raise one")
    check_user_files(recipe)
    check_shapes(recipe, verb, world_size)
    if recipe.data.world and (unknown := set(recipe.reason.levels) - (known := set(BY_NUMBER))):
        raise UserError(f"reason.levels: there is no level {', '.join(map(str, sorted(unknown)))}; the world's are {', '.join(map(str, sorted(known)))}")
    check_learnable(recipe, verb)
    if recipe.device not in ("auto", "cpu"):
        resolve_device(recipe.device)


def refuse_stale(found: list[Verdict], run: RunFolder) -> None:
    """Raise UserError when a verdict is stale for a cause that is known already."""
    stale = [item for item in found if item.state == "stale" and item.causes]
    if stale:
        listed = "\n".join(f"  {item.stage.verb}: {'; '.join(item.causes)}" for item in stale)
        raise UserError(
            f"{run.path} was made with other inputs or settings:\n{listed}\n"
            f"Nothing was overwritten. --rerun moves the old folders aside and makes these stages again; --name NAME makes another run."
        )


def refuse_taking_over(recipe: Recipe, run: RunFolder) -> None:
    """Raise UserError where a finished model would be measured in the folder of a run that makes models: without its recipe no verb would
    know its stages any more."""
    if not evaluates_alone(recipe):
        return
    others = [f"{stage.writes[0]}/" for stage in stages_of_run(run.path) if stage.verb != "evaluate" and run.record(stage) is not None]
    if others:
        raise UserError(f"{run.path} is another run's, with {', '.join(others)}, and its recipe would be replaced; give this one a folder: --name NAME")


def refuse_elsewhere(recipe: Recipe, run: RunFolder, verb: str) -> None:
    """Raise UserError for settings that make another stage stale than the one asked for: the recipe written with it is the whole run's.

    A setting that the stage has too (seed, budget) was meant for it; what is stale by the recipe that lies in the run is not this call's doing.
    """
    own = stage_of(verb).config

    def changes(given: Recipe) -> dict[str, list[str]]:
        found = {}
        for stage in stages_of(given):
            if stage.verb != verb and (record := run.record(stage)) is not None:
                user_files = inputs_of(run, given, stage, leave_out=tuple(reads(given, stage)))
                found[stage.verb] = config_changes(record, config_of(given, stage)) + input_changes(record, user_files)
        return found

    def is_own(change: str) -> bool:
        key = change.removeprefix("input ").split()[0]
        return any(key == name or key.startswith(f"{name}.") for name in own)

    try:
        before = changes(load_recipe(run.path / "recipe.toml"))
    except UserError:  # no recipe there, or one that names files which are gone: every change is new
        before = {}
    found = {other: [change for change in listed if change not in before.get(other, ()) and not is_own(change)] for other, listed in changes(recipe).items()}
    if any(found.values()):
        listed = "\n".join(f"  {other}: {'; '.join(new)}" for other, new in found.items() if new)
        raise UserError(
            f"{run.path}: {verb} alone would leave stages that were made with other settings:\n{listed}\n"
            f"Nothing was overwritten. `fromnoise {verb} {shlex.quote(str(run.path))}` takes the run's own settings; `fromnoise run` or these stages' own "
            f"verbs with --rerun make them again with new ones; --name NAME makes another run."
        )


def summary_line(record: dict) -> str:
    """`done in 3m 58s, 4,915,200 tokens, 1.9e+13 FLOPs, final_loss_nats 2.31 ...` for the end of a stage."""
    parts = [f"done in {duration(record['seconds'])}"]
    if record["tokens"]:
        parts.append(f"{record['tokens']:,} tokens")
    if record["flops"]:
        parts.append(f"{record['flops']:.2g} FLOPs")
    rest = {name: value for name, value in record["summary"].items() if name not in ("tokens", "flops") and not isinstance(value, str)}
    return ", ".join(parts) + ("  " + describe(dict(list(rest.items())[:6])) if rest else "")


def make_report(run: RunFolder, console: Console) -> Path:
    """Write the report of a finished run; its path."""
    start = time.perf_counter()
    path = importlib.import_module("fromnoise.stages.report").run(run.path)
    console.line(f"report: {path} ({duration(time.perf_counter() - start)})")
    return path
