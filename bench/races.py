"""What bench.py measures by whole commands, one after another: races against the clock, and where a step's time goes.

A race's sides get the same texts, tokenizer, split and seconds (texts.py), so what is compared is what they have learnt by then.
"""

from __future__ import annotations

import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROFILED = ("6x256", "8x512")
LEARNT = re.compile(r"([\d.]+) nats a character, ([\d.]+) bits a byte.*?([\d.]+) s from process start to weights \((.*?)\)")
# what was found best in five minutes of novels (docs/lab-notebook.md); for tiny Shakespeare these are the defaults of minutes.py
NOVELS = "--seconds 300 --vocab 4096 --row-tokens 512 --rows 4 --layers 5 --width 192 --ffn 512".split()
NANOCHAT_DEPTHS = (2, 4, 6)


@dataclass(frozen=True)
class Race:
    name: str
    unit: str  # "nats a character" or "bits a byte"
    ours: list[list[str]]  # one command a seed
    others: dict[str, list[str]]
    aim: str
    environment: dict[str, str]  # of the others, beside what is there


def races_for(given) -> tuple[list[Race], list[str]]:
    """The races that this call has texts for, and why others are not run. given: bench.py's arguments."""
    threads = ["--threads", str(given.threads)] if given.threads else []
    races, left_out = [], []
    if given.shakespeare:
        command = [sys.executable, str(HERE / "minutes.py"), given.shakespeare, *threads]
        races.append(Race("shakespeare", "nats a character", [[*command, "--seed", str(seed)] for seed in range(3)], {}, "1.45", {}))
    else:
        left_out.append("shakespeare: no file given (SHAKESPEARE=input.txt)")
    if given.novels:
        nanochat = [sys.executable, str(HERE / "peers" / "nanochat.py"), str(given.nanochat), *given.novels, *threads]
        others = {f"nanochat, depth {depth}": [*nanochat, "--depth", str(depth)] for depth in NANOCHAT_DEPTHS} if given.nanochat else {}
        if not given.nanochat:
            left_out.append("nanochat: no checkout given (NANOCHAT=FOLDER)")
        dtype = {"NANOCHAT_DTYPE": "bfloat16" if given.bf16 else "float32"}
        command = [sys.executable, str(HERE / "minutes.py"), *given.novels, *NOVELS, *threads]
        races.append(Race("novels", "bits a byte", [command], others, "2 % below its best", dtype))
    else:
        left_out.append("novels: no texts given (NOVELS='a.txt b.txt')")
    return races, left_out


def learnt(output: str, unit: str) -> dict:
    """{"value", "seconds", "facts"} of the line that a side ends with (texts.tell)."""
    found = LEARNT.search(output)
    if not found:
        return {"failed": "\n".join(output.splitlines()[-12:])}
    return {"value": float(found[1 if unit == "nats a character" else 2]), "seconds": float(found[3]), "facts": found[4]}


def run_race(race: Race, environment: dict[str, str]) -> dict:
    def one(command: list[str], more: dict[str, str]) -> dict:
        done = subprocess.run(command, env={**environment, **more}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return learnt(done.stdout, race.unit)

    ours = [one(command, {}) for command in race.ours]
    sides = {"fromnoise": {"command": shlex.join(race.ours[0]), "all": ours}}
    if failed := next((side for side in ours if "failed" in side), None):
        sides["fromnoise"]["failed"] = failed["failed"]
    else:
        sides["fromnoise"]["value"] = statistics.median(side["value"] for side in ours)
    for name, command in race.others.items():
        shown = shlex.join([*(f"{key}={value}" for key, value in race.environment.items()), *command])
        sides[name] = {"command": shown, "all": [found := one(command, race.environment)], **found}
    return {"name": race.name, "unit": race.unit, "aim": race.aim, "date": time.strftime("%Y-%m-%d"), "sides": sides}


def profile(environment: dict[str, str]) -> str:
    """What training_step.py says: each shape's step, part by part, beside the machine's peak."""
    done = subprocess.run([sys.executable, str(HERE / "training_step.py"), *PROFILED], env=environment, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr.strip().splitlines()[-1]}"


def lines(results: dict) -> list[str]:
    """Markdown of the races and of the profile."""
    found = []
    if results["races"]:
        found += ["", "| against the clock | side | held out | aim | measured | what it was |", "| --- | --- | --- | --- | --- | --- |"]
    for race in results["races"]:
        for name, side in race["sides"].items():
            value = f"{side['value']:.4f} {race['unit']}" if "value" in side else f"failed: {side['failed'].splitlines()[-1][:160]}"
            runs, aim = len(side["all"]), race["aim"] if name == "fromnoise" else ""
            median = f" (median of {runs} seeds)" if runs > 1 else ""
            found.append(f"| {race['name']} | {name} | {value}{median} | {aim} | {race['date']} | {side['all'][0].get('facts', '')} |")
    if results["profile"]:
        found += ["", "## Where a step's time goes", "", "```", results["profile"], "```"]
    return found
