"""What a stage gets to work with: its recipe and folder, decisions that survive a kill, checkpoints, metrics, a console."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fromnoise.data.files import BadRecord, most_often
from fromnoise.parallel.process import Process
from fromnoise.pipeline import Stage
from fromnoise.run import machine as machines
from fromnoise.run.budget import expected_s
from fromnoise.run.checkpoint import Checkpointer
from fromnoise.run.console import Console, Progress, describe
from fromnoise.run.errors import UserError
from fromnoise.run.files import fsync_file, fsync_folder, local_model, read_json, to_json, write_json
from fromnoise.run.folder import BAD_RECORDS, RunFolder, is_made, now
from fromnoise.run.interrupts import Interrupts
from fromnoise.run.machine import Machine
from fromnoise.run.metrics import MetricsLog, plain
from fromnoise.run.recipe import Recipe
from fromnoise.run.seeds import seed_from

SCHEMA_VERSION = 1
IN_PARTS = ("prefer", "evaluate")  # stages without steps, which keep each part of their work once it is whole


class StageContext:
    """Given to `stages/X.py: run(ctx)`. Made by `run/execute.py`, or directly in tests.

    stage, recipe, run: what to do, with which settings, where. inputs, config: what stage.json records of them.
    Opening a context begins the stage, or goes on with it: the metrics are cut back to the latest checkpoint.
    """

    def __init__(
        self,
        stage: Stage,
        recipe: Recipe,
        run: RunFolder,
        *,
        inputs: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        process: Process | None = None,
        console: Console | None = None,
        interrupts: Interrupts | None = None,
        allow_different_numerics: bool = False,
    ):
        self.stage, self.recipe, self.run = stage, recipe, run
        self.process, self.console = process or Process.single(), console or Console()
        self.interrupts, self.allow_different_numerics = interrupts or Interrupts(), allow_different_numerics
        self.folder: Path = run.stage_dir(stage.writes[0])
        self.seed: int = seed_from(recipe.seed, stage.verb)
        self.finished, self._machine, self._measured_again = False, None, False
        self._bad: Counter[tuple[str, str]] = Counter()  # by kind and reason, since the last check
        self._first_bad: dict[tuple[str, str], str] = {}  # where
        self._began = time.perf_counter()
        self._elapsed_before = 0.0

        if self.process.is_main:
            for name in stage.writes:
                run.stage_dir(name).mkdir(parents=True, exist_ok=True)
        self.process.barrier()
        self.record = self.process.broadcast(run.record(stage) if self.process.is_main else None)
        self._resumed = self.record is not None
        if not self._resumed:
            self.record = {
                "schema_version": SCHEMA_VERSION, "verb": stage.verb, "status": "running", "started": now(), "seed": self.seed,
                "inputs": inputs or {}, "config": config or {}, "decisions": {}, "numerics": None, "numerics_changes": [],
                "outputs": {}, "seconds": None, "tokens": None, "flops": None, "summary": {}, "finished": None,
            }  # fmt: skip
            self._write_record()
        elif self.record["numerics"]:
            self.machine  # noqa: B018  refuses other numerics before anything is cut back
        self._metrics = MetricsLog(self.folder / "metrics.jsonl", stage.verb)
        self.checkpoint = Checkpointer(
            self.folder / "train_state",
            decide=self.decide,
            metrics_bytes=self._metrics.size,
            elapsed_s=self.elapsed_s,
            # One rank cannot stop on its own between planned checkpoints: the others would wait for it for ever.
            interrupted=self.interrupts.requested if self.process.world_size == 1 else lambda: None,
            warn=self.console.warn,
            write=self.process.is_main,
        )
        if self.process.is_main:
            (self.folder / BAD_RECORDS).unlink(missing_ok=True)  # of an earlier try: what is read is read from the beginning
        if self._resumed:
            self._cut_back()

    def _cut_back(self) -> None:
        saved = self.checkpoint.peek()
        step = saved.step if saved else 0
        if (main := self.process.broadcast(step)) != step:
            raise UserError(
                f"{self.checkpoint.folder}: rank {self.process.rank} finds a checkpoint of {step:,} steps there, rank 0 one of {main:,}; all ranks need the "
                f"run's folder on a file system that they share"
            )
        self._elapsed_before = saved.elapsed_s if saved else 0.0
        if self.process.is_main:
            self._metrics.truncate(saved.metrics_bytes if saved else 0)
        self.process.barrier()
        if self.record["status"] == "waiting":
            self.info(f"{self.stage.verb}: looking again; it was waiting, {self.record['waiting']}")
            return
        begun = "going on with the parts that are missing" if self.stage.verb in IN_PARTS else "cut off before a checkpoint, begun again"
        self.info(f"{self.stage.verb}: " + (f"going on after step {saved.step:,}" if saved else begun))

    # -- where things are ---------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """A folder of this run: `ctx.path("sft")`."""
        return self.run.stage_dir(name)

    def parent(self, name: str) -> Path:
        """The model folder a stage starts from: the run's own, or for `base` the recipe's `from`.

        Of a model of the Hub, the commit that the run's first stage fetched is recorded and fetched ever after: a repository that
        moves on would change the base of a stage that is cut off and goes on, and what `evaluate` calls the base.
        """
        source = self.recipe.sft_from
        if source is None or name != "base":
            return self.path(name)
        from fromnoise.model.hf import model_folder

        if (folder := local_model(source)) is not None:
            return folder
        # in the Hub's cache a folder's name is its commit
        return model_folder(source, self.decide("from_commit", lambda: self._fetched_commit() or model_folder(source).name))

    def _fetched_commit(self) -> str | None:
        """The commit of `from` that an earlier stage of this run fetched."""
        record = self.run.path / "sft" / "stage.json"
        return read_json(record)["decisions"].get("from_commit") if record.exists() else None

    # -- decisions and the machine ------------------------------------------------------------------------------

    def decide(self, key: str, make: Callable[[], Any]) -> Any:
        """`make()` at the first call, recorded in stage.json before it is used; ever after, what was recorded.

        For everything that clock or measurement decides. The value must be what JSON can hold. With several ranks the
        main one decides; all must call.
        """
        if key not in self.record["decisions"]:
            value = self.process.broadcast(make() if self.process.is_main else None)
            self.record["decisions"][key] = json.loads(json.dumps(plain(value)))
            self._write_record()
        return self.record["decisions"][key]

    @property
    def machine(self) -> Machine:
        """Device, dtype, compile, threads: decided once a stage. Sets threads and determinism."""
        if self._machine is None:
            self._machine = self._open_machine()
            machines.apply(self._machine)
        return self._machine

    def _open_machine(self) -> Machine:
        machines.prepare_environment()
        device, num_threads = machines.resolve_device(self.recipe.device), machines.threads(self.recipe.num_threads)
        profile = self._profile(device, num_threads)
        speeds = profile["matmul_flops_per_s"]
        guess_s = expected_s(self.recipe, self.stage.verb, max(speeds.values()))
        decided = self.decide("machine", lambda: machines.choose(self.recipe, profile, guess_s).as_dict())
        wanted = Machine(**{**decided, "device_type": device, "num_threads": num_threads})
        if self.recipe.compile != "auto" and wanted.compile != (self.recipe.compile == "on"):
            wanted = Machine(**{**wanted.as_dict(), "compile": machines.should_compile(self.recipe.compile, guess_s, device)})
        self._check_numerics(machines.numerics(wanted, self.process.world_size))
        if wanted.as_dict() != decided:
            self.record["decisions"]["machine"] = wanted.as_dict()
            self._write_record()
        return wanted

    def _profile(self, device: str, num_threads: int) -> dict[str, Any]:
        """The machine's speeds, the best that this run has seen: a neighbour can hold up a whole measurement (68 GFLOP/s once where
        105 to 127 were found before and after), so each stage that takes minutes measures again before it decides."""
        if not self.process.is_main:
            return self.process.broadcast(None)
        known = self.run.read_info().get("machine")
        if known and known["fingerprint"] != machines.fingerprint(device, num_threads):
            known = None
        decided = "machine" in self.record["decisions"]
        if not known or (not decided and expected_s(self.recipe, self.stage.verb, max(known["matmul_flops_per_s"].values())) >= machines.COMPILE_PAYS_S):
            known = self._measure(device, num_threads, known)
        return self.process.broadcast(known)

    def _measure(self, device: str, num_threads: int, known: dict[str, Any] | None) -> dict[str, Any]:
        """The best of what is `known` and of a measurement made now, kept in run.json."""
        found, speeds = machines.measure(device, num_threads), known["matmul_flops_per_s"] if known else {}
        best = {**found, "matmul_flops_per_s": {name: max(speed, speeds.get(name, 0.0)) for name, speed in found["matmul_flops_per_s"].items()}}
        if best != known:
            self.run.write_info(machine=best)
        if max(best["matmul_flops_per_s"].values()) > 1.1 * max(speeds.values(), default=0.0):
            self.info(machines.describe_profile(best))
        return best

    def _check_numerics(self, found: dict[str, Any]) -> None:
        recorded = self.record["numerics"]
        if recorded == found:
            return
        if recorded is not None:
            changes = ", ".join(f"{key} {recorded.get(key)} -> {found.get(key)}" for key in sorted(found) if recorded.get(key) != found[key])
            if not self.allow_different_numerics:
                raise UserError(
                    f"{self.stage.verb} was begun with other numerics ({changes}): going on would not end in the same bytes. Set them back, "
                    f"go on all the same with --allow-different-numerics, or start this stage again with --rerun"
                )
            self.console.warn(f"{self.stage.verb} goes on with other numerics: {changes}")
            self.record["numerics_changes"].append({"date": now(), "before": recorded, "after": found})
        self.record["numerics"] = found
        self._write_record()

    # -- telling ------------------------------------------------------------------------------------------------

    def log(self, step: int, **metrics: Any) -> None:
        """A line of metrics.jsonl; a validation's is shown on the console too, a step's is what `progress` shows."""
        if not self.process.is_main:
            return
        self._metrics.write(step, self.elapsed_s(), metrics)
        shown = {name: value for name, value in plain(metrics).items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
        if shown and all(name.startswith(("validation", "audit", "heldout")) for name in shown):
            self.info(f"{self.stage.verb} step {step:,}: {describe(shown)}")

    def rates(self, tokens: int, seconds: float, token_flops: float) -> dict[str, float]:
        """{"tokens_per_s", "mfu"} of `tokens` on all ranks together: mfu is the fraction of the measured peak, once for each rank. More
        than all of it means that the measurement was held up, so the machine is measured again, once a stage."""
        per_s = tokens / max(seconds, 1e-9)
        if self.process.is_main and not self._measured_again and per_s * token_flops > self.machine.peak_flops * self.process.world_size:
            self._measured_again = True
            best = self._measure(self.machine.device_type, self.machine.num_threads, self.run.read_info().get("machine"))
            self._machine = dataclasses.replace(self.machine, peak_flops=best["matmul_flops_per_s"][self.machine.dtype])
            self.record["decisions"]["machine"] = self._machine.as_dict()
            self._write_record()
        return {"tokens_per_s": per_s, "mfu": per_s * token_flops / (self.machine.peak_flops * self.process.world_size)}

    def info(self, text: str) -> None:
        """A line on the console, kept nowhere."""
        if self.process.is_main:
            self.console.line(text)

    def progress(self, total: int, unit: str = "step", start: int = 0) -> AbstractContextManager[Progress]:
        """`with ctx.progress(100, "step", start) as progress: progress.advance(1, loss=...)`."""
        console = self.console if self.process.is_main else Console(quiet=True)
        return console.progress(self.stage.verb, total, unit, start)

    def elapsed_s(self) -> float:
        """Seconds spent on this stage, those before the latest checkpoint of an earlier process included."""
        return self._elapsed_before + time.perf_counter() - self._began

    # -- bad records --------------------------------------------------------------------------------------------

    def on_bad(self, record: BadRecord) -> None:
        """Note what could not be read: written to bad.jsonl with file, line and reason, counted unless it was repaired."""
        self._bad[record.kind, record.reason] += 1
        self._first_bad.setdefault((record.kind, record.reason), record.place)
        if self.process.is_main:
            fields = {name: getattr(record, name) for name in ("file", "line", "reason", "excerpt", "kind")}
            with (self.folder / BAD_RECORDS).open("a", encoding="utf-8") as file:
                file.write(to_json(fields) + "\n")

    def check_bad(self, num_good: int, path: str) -> None:
        """Raise UserError when more records were malformed than `data.max_bad_frac` allows; say how many otherwise.

        Judges what was read since the last check: a bad file must not pass because another is large and good. num_good: records of `path`,
        whatever each of them holds. Files that hold no records (a README beside them), or whose end is lost, do not count.
        """
        lost = {key: count for key, count in self._bad.items() if key[0] in ("record", "file")}
        num_bad, num_files = (sum(count for (of, _), count in lost.items() if of == kind) for kind in ("record", "file"))
        reason = most_often({key: count for key, count in lost.items() if key[0] == "record"} or lost, self._first_bad)
        self._bad.clear()
        self._first_bad.clear()
        said = f"{path}: {num_bad:,} of {num_good + num_bad:,} records"
        if num_bad or num_files:
            files = f", and {num_files:,} file{'s' if num_files > 1 else ''} not read, or not to the end" if num_files else ""
            self.info(f"{said} set aside{files}, with reasons in {self.folder / BAD_RECORDS}.{reason}")
        if num_bad > self.recipe.data.max_bad_frac * (num_good + num_bad):
            raise UserError(
                f"{said} are malformed, more than data.max_bad_frac = {self.recipe.data.max_bad_frac} allows.{reason} "
                f"See {self.folder / BAD_RECORDS}, mend the files or raise the limit"
            )

    # -- the end ------------------------------------------------------------------------------------------------

    def wait(self, what: str) -> None:
        """Note that the stage has ended its turn because people have something to do first: "120 of 500 pairs labelled"."""
        self.interrupts.reset()
        self._metrics.close()
        self.record.update(status="waiting", waiting=what)
        self._write_record()

    def withdraw(self) -> None:
        """Leave no trace of a stage that refused before it had made anything: what it named can then be changed without `--rerun`.

        Hidden files and bad.jsonl stay, at which no verdict looks: the message may name a list among them.
        """
        self._metrics.close()
        if not self.process.is_main or self._resumed or self._metrics.size() or self.checkpoint.peek():  # other ranks look at no folder that goes
            return
        if self.run.outputs(self.stage).keys() - {f"{self.stage.writes[0]}/{BAD_RECORDS}"}:
            return
        for name in self.stage.writes:
            folder = self.run.stage_dir(name)
            for path in folder.iterdir():
                if is_made(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

    def finish(self, summary: dict[str, Any]) -> None:
        """Declare the stage done: hashes of everything in the folders it writes, its summary ("tokens" and "flops" are lifted out of it)."""
        self.interrupts.reset()
        self._metrics.close()
        if self.process.is_main:
            found = self.run.outputs(self.stage)
            for path in found:
                fsync_file(self.run.path / path)
            for name in self.stage.writes:
                fsync_folder(self.run.stage_dir(name))
            summary = plain(summary)
            self.record.pop("waiting", None)
            self.record.update(
                status="done", outputs=found, summary=summary, seconds=round(self.elapsed_s(), 3), finished=now(),
                tokens=summary.get("tokens"), flops=summary.get("flops"),
            )  # fmt: skip
            self._write_record()
            self.run.clean_up(self.stage)
            self.run.write_lineage(self.stage, self.record)
            self.run.hashes.save()
        self.finished = True
        self.process.barrier()

    def _write_record(self) -> None:
        if self.process.is_main:
            write_json(self.folder / "stage.json", self.record)
