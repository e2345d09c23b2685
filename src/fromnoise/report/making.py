"""The first half of the page: what was trained on what, at what cost, and how noise became language."""

from __future__ import annotations

import math
from pathlib import Path

from fromnoise.pipeline import Stage
from fromnoise.report.blocks import Cell, Figures, Probe, Prose, Section, Table, count, duration, large, number, shown
from fromnoise.report.collect import RunData, StageData
from fromnoise.report.figures import figure, lines, thinned
from fromnoise.run.verdict import FILES, stages_of_run

WHILE_TRAINING = "Looks while training; evaluate takes its own rows of the held-out text, and its numbers, at the top and model by model, differ a little."


def lineage(run: RunData) -> Section:
    """Each stage: what it read and wrote, time, tokens, FLOPs, speed."""
    section = Section(
        "stages", "What was trained on what", "Each stage reads the folders of the stages before it. Content hashes of all of them stand in run.json."
    )
    if run.alone:
        section.title, section.lede = "What was measured on what", "Content hashes of the model and of the files stand in run.json."
    rows, stages = [], stages_of_run(run.path)
    for stage in stages:
        data = run.stages[stage.verb]
        state = Cell(data.state, tone={"done": "good", "partial": "bad", "stale": "bad"}.get(data.state, "quiet"))
        rows.append(
            [
                Cell(stage.verb, stage.summary, "label"),
                state,
                *(Cell(text, tone="nowrap") for text in (duration(data.value("seconds")), large(data.value("tokens")), large(data.value("flops")))),
                _speed(data),
                _reads(run, stages, stage),
                ", ".join(stage.writes),
            ]
        )
    total = sum(data.value("seconds") or 0 for data in run.stages.values())
    flops = sum(data.value("flops") or 0 for data in run.stages.values())
    rows.append([Cell("all", tone="label"), "", Cell(duration(total), tone="strong nowrap"), "", Cell(large(flops), tone="strong nowrap"), "", "", ""])
    caption = "Speed is that of the median step, of rlhf and reason of the updates alone; time is all of it, with compiling and looks at held-out data."
    section.blocks.append(Table(["stage", "state", "time", "tokens", "FLOPs", "speed", "reads", "writes"], rows, "" if run.alone else caption))
    missing = [verb for verb, data in run.stages.items() if data.state not in ("done", "stale", "not wanted")]
    if missing:
        section.blocks.append(Prose(f"Not finished in this run: {', '.join(missing)}. What depends on them is missing below.", tone="missing"))
    return section


def _reads(run: RunData, stages: list[Stage], stage: Stage) -> str:
    """What a stage of this recipe reads: folders of the run, the model that it starts `from`, the user's files by name, the built-in world."""
    made = {name for other in stages for name in other.writes}
    found = [name for name in stage.reads if name in made]
    if run.recipe.get("from") and "base" in stage.reads:
        found.append(run.recipe["from"])
    for section, key in (name.split(".") for name in stage.config if name in FILES and name != "data.sources"):
        given = (run.recipe.get(section) or {}).get(key) or ()
        found += [Path(path).name for path in ([given] if isinstance(given, str) else given)]
    if "data.path" in stage.config:  # documents
        found += [source["name"] for source in (run.recipe.get("data") or {}).get("sources") or ()]
        found += ["the built-in world"] if run.of_the_world else []
    return shown(", ".join(found))


def _speed(data: StageData) -> Cell | str:
    """Median of the steps: the first ones compile."""
    rates = sorted(value for _, value in data.series("tokens_per_s"))
    shares = sorted(value for _, value in data.series("mfu"))
    if not rates:
        return "–"
    share = f"{100 * shares[len(shares) // 2]:.0f} % of the measured peak" if shares else ""
    return Cell(f"{count(rates[len(rates) // 2])} tokens/s", share)


def data(run: RunData) -> Section:
    section = Section("data", "The text", "Where each source came from, what cleaning kept, and why the rest was left out.")
    sources = run.ledger.get("sources") or []
    if not sources:
        return section.missing("prepare has left no ledger in this run.")
    rows = []
    for source in sources:
        removed = source.get("removed") or {}
        reasons = ", ".join(f"{name.replace('_', ' ')} {count(what.get('documents'))}" for name, what in sorted(removed.items()) if what.get("documents"))
        dates = source.get("dates") or {}
        span = f"{dates['min']} to {dates['max']}" if dates.get("min") and dates.get("max") else ""
        scrubbed = source.get("scrubbed") or {}
        hidden = ", ".join(f"{value} {name}" for name, value in sorted(scrubbed.items()) if value)
        rows.append(
            [
                Cell(shown(source.get("name", "?")), span, "label", badge="simulated" if source.get("simulated") else ""),
                shown(source.get("licence", "?")),
                Cell(count(source.get("documents_in")), large(source.get("bytes_in"), "B")),
                Cell(count(source.get("documents_kept")), large(source.get("bytes_kept"), "B")),
                count(source.get("validation_documents")),
                Cell(shown(reasons) or "nothing removed", f"scrubbed: {hidden}" if hidden else "", "quiet"),
            ]
        )
    section.blocks.append(Table(["source", "licence", "came in", "kept", "held out", "left out, by reason"], rows))
    lost, repaired = (sum(sum((source.get(name) or {}).values()) for source in sources) for name in ("bad_counts", "repaired_counts"))
    if lost:
        said = f"{count(lost)} records, lines or files could not be read and were set aside; prepare/bad.jsonl names file, line and reason."
        section.blocks.append(Prose(said, tone="note"))
    if repaired:
        said = f"{count(repaired)} lines or values that could not be read as they stood were mended and kept; they stand in prepare/bad.jsonl too."
        section.blocks.append(Prose(said, tone="note"))
    if any(source.get("simulated") for source in sources):
        section.blocks.append(
            Prose(
                "Sources marked simulated were written by this program from a seed: nobody was read, and nothing in them is true of the real world.",
                tone="note",
            )
        )
    return section


def tokenizer(run: RunData) -> Section:
    section = Section("tokenizer", "The tokenizer", "Byte-level BPE: how many bytes of held-out text one token stands for.")
    if not run.compression:
        return section.missing("The tokenizer stage has left no compression report in this run.")
    by_source = run.compression.get("sources") or {}
    rows = []
    for name, entry in sorted(by_source.items(), key=lambda item: (item[0] == "all", item[0])):
        rows.append([Cell(shown(name), tone="label"), *(number(entry.get(key)) for key in ("bytes_per_token", "gzip_ratio", "xz_ratio"))])
    if rows:
        section.blocks.append(Table(["source", "bytes per token", "gzip, raw to packed", "xz, raw to packed"], rows))
    size = run.compression.get("vocab_size") or run.stages["pretrain"].value("vocab_size")
    if size:
        section.blocks.append(
            Prose(f"Vocabulary {count(size)}: an untrained model that guesses evenly has a loss of ln {count(size)} = {math.log(size):.3f} nats.")
        )
    return section


def pretraining(run: RunData) -> Section:
    """The loss from ln V downwards, bits per byte by source, and the probes from noise to sense."""
    section = Section("pretraining", "From noise to language", "Random weights, then one thing over and over: read, predict the next token, compare, correct.")
    stage = run.stages["pretrain"]
    loss, procedural = stage.series("loss_nats"), stage.series("procedural_loss_nats")
    if not loss:
        return section.missing("pretrain has logged no loss in this run (a run may also start from a finished model).")
    ln_v = stage.value("ln_vocab_nats")
    shape = [
        ("parameters", large(stage.value("num_parameters"))),
        ("tokens", large(stage.value("tokens"))),
        ("tokens per parameter (of text)", number(stage.value("tokens_per_parameter"))),
        ("passes over the text", number(stage.value("passes"))),
        ("last loss", f"{number(loss[-1][1])} nats a token"),
    ]
    if ln_v:
        shape.insert(4, ("loss at the first step", f"{number((procedural or loss)[0][1], 4)} nats (ln V = {number(ln_v, 4)})"))
    if procedural:
        shape.insert(2, ("of them in sequences without words", large(stage.value("procedural_tokens"))))
    curves = (("text", "rlhf", loss), ("sequences without words", "sft", procedural))
    section.blocks.append(Table(["", ""], [[Cell(name, tone="label"), value] for name, value in shape]))
    drawings = [
        (
            figure(
                "pretrain-loss",
                "Training loss by step",
                lines(
                    [(name, colour, thinned([(step + 1, y) for step, y in points])) for name, colour, points in curves if points],
                    x="step", y="nats a token", log_x=True,
                    level=("ln V: even guessing", ln_v) if ln_v else None,
                ),
            ),
            "Training loss, steps on a logarithmic scale." + late_text(loss, procedural, ln_v),
        )
    ]
    quality = {name: stage.series(name) for name in _metric_names(stage, "validation_bits_per_byte/")}
    if quality:
        everything = quality.pop("validation_bits_per_byte/all", [])
        drawings.append(
            (
                figure(
                    "pretrain-bits",
                    "Bits per byte of held-out text by step",
                    lines([("all sources", "rlhf", everything)] if everything else [], x="step", y="bits per byte"),
                ),
                "Held-out text: bits needed for a byte.",
            )
        )
        steps = sorted({step for series in quality.values() for step, _ in series} | {step for step, _ in everything})
        rows = []
        for name, series in sorted({**quality, "validation_bits_per_byte/all": everything}.items(), key=lambda item: (item[0].endswith("/all"), item[0])):
            at = dict(series)
            rows.append([Cell(shown(name.split("/", 1)[1]), tone="label"), *(number(at.get(step)) for step in steps)])
        section.blocks.append(Figures(drawings))
        caption = WHILE_TRAINING if run.under("bits_per_byte/base/") else ""
        section.blocks.append(Table(["bits per byte at step", *(count(step) for step in steps)], rows, caption))
    else:
        section.blocks.append(Figures(drawings))
    section.blocks.extend(probes(stage))
    return section


def late_text(loss: list[tuple[float, float]], procedural: list[tuple[float, float]], ln_v: float | None) -> str:
    """Why a loss on text may begin above that of even guessing."""
    if not procedural or not ln_v or loss[0][0] == 0 or loss[0][1] <= 1.01 * ln_v:  # no more than noise: it has learnt nothing yet
        return ""
    return f" Text begins at step {count(loss[0][0] + 1)}, for a model that has learnt other things: worse than even guessing at first."


def probes(stage: StageData) -> list[Probe]:
    seen: dict[str, list] = {}
    for line in stage.metrics:
        if isinstance(line.get("probe"), str):
            top = [(shown(pair[0]), float(pair[1])) for pair in line.get("top5") or [] if len(pair) == 2]
            seen.setdefault(line["probe"], []).append((f"step {count(line['step'])}", top, shown(line.get("completion", ""))))
    return [Probe(shown(text), rows) for text, rows in seen.items()]


def tuning(run: RunData) -> Section:
    section = Section("tuning", "Instruction tuning", "The base model goes on; conversations teach it to answer. Only the answers count in the loss.")
    stage = run.stages["sft"]
    loss, held_out = stage.series("loss_nats"), stage.series("validation_loss_nats")
    if not loss:
        return section.missing("sft has logged no loss in this run.")
    section.blocks.append(
        Figures(
            [
                (
                    figure(
                        "sft-loss",
                        "Loss on answers by step, training and held out",
                        lines([("training", "base", thinned(loss)), ("held out", "rlhf", held_out)], x="step", y="nats a token"),
                    ),
                    "Loss on the answers' tokens. The weights with the lowest held-out loss are kept.",
                )
            ]
        )
    )
    facts = [
        ("conversations", count(stage.value("conversations"))),
        ("passes", number(stage.value("epochs"))),
        ("kept step", f"{count(stage.value('best_step'))} of {count(stage.value('num_steps'))}"),
    ]
    if stage.value("set_aside"):
        facts.append(("set aside as too long", count(stage.value("set_aside"))))
    section.blocks.append(Table(["", ""], [[Cell(name, tone="label"), value] for name, value in facts]))
    return section


def _metric_names(stage: StageData, prefix: str) -> list[str]:
    return sorted({name for line in stage.metrics for name in line if name.startswith(prefix)})


def machine(run: RunData) -> Section:
    """Versions, hardware, settings: what it takes to make the run again."""
    section = Section(
        "again",
        "To make this run again",
        "recipe.toml in the run's folder holds every setting; with the same seed, thread count and torch it gives the same bytes.",
    )
    hardware, versions, git = (run.info.get(name) or {} for name in ("hardware", "versions", "git"))
    rows = [
        ("seed", str(run.recipe.get("seed", "–"))),
        ("processor", hardware.get("processor", "–")),
        ("cores", str(hardware.get("num_cores", "–"))),
        ("versions", ", ".join(f"{name} {value}" for name, value in sorted(versions.items())) or "–"),
        ("commit", f"{git.get('commit', '–')}" + (f", {git['changed_files']} files changed" if git.get("changed_files") else "")),
    ]
    numerics = next((found for stage in run.stages.values() if (found := (stage.record or {}).get("numerics"))), {})  # of the first stage with a model
    if numerics:
        rows.append(("numerics", ", ".join(f"{name} {value}" for name, value in sorted(numerics.items()) if not isinstance(value, (dict, list)))))
    section.blocks.append(Table(["", ""], [[Cell(name, tone="label"), shown(value)] for name, value in rows]))
    for problem in run.problems:
        section.blocks.append(Prose(shown(problem), tone="missing"))
    return section
