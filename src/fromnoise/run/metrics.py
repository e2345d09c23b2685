"""metrics.jsonl: one JSON object a line, appended while a stage runs, cut back when it resumes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 1


class MetricsLog:
    """Appends lines to `path`. `size()` goes into each checkpoint, `truncate(size)` undoes what came after it.

    A checkpoint remembers the log's length in bytes rather than a step, so that lines written after it vanish on
    resume whatever their step was, and a line half written by a kill vanishes with them.
    """

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage
        self._file = None

    def write(self, step: int, time_s: float, values: dict[str, Any]) -> None:
        line = {"schema_version": SCHEMA_VERSION, "stage": self.stage, "step": step, "time_s": round(time_s, 3)}
        line.update({name: plain(value) for name, value in values.items()})
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def size(self) -> int:
        """Bytes written so far, safely on disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, size: int) -> None:
        self.close()
        if self.path.exists() and self.path.stat().st_size > size:
            os.truncate(self.path, size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def plain(value: Any) -> Any:
    """A value as JSON has it: tensors and numpy numbers become Python's, a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first; a last line still being written is left out. No file: no lines."""
    if not os.path.exists(path):
        return []
    lines = []
    for line in Path(path).read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def averages(records: list[dict]) -> dict[str, float]:
    """The mean of each number over the records that have it. Where these are means themselves, `count` (an int) says of how many each is."""
    names = sorted({name for record in records for name in record if isinstance(record[name], float)})
    found = {}
    for name in names:
        counts, values = np.array([(record.get("count", 1), record[name]) for record in records if name in record]).T
        found[name] = float(counts @ values) / max(float(counts.sum()), 1.0)
    return found
