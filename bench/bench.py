"""fromnoise beside what a user would take instead: `make bench`, or

    python bench/bench.py --peers PYTHON [--sft FILE] [--pairs FILE] [--nanogpt CHECKOUT] [--shakespeare FILE]
        [--novels FILE... --nanochat CHECKOUT] [--rows a,b] [--threads N] [--rounds N]

Each row has two sides, each a process of its own (ours.py, peers/*.py). Both set themselves up and warm up, compiling
included; then they are told in turn to do one measurement while the other waits, `rounds` times. The row's ratio is that of
the medians. Races against the clock and the profile are whole commands, one after another (races.py). What needs a peer, data or
a checkout that is not there is listed as left out. Results: bench/results.md and bench/results.json, written by running this and
by nothing else; with --rows, what is not asked for stays in them as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import races

from fromnoise.run.machine import measure
from fromnoise.run.machine import threads as num_threads

HERE = Path(__file__).resolve().parent
PEAK = "square products, the best median of 1,024 to 4,096"
START_S, MEASURE_S = 300, 120  # a side that takes longer to get ready, or to measure once, has failed


class SideFailed(Exception):
    pass


@dataclass(frozen=True)
class Peer:
    name: str
    command: list[str]
    target: float | None = None  # the ratio aimed at


@dataclass(frozen=True)
class Row:
    name: str
    unit: str
    conditions: str
    ours: list[str]
    peers: list[Peer]


class Side:
    """One process of a row, spoken to over its standard streams (pace.py)."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.command = command
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the side
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        self.facts: dict = {}
        self.rates: list[float] = []

    def read(self, limit_s: float) -> dict:
        import select

        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            raise SideFailed(f"no answer within {limit_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SideFailed("\n".join(self.log.read().splitlines()[-12:]))
        return json.loads(line)

    def ready(self) -> None:
        self.facts = self.read(START_S)

    def measure(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = self.read(MEASURE_S)
        self.rates.append(found["units"] / found["seconds"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def run_row(row: Row, rounds: int, environment: dict[str, str]) -> dict:
    """The measurements of a row. A side that fails is a result too: its last lines stand in it, and the others go on."""
    found = {"name": row.name, "unit": row.unit, "conditions": row.conditions, "date": time.strftime("%Y-%m-%d"), "rounds": rounds, "sides": {}}
    commands = {"fromnoise": row.ours, **{peer.name: peer.command for peer in row.peers}}
    targets = {peer.name: peer.target for peer in row.peers}
    sides = {name: Side(command, environment) for name, command in commands.items()}  # all set themselves up at once

    def attempt(name: str, work) -> None:
        if "failed" in found["sides"][name]:
            return
        try:
            work()
        except (SideFailed, BrokenPipeError) as error:
            found["sides"][name]["failed"] = str(error)
            sides[name].close()

    for name, side in sides.items():
        found["sides"][name] = {"command": shlex.join(side.command), "target": targets.get(name)}
    for name, side in sides.items():
        attempt(name, side.ready)
    for _ in range(rounds):
        for name, side in sides.items():
            attempt(name, side.measure)
    for name, side in sides.items():
        side.close()
        entry = found["sides"][name]
        entry |= {"facts": side.facts, "rates": side.rates}
        if "failed" not in entry:
            entry["median"] = statistics.median(side.rates)
            if "median" in found["sides"]["fromnoise"] and name != "fromnoise":
                entry["ratio"] = found["sides"]["fromnoise"]["median"] / entry["median"]
    return found


def rows_for(given, folder: Path) -> tuple[list[Row], list[str]]:
    """The rows this machine can do, and why others cannot be done."""
    threads = ["--threads", str(given.threads)] if given.threads else []
    rows, left_out = [], []

    def ours(*words: str) -> list[str]:
        return [sys.executable, str(HERE / "ours.py"), words[0], str(folder), *words[1:], *threads]

    def peer(name: str, target: float | None, script: str, *words: str) -> list[Peer]:
        return [Peer(name, [given.peers, str(HERE / "peers" / script), *words, *threads], target)] if given.peers else []

    if not given.bf16:
        left_out.append("generation in bfloat16, and TRL as installed (bf16): this processor only emulates it")
    for num_prompts, what in ((64, "64 prompts"), (1, "1 prompt")):
        for dtype in ("float32", "bfloat16") if given.bf16 else ("float32",):
            options = ("--dtype", dtype, "--num-prompts", str(num_prompts))
            target = 6.0 if (num_prompts, dtype) == (64, "float32") else 4.0
            conditions = f"{what} of 32 tokens, 128 new ones, whole distribution, {dtype}"
            beside = peer("transformers generate", target, "generate.py", str(folder), *options)
            rows.append(Row(f"generate-{num_prompts}-{dtype}", "tokens/s", conditions, ours("generate", *options), beside))
    for name, unit, file, target in (
        ("sft", "real tokens/s", given.sft, 6.0),
        ("reward", "pairs/s", given.pairs, 4.0),
        ("dpo", "pairs/s", given.pairs, 4.0),
        ("grpo", "samples/s", given.pairs, 3.5),
    ):
        if not file:
            left_out.append(f"{name}: no {'conversations (SFT=FILE)' if name == 'sft' else 'preference pairs (PAIRS=FILE)'} given")
            continue
        what = "64 new tokens, groups of 8, a reward model, KL in the loss, 16 samples a step" if name == "grpo" else "at most 512 tokens, 16 a step"
        what += ", AdamW"
        best = f"TRL, activations kept{', packed' if name == 'sft' else ''}{'' if given.bf16 else ', float32'}"
        trl = ("trl_trainers.py", name, str(folder))
        beside = peer("TRL as installed", target, *trl) if given.bf16 else []
        rows.append(Row(name, unit, what, ours(name), [*beside, *peer(best, None, *trl, "--best", *(() if given.bf16 else ("--float32",)))]))
    peers = peer("HF Trainer, default dtype", 3.0, "hf_trainer.py", str(folder))
    if given.nanogpt:
        peers.append(Peer("nanoGPT", [sys.executable, str(HERE / "peers" / "nanogpt.py"), str(folder), given.nanogpt, *threads], 5.0))
    else:
        left_out.append("nanoGPT: no checkout given (NANOGPT=FOLDER)")
    what = "16 rows of 256 tokens a step, optimizer included"
    rows.append(Row("pretrain-adamw", "tokens/s", f"{what}: AdamW", ours("pretrain-adamw"), peers))
    rows.append(Row("pretrain", "tokens/s", f"{what}: Muon with AdamW", ours("pretrain"), [Peer(PEAK, ours("peak"))]))
    if not given.peers:
        left_out.append("every row with a peer: no environment of peers (make bench makes one)")
    return [row for row in rows if not given.rows or row.name in given.rows], left_out


def losses(given, folder: Path, environment: dict[str, str]) -> dict:
    """Supervised losses of both sides at equal steps, and the largest gap between two of them."""
    found = {}
    for name, command in (("fromnoise", [sys.executable, str(HERE / "losses.py")]), ("TRL", [given.peers, str(HERE / "peers" / "trl_losses.py")])):
        done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True)
        if done.returncode:
            return {"failed": f"{name}: {done.stderr.strip().splitlines()[-1]}"}
        found[name] = json.loads(done.stdout)["losses"]
    return {**found, "largest_gap_nats": max(abs(a - b) for a, b in zip(*found.values(), strict=True))}


def startup(environment: dict[str, str]) -> list[dict]:
    """Seconds, the median of a few: importing the package, its help, and from the process's start to the first training step."""
    found = []

    def timed(name: str, repeats: int, target: float | None, work) -> None:
        times = [work() for _ in range(repeats)]
        found.append({"name": name, "seconds": statistics.median(times), "all": times, "target": target})

    def command(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start

    def first_step(run: Path, verb: str) -> float:
        (metrics := run / "base" / "metrics.jsonl").unlink(missing_ok=True)
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "fromnoise", verb, "smoke", "--run-dir", str(run), "--quiet"], env=environment)
        try:
            while process.poll() is None or metrics.exists():
                if metrics.exists() and '"grad_norm"' in metrics.read_text():
                    return time.perf_counter() - start
                time.sleep(0.005)
            raise SideFailed("the smoke recipe ended before a training step")
        finally:
            process.kill()
            process.wait()

    nothing = command("-c", "pass")
    timed("import fromnoise (the interpreter's own start taken off)", 5, 0.2, lambda: command("-c", "import fromnoise") - nothing)
    timed("fromnoise --help", 5, 0.5, lambda: command("-m", "fromnoise", "--help"))
    with tempfile.TemporaryDirectory() as folder:
        timed("fromnoise run smoke, from nothing to the first training step", 1, None, lambda: first_step(Path(folder) / "a", "run"))
        for verb in ("prepare", "tokenizer"):
            command("-m", "fromnoise", verb, "smoke", "--run-dir", f"{folder}/b", "--quiet")

        def pretrain() -> float:
            import shutil

            shutil.rmtree(Path(folder) / "b" / "base", ignore_errors=True)
            return first_step(Path(folder) / "b", "pretrain")

        timed("fromnoise pretrain smoke, to the first training step", 3, 5.0, pretrain)
    return found


def dtype_of(facts: dict) -> str:
    """What a side computes in, as it said itself; nothing for one that is only a peak."""
    if facts.get("bf16"):
        return "bfloat16"
    return str(facts.get("dtype") or ("float32" if "bf16" in facts else "")).removeprefix("torch.")


def measured(row: dict) -> str:
    return f"{row['date']}, {row['rounds']}"


def table(results: dict) -> str:
    lines = [
        "# Side by side", "", f"{results['machine']}; medians of measurements taken in turn, as many as stand behind their day.", "",
        "| row | beside | fromnoise | the other | unit | ratio | aim | dtypes | measured | conditions |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in results["rows"]:
        ours = row["sides"]["fromnoise"]
        mine = f"{ours['median']:,.1f}" if "median" in ours else f"failed: {last_line(ours)}"
        if len(row["sides"]) == 1:
            lines.append(f"| {row['name']} | | {mine} | | {row['unit']} | | | {dtype_of(ours.get('facts', {}))} | {measured(row)} | {row['conditions']} |")
        for name, side in row["sides"].items():
            if name == "fromnoise":
                continue
            theirs = f"{side['median']:,.1f}" if "median" in side else f"failed: {last_line(side)}"
            dtypes = ", ".join(dict.fromkeys(filter(None, (dtype_of(one.get("facts", {})) for one in (ours, side)))))
            told = f"{dtypes} | {measured(row)} | {row['conditions']} |"
            if name == PEAK and "median" in side and "median" in ours:
                share, theirs = ours["median"] * ours["facts"]["flops_per_token"] / side["median"], f"{side['median'] / 1e9:,.0f} GFLOP/s"
                lines.append(f"| {row['name']} | {name} | {mine} | {theirs} | MFU | {share:.1%} | 50 % | {told}")
                continue
            ratio, aim = (f"{side[key]:.2f}" if side.get(key) else "" for key in ("ratio", "target"))
            lines.append(f"| {row['name']} | {name} | {mine} | {theirs} | {row['unit']} | {ratio} | {aim} | {told}")
    if (compared := results["losses"]) and "failed" in compared:
        lines += ["", f"Losses at equal steps: failed, {compared['failed']}."]
    elif compared:
        shown = {name: " ".join(f"{loss:.4f}" for loss in values) for name, values in compared.items() if isinstance(values, list)}
        told = "; ".join(f"{name} {values}" for name, values in shown.items())
        lines += ["", f"Supervised losses at equal steps (float32, AdamW, nats a token): {told}; largest gap {compared['largest_gap_nats']:.1e}."]
    if results["startup"]:
        lines += ["", "| start | seconds | aim |", "| --- | --- | --- |"]
        lines += [f"| {item['name']} | {item['seconds']:.2f} | {item['target'] or ''} |" for item in results["startup"]]
    lines += races.lines(results)
    lines += ["", *(f"Left out: {reason}." for reason in results["left_out"]), "", "## Commands", ""]
    lines += ["Each does one measurement for each line `go` on its standard input.", "", "```"]
    for row in [*results["rows"], *results["races"]]:
        lines += [f"# {row['name']}", *(side["command"] for side in row["sides"].values())]
    return "\n".join([*lines, "```", ""])


def kept(before: dict, now: dict) -> dict:
    """`now`, with what `--rows` did not ask for as it was measured `before`, on the day that stands beside it. Nothing that stands
    there is said to be left out."""
    rows, raced = ({row["name"]: row for row in [*before.get(kind, []), *now[kind]]} for kind in ("rows", "races"))  # one measured again keeps its place
    there = {*rows, *raced, *(side.split(",")[0] for row in [*rows.values(), *raced.values()] for side in row["sides"])}
    left_out = [reason for reason in now["left_out"] if reason.split(":")[0] not in there]
    return {**now, "rows": list(rows.values()), "races": list(raced.values()), "left_out": left_out,
            **{name: now[name] or before.get(name) for name in ("losses", "startup", "profile")}}  # fmt: skip


def last_line(side: dict) -> str:
    return (side.get("failed") or "not measured").strip().splitlines()[-1][:160]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", help="the python of an environment with transformers and TRL")
    arguments.add_argument("--sft", help="conversations, in any form fromnoise reads")
    arguments.add_argument("--pairs", help="preference pairs, in any form fromnoise reads")
    arguments.add_argument("--nanogpt", help="a checkout of nanoGPT")
    arguments.add_argument("--shakespeare", help="nanoGPT's input.txt: three minutes of it, three seeds")
    arguments.add_argument("--novels", nargs="+", default=[], help="texts to learn in five minutes")
    arguments.add_argument("--nanochat", help="a checkout of nanochat, to learn the novels as well, at three depths")
    told = "`losses` for those at equal steps, `start` for startup times, `profile` for where a step's time goes"
    arguments.add_argument("--rows", type=lambda names: names.split(","), help=f"only these, by name, separated by commas; {told}")
    arguments.add_argument("--threads", type=int, help="CPU threads of both sides; all cores when absent")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--out", type=Path, default=HERE / "results", help="results are written to OUT.md and OUT.json")
    given = arguments.parse_args()
    speeds = measure("cpu", num_threads(given.threads))["matmul_flops_per_s"]
    given.bf16 = speeds["bfloat16"] > 0.5 * speeds["float32"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    if given.threads:
        environment["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = [word for option in ("sft", "pairs") if getattr(given, option) for word in (f"--{option}", getattr(given, option))]
        subprocess.run([sys.executable, str(HERE / "fixture.py"), str(folder), *inputs], check=True, env=environment)
        rows, left_out = rows_for(given, folder)
        raced, more = races.races_for(given)
        results = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "date": time.strftime("%Y-%m-%d"), "rounds": given.rounds,
                   "fixture": json.loads((folder / "fixture.json").read_text()), "rows": [], "races": [],
                   "losses": {}, "startup": [], "profile": "", "left_out": left_out + more}  # fmt: skip
        for row in rows:
            began = time.perf_counter()
            results["rows"].append(found := run_row(row, given.rounds, environment))
            told = ", ".join(f"{name} {side['median']:,.1f}" if "median" in side else f"{name} failed" for name, side in found["sides"].items())
            print(f"{row.name} ({time.perf_counter() - began:.0f} s): {told} {row.unit}", flush=True)
        if given.sft and given.peers and (not given.rows or "losses" in given.rows):
            results["losses"] = losses(given, folder, environment)
    for race in raced:
        if not given.rows or race.name in given.rows:
            results["races"].append(races.run_race(race, environment))
    if not given.rows or "start" in given.rows:
        results["startup"] = startup(environment)
    if not given.rows or "profile" in given.rows:
        results["profile"] = races.profile(environment)
    if given.rows and given.out.with_suffix(".json").exists():
        results = kept(json.loads(given.out.with_suffix(".json").read_text()), results)
    text = table(results).replace(str(folder), "FOLDER").replace(str(HERE.parent) + "/", "")
    given.out.with_suffix(".md").write_text(text)
    given.out.with_suffix(".json").write_text(json.dumps(results, indent=1).replace(str(folder), "FOLDER").replace(str(HERE.parent) + "/", ""))
    print(text)


if __name__ == "__main__":
    main()
