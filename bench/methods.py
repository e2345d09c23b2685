"""The methods of rlhf in one table: what each bought, at what distance from the SFT model, at what cost.

    python bench/methods.py RUN [key.sub=value ...] [--methods ppo grpo rloo dpo best_of_n] [--seeds 0 1]

RUN is a finished run folder. Each method and seed gets a copy of it (RUN-METHOD-SEED, beside it) without `rlhf/`, `reason/` and `evaluate/`; they
are made anew with `rlhf.method` and `rlhf.seed` set, `reason` in one iteration; a copy that is there goes on where it was. Everything before is
the same files, and so are the audit prompts, the held-out prompts and the judges. The table (Markdown) goes to the terminal and to RUN-methods.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

COLUMNS = (
    ("preference/sampled/oracle", "oracle prefers it", "percent"),
    ("preference/sampled/oracle_length_controlled", "at equal length", "percent"),
    ("preference/sampled/raters", "judges prefer it", "percent"),
    ("preference/sampled/correct_difference", "right, minus sft", "points"),
    ("preference/sampled/reward_difference", "reward gained", "number"),
    ("preference/sampled/audit_difference", "audit gained", "number"),
    ("kl/per_sequence", "KL, nats", "number"),
)


def make(run: Path, method: str, seed: int, settings: list[str]) -> Path:
    folder = run.with_name(f"{run.name}-{method}-{seed}")
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(run, partial, ignore=left_out(run))
        partial.rename(folder)
    settings = [f"rlhf.method={method}", f"rlhf.seed={seed}", "reason.num_iterations=1", *settings]  # evaluate wants practice where the recipe has it
    for verb in ("rlhf", *(["reason"] if (run / "reason").exists() else []), "evaluate"):
        command = [sys.executable, "-m", "fromnoise", verb, str(folder / "recipe.toml"), *settings]
        subprocess.run([*command, "--run-dir", str(folder)], check=True)
    return folder


def left_out(run: Path):
    """What is made anew, and what --rerun moved aside."""
    return lambda path, names: [name for name in names if Path(path) == run and (name in ("rlhf", "reason", "evaluate") or ".old-" in name)]


def row(folder: Path, method: str, seed: int) -> list[str]:
    found = json.loads((folder / "evaluate" / "summary.json").read_text())
    stage = json.loads((folder / "rlhf" / "stage.json").read_text())
    summary = stage["summary"]
    return [method, str(seed), *(cell(found.get(name), style) for name, _, style in COLUMNS), f"{summary['chosen_iteration']} of {summary['iterations']}",
            f"{summary['answers']:,}", f"{stage['flops']:.2e}", f"{stage['seconds']:.0f}"]  # fmt: skip


def cell(estimate: dict | None, style: str) -> str:
    if not estimate or estimate["value"] is None:
        return "-"
    scale, digits = (100, 1) if style in ("percent", "points") else (1, 2)
    value, low, high = (None if estimate[name] is None else f"{scale * estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value}{' %' if style == 'percent' else ''} ({low} to {high})" if low else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--methods", nargs="+", default=["ppo", "grpo", "rloo", "dpo", "best_of_n"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("settings", nargs="*", help="settings for every method, key.sub=value")
    given = parser.parse_intermixed_args()
    run = given.run.resolve()
    head = ["method", "seed", *(label for _, label, _ in COLUMNS), "kept", "answers sampled", "FLOPs", "seconds"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for seed in given.seeds:
        for method in given.methods:
            lines.append(f"| {' | '.join(row(make(run, method, seed, given.settings), method, seed))} |")
            (run.with_name(f"{run.name}-methods.md")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
