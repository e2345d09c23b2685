"""A run folder as the stages leave it, made of plausible numbers in a moment: what the report's tests look at."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from fromnoise.evaluate import overoptimisation
from fromnoise.evaluate.intervals import paired_difference, proportion
from fromnoise.evaluate.records import write_jsonl

NASTY = "<script>alert(1)</script> & <b>bold</b> \x1b[31mred \u202etxet </style>"


def write_run(folder: Path, *, world: bool = True, upto: str = "evaluate") -> Path:
    """Stages up to and including `upto`. world=False: real data, no oracle, no questions."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("synthetic")
    name = "world" if world else "text"
    data = "world = true" if world else 'path = "text"\nconversations = ["chats.jsonl"]\npreferences = "pairs.jsonl"'
    (folder / "recipe.toml").write_text(f'name = "{name}"\nseed = 0\n[data]\n{data}\n', encoding="utf-8")
    _json(
        folder / "run.json",
        {
            "schema_version": 1,
            "created": "2026-11-23T22:00:00+0000",
            "versions": {"python": "3.11.9", "torch": "2.13.0", "fromnoise": "0.1.0"},
            "hardware": {"processor": "AMD EPYC (Zen 5)", "num_cores": 2, "system": "Linux"},
            "git": {"commit": "0123456789abcdef", "changed_files": 0},
        },
    )
    writers = {
        "prepare": _prepare,
        "tokenizer": _tokenizer,
        "pretrain": _pretrain,
        "sft": _sft,
        "prefer": _prefer,
        "reward": _reward,
        "rlhf": _rlhf,
        "evaluate": _evaluate,
    }
    for verb, write in writers.items():
        write(folder, rng, world)
        if verb == upto:
            break
    return folder


def _json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _stage(folder: Path, verb: str, seconds: float, summary: dict, lines: list[dict] = ()) -> None:
    _json(
        folder / "stage.json",
        {
            "schema_version": 1,
            "verb": verb,
            "status": "done",
            "seconds": seconds,
            "tokens": summary.get("tokens"),
            "flops": summary.get("flops"),
            "summary": summary,
            "numerics": {"torch": "2.13.0", "num_threads": 2, "dtype": "bfloat16", "compile": True},
            "inputs": {},
            "outputs": {},
            "config": {},
            "decisions": {},
        },
    )
    write_jsonl(folder / "metrics.jsonl", [{"schema_version": 1, "stage": verb, "time_s": 0.1 * i, **line} for i, line in enumerate(lines)])


def _prepare(folder, rng, world) -> None:
    names = ("web", "books", "code", "papers") if world else ("books", "docs", "encyclopedia")
    sources = []
    for source in names:
        came = rng.randrange(2_000, 9_000)
        removed = {"exact duplicate": came // 21, "near duplicate": came // 30, "repeated lines": came // 200}
        kept = came - sum(removed.values())
        sources.append(
            {
                "name": source,
                "licence": "public" if source != "books" else "licensed",
                "simulated": world,
                "documents_in": came,
                "bytes_in": came * 1900,
                "documents_kept": kept,
                "bytes_kept": kept * 1900,
                "removed": {k: {"documents": v, "bytes": v * 1900} for k, v in removed.items()},
                "validation_documents": came // 50,
                "scrubbed": {"emails": came // 90, "phones": came // 140},
                "dates": {"min": "1999-02-01", "max": "2023-12-30"},
                "bad_counts": {"malformed JSON": 1} if source == "web" else {},
                "repaired_counts": {"undecodable bytes, read as Windows-1252": 5_000} if source == "web" else {},
                "bad": [{"file": "x.jsonl", "line": 3, "reason": "malformed JSON"}] if source == "web" else [],
            }
        )
    _json(folder / "prepare" / "ledger.json", {"schema_version": 1, "sources": sources})
    _stage(folder / "prepare", "prepare", 41.2, {"documents": 20_000})


def _tokenizer(folder, rng, world) -> None:
    sources = {
        source: {"bytes_per_token": rng.uniform(3.1, 4.4), "gzip_ratio": rng.uniform(2.4, 3.4)}
        for source in (("web", "books", "code", "papers") if world else ("books", "docs", "encyclopedia"))
    }
    _json(folder / "tokenizer" / "compression.json", {"vocab_size": 4096, "sources": {**sources, "all": {"bytes_per_token": 3.81, "gzip_ratio": 2.9}}})
    _stage(folder / "tokenizer", "tokenizer", 6.4, {"vocab_size": 4096})


def _pretrain(folder, rng, world) -> None:
    steps, lines = 610, []
    vague = [("\n", 0.031), (" the", 0.012), ("q", 0.004), ("Xy", 0.004), ("<|endoftext|>", 0.003)]
    clear = [(" mat", 0.31), (" floor", 0.12), (" table", 0.11), (" roof", 0.07), (" bench", 0.05)]
    for step in range(steps):
        loss = 1.9 + (math.log(4096) - 1.9) * math.exp(-(step**0.55) / 6) + rng.gauss(0, 0.03 if step else 0)
        lines.append({"step": step, "loss_nats": loss if step else math.log(4096), "grad_norm": 1.0, "tokens_per_s": 20_500 + rng.gauss(0, 300), "mfu": 0.41})
    for i in range(9):
        step = round(steps * i / 8)
        bits = {
            f"validation_bits_per_byte/{source}": 3.2 * math.exp(-i / 2.2) + shift
            for source, shift in (("web", 0.93), ("books", 0.85), ("code", 0.6), ("papers", 0.9), ("all", 0.86))
        }
        lines.append({"step": step, **bits})
        for text in ("The cat sat on the", "Once upon a time"):
            said = ["ÿ the\n\nq of of", " the the of a the and", " the house and the man was", " mat and looked at the door. The man laughed."][min(3, i // 2)]
            lines.append({"step": step, "probe": text, "text": text, "top5": clear if i > 4 else vague, "completion": said if i else NASTY})
    lines.sort(key=lambda line: line["step"])
    _stage(
        folder / "base",
        "pretrain",
        246.0,
        {
            "num_parameters": 3_010_000,
            "matrix_parameters": 2_210_000,
            "num_steps": steps,
            "tokens": 4_997_120,
            "passes": 1.02,
            "tokens_per_parameter": 1.66,
            "flops": 1.1e14,
            "vocab_size": 4096,
            "ln_vocab_nats": math.log(4096),
            "final_loss_nats": 1.93,
            "validation_bits_per_byte": 0.91,
        },
        lines,
    )


def _sft(folder, rng, world) -> None:
    lines = [{"step": step, "loss_nats": 0.7 + 2.4 * math.exp(-step / 25) + rng.gauss(0, 0.05), "tokens_per_s": 18_000.0, "mfu": 0.36} for step in range(160)]
    lines += [{"step": step, "validation_loss_nats": 0.74 + 2.4 * math.exp(-step / 25)} for step in (0, 27, 53, 80, 107, 133, 160)]
    _stage(
        folder / "sft",
        "sft",
        44.1,
        {"conversations": 3800, "epochs": 2.0, "best_step": 160, "num_steps": 160, "tokens": 655_360, "flops": 1.4e13, "set_aside": 3},
        sorted(lines, key=lambda line: line["step"]),
    )


def _prefer(folder, rng, world) -> None:
    _stage(folder / "prefer", "prefer", 29.0, {"pairs": 3900, "tokens": 410_000})


def _reward(folder, rng, world) -> None:
    lines = [
        {"step": step, "model": "reward" if step < 60 else "audit", "loss_nats": 0.69 - step % 60 * 0.003, "tokens_per_s": 17_000.0, "mfu": 0.34}
        for step in range(100)
    ]
    _stage(folder / "reward", "reward", 81.0, {"tokens": 1_200_000, "flops": 2.6e13}, lines)


def _rlhf(folder, rng, world) -> None:
    lines, audits = [], []
    for i in range(41):
        if i % 5 == 0:
            audits.append({"iteration": i, "audit_score": 0.9 * (1 - math.exp(-i / 14)) - 0.01 * max(0, i - 25), "audit_reward": 1.2 * (1 - math.exp(-i / 15)),
                           "audit_kl_nats": 0.22 * i})  # fmt: skip
            lines.append({"step": i, **{name: value for name, value in audits[-1].items() if name != "iteration"}})
        if i < 40:
            lines.append({"step": i, "reward": 1.2 * (1 - math.exp(-i / 15)) + rng.gauss(0, 0.04), "kl_nats": 0.22 * i, "tokens_per_s": 9_000.0, "mfu": 0.2})
    chosen = max(audits, key=lambda audit: audit["audit_score"])
    summary = {"method": "ppo", "iterations": 40, "tokens": 800_000, "flops": 3.1e13, "audits": audits, "chosen_iteration": chosen["iteration"],
               "audit_chosen": chosen["audit_score"], "audit_last": audits[-1]["audit_score"]}  # fmt: skip
    _stage(folder / "rlhf", "rlhf", 118.0, summary, lines)


def _evaluate(folder, rng, world) -> None:
    def coin(p: float, n: int) -> list[float]:
        return [float(rng.random() < p) for _ in range(n)]

    summary = {}
    for decoding, win in (("sampled", 0.74), ("greedy", 0.7)):
        at = f"preference/{decoding}"
        if world:
            summary |= {
                f"{at}/oracle": proportion(coin(win, 512)),
                f"{at}/oracle_length_controlled": proportion(coin(win - 0.04, 512)),
                f"{at}/ties": proportion(coin(0.11, 512)),
                f"{at}/raters": proportion(coin(0.68, 512)),
                f"{at}/correct_sft": proportion(coin(0.71, 420)),
                f"{at}/correct_rlhf": proportion(coin(0.76, 420)),
                f"{at}/correct_difference": paired_difference(coin(0.76, 420), coin(0.71, 420), 1),
            }
            for kind in ("fact", "context", "harmful", "lookalike", "sum"):
                summary[f"{at}/oracle/{kind}"] = proportion(coin(win, 60))
        summary |= {
            f"{at}/reward_win_rate": proportion(coin(0.81, 512)),
            f"{at}/audit_win_rate": proportion(coin(0.75, 512)),
            f"{at}/reward_difference": paired_difference([rng.gauss(1.1, 1) for _ in range(512)], [0.0] * 512, 1),
            f"{at}/audit_difference": paired_difference([rng.gauss(0.8, 1) for _ in range(512)], [0.0] * 512, 1),
        }
    if world:
        path = [{"iteration": 5 * k, "prompt_id": f"p{n}", "kind": "fact", "text": "It is so.", "stopped": True, "num_words": 3.0 + k, "repetition": 0.0,
                 "kl_nats": 1.1 * k, "reward": 0.1 * k + 0.01 * n, "audit": 0.1 * k - 0.012 * k * k, "utility": 4.0 * (n % 2) + k - 0.15 * k * k,
                 "raters": 0.6, "features": {"flattery": 0.1 * k, "refused": 0.0}} for k in range(9) for n in range(20)]  # fmt: skip
        summary |= overoptimisation.summarise(path, 20, 1)
        samples = [{"n": 4, "samples": {"worth": [0.0, 1.0, 2.0, 3.0], "audit": [0.0, 1.0, 0.5, 2.0], "utility": [1.0, 2.0, 4.0, 3.0]}} for _ in range(8)]
        summary |= overoptimisation.best_of_n_curve(samples, 1)
    flat = {name: one.to_json() for name, one in summary.items()}
    flat["kl/per_sequence"] = {"value": 8.4, "low": 8.0, "high": 8.8, "n": 512, "method": "bootstrap", "seed": 1234}
    flat["best_of_n/n"] = {"value": 16, "low": None, "high": None, "n": 160, "method": "setting", "seed": None}
    flat["best_of_n/kl_per_sequence"] = {"value": 1.835, "low": None, "high": None, "n": 160, "method": "analytic: log n - (n - 1) / n", "seed": None}
    flat["best_of_n/reward_difference"] = {"value": 0.91, "low": 0.8, "high": 1.02, "n": 160, "method": "paired bootstrap", "seed": 1234}
    for name in ("reward", "audit"):
        flat[f"{name}/accuracy"] = proportion(coin(0.73, 380)).to_json()
        flat[f"{name}/calibration_error"] = {"value": 0.031, "low": 0.02, "high": 0.06, "n": 380, "method": "bootstrap", "seed": 1234}
        if world:
            flat[f"{name}/attainable"] = {"value": 0.77, "low": 0.765, "high": 0.776, "n": 380, "method": "mean max(p, 1 - p)", "seed": 1234}
            flat[f"{name}/share_of_attainable"] = {"value": 0.86, "low": 0.74, "high": 0.97, "n": 380, "method": "ratio, paired bootstrap", "seed": 1234}
            flat[f"{name}/pairs_differing"] = proportion(coin(0.52, 2400)).to_json()
    for feature, (a, b) in {
        "num_words": (14.2, 12.9),
        "stopped": (0.97, 0.995),
        "refused": (0.04, 0.03),
        "flattery": (0.2, 0.03),
        "repetition": (0.02, 0.01),
    }.items():
        for side, value in (("sft", a), ("rlhf", b), ("difference", b - a)):
            flat[f"drift/{feature}/{side}"] = {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 512, "method": "bootstrap", "seed": 1234}
    for model in ("base", "sft", "rlhf"):
        for source in ("web", "books", "all"):
            flat[f"bits_per_byte/{model}/{source}"] = {"value": 0.9, "low": 0.87, "high": 0.93, "n": 256, "method": "bootstrap", "seed": 1234}
    if world:
        _world_estimates(flat, coin)
    _json(folder / "evaluate" / "summary.json", flat)
    _stage(folder / "evaluate", "evaluate", 72.0, {"measured": len(flat)})
    prompts = [
        "Where does Mara Fenn live?",
        NASTY,
        "Summarise this: The market at Tolby opens at six. Traders come from all over the valley, and by noon the bread is gone.",
        "What is 23 + 45?",
    ]
    write_jsonl(folder / "evaluate" / "records" / "side_by_side.jsonl", [
        {"id": f"p{i}", "kind": "fact", "prompt": prompt,
         "base": {"text": " and the man said that the road was long. " + (NASTY if i == 1 else "He went on. " * 8), "stopped": False},
         "sft": {"text": "I think that Mara Fenn lives in Tolby, perhaps. What a wonderful question!", "stopped": True},
         "rlhf": {"text": "Mara Fenn lives in Tolby.", "stopped": True}}
        for i, prompt in enumerate(prompts)
    ])  # fmt: skip


def _world_estimates(flat: dict, coin) -> None:
    for name, form, context, recall in (
        ("base_plain", 0.4, 0.3, 0.35),
        ("base_template", 0.1, 0.1, 0.1),
        ("sft", 0.95, 0.88, 0.71),
        ("rlhf", 0.98, 0.91, 0.72),
    ):
        at = f"questions/{name}"
        flat |= {
            f"{at}/form_and_stops": proportion(coin(form, 900)).to_json(),
            f"{at}/stops": proportion(coin(form, 900)).to_json(),
            f"{at}/correct/context": proportion(coin(context, 200)).to_json(),
            f"{at}/correct/sum": proportion(coin(context, 80)).to_json(),
            f"{at}/correct/mentioned 64 times or more": proportion(coin(recall, 260)).to_json(),
        }
        for mentions, rate in ((0, 0.03), (1, 0.05), (4, 0.08), (16, 0.3), (64, 0.7), (256, 0.95)):
            flat[f"{at}/ladder/{mentions}"] = proportion(coin(rate * recall / 0.72, 66)).to_json()
        for kind in ("context", "fact", "list", "summary", "sum"):
            flat[f"{at}/form_and_stops/{kind}"] = proportion(coin(form, 120)).to_json()
    for look in ("exact", "normalised", "contained", "subject_and_value"):
        flat[f"contamination/{look}"] = {"value": 0, "low": None, "high": None, "n": 900, "method": "count", "seed": None}
    for name in ("questions", "prompts", "pairs"):
        for material in ("conversations", "training_prompts"):
            for look in ("exact", "normalised", "contained"):
                value = 7 * ((name == "pairs" and material == "conversations") or look == "contained")
                flat[f"contamination/{name}/{material}/{look}"] = {"value": value, "low": None, "high": None, "n": 300, "method": "count", "seed": None}
    for decoding in ("sampled", "greedy"):
        at = f"safety/{decoding}"
        for side, rate in (("sft", 0.82), ("rlhf", 0.93)):
            flat[f"{at}/balanced_accuracy/{side}"] = {
                "value": rate,
                "low": rate - 0.03,
                "high": rate + 0.02,
                "n": 400,
                "method": "stratified bootstrap",
                "seed": 1234,
            }
            for kind in ("harmful", "lookalike"):
                flat[f"{at}/{kind}/{side}"] = proportion(coin(rate, 200)).to_json()
            flat[f"{at}/balanced_accuracy/unseen_object/{side}"] = {
                "value": rate,
                "low": rate - 0.04,
                "high": rate + 0.04,
                "n": 260,
                "method": "stratified bootstrap",
                "seed": 1234,
            }
        flat[f"{at}/balanced_accuracy/difference"] = {"value": 0.11, "low": 0.07, "high": 0.15, "n": 400, "method": "paired stratified bootstrap", "seed": 1234}
    for repeats, bits in ((0, 1.3), (1, 1.5), (4, 1.9), (16, 3.4), (64, 5.8)):
        flat[f"memorisation/exposure/{repeats}"] = {"value": bits, "low": bits - 0.5, "high": min(6, bits + 0.5), "n": 12, "method": "bootstrap", "seed": 1234}
        flat[f"memorisation/first/{repeats}"] = proportion([float(bits > 5)] * 12).to_json()
