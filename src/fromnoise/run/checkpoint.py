"""Checkpoints of a stage under way: whole or absent, never half.

    train_state/step-000120/
      tensors.safetensors   "model/embed_tokens.weight", "optimizer/...", ...
      state.json            step, the stage's own state, length of metrics.jsonl, seconds so far, sha256 of the tensors

Everything is written to a hidden folder, fsynced, and appears by one rename; the two latest are kept. Nothing is a pickle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.run.errors import Interrupted, UserError, is_disk_full
from fromnoise.run.files import fsync_file, fsync_folder, read_json, sha256_file, write_json
from fromnoise.run.metrics import plain

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
NUM_KEPT = 2


@dataclass(frozen=True, slots=True)
class Saved:
    step: int  # steps done; the next one to do has this index
    tensors: dict[str, Tensor]  # "group/name" -> tensor, on the CPU
    state: dict[str, Any]  # what the stage passed to `save`
    metrics_bytes: int
    elapsed_s: float

    def group(self, name: str) -> dict[str, Tensor] | None:
        """The tensors saved as a dict under `name`; None when that group was None."""
        found = {key.removeprefix(name + "/"): value for key, value in self.tensors.items() if key.startswith(name + "/")}
        return found or None


class Checkpointer:
    """What a stage sees as `ctx.checkpoint`.

    folder: the stage's `train_state`. decide: `ctx.decide`. metrics_bytes, elapsed_s: asked at each save.
    interrupted: returns the name of a signal that asked to stop, or None. write: False on all ranks but the main one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        decide: Callable[[str, Callable[[], Any]], Any],
        metrics_bytes: Callable[[], int] = lambda: 0,
        elapsed_s: Callable[[], float] = lambda: 0.0,
        interrupted: Callable[[], str | None] = lambda: None,
        warn: Callable[[str], None] = print,
        write: bool = True,
    ):
        self.folder = folder
        self._decide, self._metrics_bytes, self._elapsed_s = decide, metrics_bytes, elapsed_s
        self._interrupted, self._warn, self._write = interrupted, warn, write
        self._every_steps: int | None = None
        self._held: Saved | None = None  # read by `peek`, waiting for `load`

    def plan(self, step_s: float, every_s: float) -> None:
        """Fix the number of steps between checkpoints from a measured step time; a resumed stage keeps the first answer."""
        self._every_steps = self._decide("checkpoint_every_steps", lambda: max(1, round(every_s / max(step_s, 1e-6))))

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps are done: at every planned one, and at once when asked to stop."""
        if self._every_steps is None:
            raise RuntimeError("call ctx.checkpoint.plan(step_s, every_s) before ctx.checkpoint.due(step)")
        return self._interrupted() is not None or step % self._every_steps == 0

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> None:
        """Save what the stage needs to go on after `step` steps.

        tensors: name -> tensor, or name -> dict of tensors (a group), or None (left out). state: anything JSON holds.
        Raises UserError on a full disk, leaving the earlier checkpoints as they were, and Interrupted after the save
        when Ctrl-C or SIGTERM had asked to stop.
        """
        if self._write:
            self._save(step, _flat(tensors), dict(state or {}))
        reason = self._interrupted()
        if reason is not None:
            raise Interrupted(f"stopped by {reason} after step {step}, saved")

    def _save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        final, temporary = self.folder / f"step-{step:06d}", self.folder / f".tmp-step-{step:06d}"
        self.folder.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            save_file(tensors, temporary / "tensors.safetensors")
            fsync_file(temporary / "tensors.safetensors")
            entry = {
                "schema_version": SCHEMA_VERSION,
                "step": step,
                "state": plain(state),  # a loss that was not finite, of an update that was skipped, is null
                "metrics_bytes": self._metrics_bytes(),
                "elapsed_s": round(self._elapsed_s(), 3),
                "tensors_sha256": sha256_file(temporary / "tensors.safetensors"),
            }
            write_json(temporary / "state.json", entry)
            if final.exists():  # only after a resume from an older one, because this one was damaged
                shutil.rmtree(final)
            os.rename(temporary, final)
            fsync_folder(self.folder)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_disk_full(error):
                again = "it goes on from the last one, which is whole" if self._found() else "there is none yet, so the stage begins anew"
                raise UserError(f"the disk is full: no room for a checkpoint in {self.folder}; free some space and start again: {again}") from None
            raise
        for old in self._found()[:-NUM_KEPT]:
            shutil.rmtree(old)

    def peek(self) -> Saved | None:
        """What `load` will return, read once for both."""
        self._held = self.load()
        return self._held

    def load(self) -> Saved | None:
        """The newest whole checkpoint, None when there is none. A damaged one is reported and passed over."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        found = self._found()
        for number, folder in reversed(list(enumerate(found))):
            try:
                return self._read(folder)
            except Exception as error:  # truncated, unreadable, not JSON, wrong hash: all mean "use the one before"
                self._warn(f"{folder} is damaged ({error}); {'using the checkpoint before it' if number else 'there is none before it'}")
        return None

    def _read(self, folder: Path) -> Saved:
        from safetensors.torch import load_file

        entry = read_json(folder / "state.json")
        if sha256_file(folder / "tensors.safetensors") != entry["tensors_sha256"]:
            raise ValueError("the tensors' sha256 is not the recorded one")
        tensors = load_file(folder / "tensors.safetensors")
        return Saved(entry["step"], tensors, entry["state"], entry["metrics_bytes"], entry["elapsed_s"])

    def _found(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("step-*") if path.is_dir()), key=lambda path: int(path.name[5:]))


def _flat(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Groups as "group/name"; contiguous copies where tensors share memory, which safetensors refuses."""
    flat: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value is None:
            continue
        for key, tensor in (value if isinstance(value, Mapping) else {"": value}).items():
            flat[f"{name}/{key}" if isinstance(value, Mapping) else name] = tensor.detach().cpu().contiguous()
    seen: set[int] = set()
    for key, tensor in flat.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            flat[key] = tensor.clone()
        seen.add(place)
    return flat
