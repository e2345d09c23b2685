"""The run folder: where things are, who holds it, where its contents came from.

runs/NAME/
  recipe.toml     resolved: every setting
  run.json        versions, hardware, git state, and the lineage of every stage by content hash
  <stage>/        artefacts, stage.json, metrics.jsonl, and train_state/ while the stage is under way
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from fromnoise.pipeline import STAGES, Stage
from fromnoise.run.errors import UserError
from fromnoise.run.files import HashCache, digest_of, files_under, read_json, sha256_file, write_json

SCHEMA_VERSION = 1
NOT_OUTPUTS = ("stage.json", "metrics.jsonl", "train_state")  # what a stage's folder holds beside its artefacts
BAD_RECORDS = "bad.jsonl"  # what a stage set aside while reading; one that refuses leaves it behind, since its message names it
PACKAGES = ("fromnoise", "torch", "numpy", "tokenizers", "safetensors", "pydantic")


def is_made(path: Path) -> bool:
    """Whether something in a stage's folder says that the stage was begun: hidden files (half a stage.json, .DS_Store) and bad.jsonl do not."""
    return not path.name.startswith(".") and path.name != BAD_RECORDS


class RunFolder:
    """One run on disk. Making the object touches nothing; `create()` makes the folder."""

    def __init__(self, path: Path | str):
        self.path = Path(os.path.expanduser(path))
        self._hashes: HashCache | None = None

    def create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}") from None

    @property
    def hashes(self) -> HashCache:
        if self._hashes is None:
            self._hashes = HashCache(self.path / ".hashes.json")
        return self._hashes

    def stage_dir(self, name: str) -> Path:
        """The folder a stage writes: `base`, `sft`, ..."""
        return self.path / name

    # -- stage.json ---------------------------------------------------------------------------------------------

    def record(self, stage: Stage) -> dict[str, Any] | None:
        """The stage's stage.json, None where there is none."""
        path = self.stage_dir(stage.writes[0]) / "stage.json"
        try:
            record = read_json(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); a run is a folder, with one folder for each stage") from None
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON ({error}); move the folder away to make this stage again") from None
        kinds = {"status": str, "config": dict, "inputs": dict, "outputs": dict}
        if not isinstance(record, dict) or any(not isinstance(record.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"{path} is no record of a stage ({', '.join(kinds)}); move the folder away to make this stage again")
        return record

    def outputs(self, stage: Stage) -> dict[str, str]:
        """The stage's artefacts as they are on disk now: path relative to the run -> sha256."""
        return {
            str(path.relative_to(self.path)): self.hashes.sha256(path)
            for name in stage.writes
            if self.stage_dir(name).is_dir()
            for path in files_under(self.stage_dir(name), skip=NOT_OUTPUTS)
        }

    def digest(self, name: str) -> str:
        """One hash for the artefacts in the folder `name` of this run."""
        return folder_digest(self.stage_dir(name), self.hashes)

    def move_aside(self, stage: Stage) -> list[tuple[str, str]]:
        """Rename every folder the stage writes to NAME.old-K, the first K that is free for all of them."""
        present = [name for name in stage.writes if self.stage_dir(name).exists()]
        number = 1
        while any((self.path / f"{name}.old-{number}").exists() for name in stage.writes):
            number += 1
        moved = [(name, f"{name}.old-{number}") for name in present]
        for old, new in reversed(moved):  # the folder with stage.json goes last: cut off half-way, the rest can follow
            os.rename(self.path / old, self.path / new)
        return moved

    def clean_up(self, stage: Stage) -> None:
        """Remove the state of its training and what kills left behind: half-written files and models, `.NAME.tmp-PID`, of processes that
        are gone. Whoever holds the run is the only one to write them (a report is anybody's)."""
        shutil.rmtree(self.stage_dir(stage.writes[0]) / "train_state", ignore_errors=True)
        half_written = [path for name in ("recipe.toml", "run.json", *stage.writes) for path in self.path.glob(f".{name}.tmp-*")]
        half_written += [path for name in stage.writes for path in self.stage_dir(name).rglob(".*.tmp-*")]
        for path in half_written:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    # -- run.json -----------------------------------------------------------------------------------------------

    def read_info(self) -> dict[str, Any]:
        try:
            return read_json(self.path / "run.json")
        except (FileNotFoundError, ValueError):
            return {}

    def write_info(self, **entries: Any) -> None:
        """Set top-level entries of run.json, keeping the others."""
        info = self.read_info() or {"schema_version": SCHEMA_VERSION, "created": now(), "stages": {}}
        write_json(self.path / "run.json", {**info, **entries})

    def write_lineage(self, stage: Stage, record: dict[str, Any]) -> None:
        """What run.json keeps of a finished stage. Also asked of one that was finished before: a kill may have come between its stage.json and this."""
        known = self.read_info().get("stages", {})
        kept = {key: record.get(key) for key in ("inputs", "config", "outputs", "numerics", "seed", "finished")}
        if known.get(stage.verb) != kept:
            self.write_info(stages={**known, stage.verb: kept})

    # -- one process at a time ----------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel lets go when the process ends, however it ends.

        Raises UserError when another process holds it.
        """
        path = self.path / ".lock"
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): make {self.path} writable, or use another folder with --run-dir") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode().strip() or "another process"
                raise UserError(f"{self.path} is in use by {holder}; wait for it, stop it, or use another folder with --name") from None
            file.seek(0)
            file.truncate()
            try:
                file.write(f"process {os.getpid()} on {platform.node()} since {now()}".encode())
            except OSError as error:
                error.filename = str(path)
                raise
            try:
                yield
            finally:
                file.truncate(0)

    # -- tokenizers ---------------------------------------------------------------------------------------------

    def check_tokenizers(self, folders: dict[str, Path]) -> None:
        """Refuse to let two parents with different tokenizers meet: a token id would mean two things."""
        found = {name: sha256_file(folder / "tokenizer.json") for name, folder in folders.items() if (folder / "tokenizer.json").is_file()}
        if len(set(found.values())) > 1:
            listed = "; ".join(f"{name}/tokenizer.json has sha256 {value}" for name, value in found.items())
            raise UserError(f"{self.path}: its models were made with different tokenizers and cannot work together: {listed}")


def folder_digest(folder: Path, hashes: HashCache) -> str:
    return digest_of({str(path.relative_to(folder)): hashes.sha256(path) for path in files_under(folder, skip=NOT_OUTPUTS)})


def stage_of(verb: str) -> Stage:
    return next(stage for stage in STAGES if stage.verb == verb)


def writer_of(folder: str) -> Stage:
    """The stage that writes the folder `name` of a run."""
    return next(stage for stage in STAGES if folder in stage.writes)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def environment() -> dict[str, Any]:
    """Versions, hardware and git state, as run.json keeps them. Reads package metadata; imports nothing heavy."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hardware = {"machine": platform.machine(), "processor": processor_name(), "num_cores": os.cpu_count(), "system": platform.system()}
    return {"versions": versions, "hardware": hardware, "git": git_state(), "command": sys.argv}


def processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout this package runs from; None for an installed package."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD") or None, "changed_files": len(git("status", "--porcelain").splitlines())}
    except (OSError, subprocess.TimeoutExpired):
        return None
