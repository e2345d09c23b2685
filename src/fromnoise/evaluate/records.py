"""Measured examples on disk: one JSON line each, a file appearing whole or not at all.

Every number in `summary.json` can be recomputed from these files. A file that is there is complete, so an evaluation
that was cut off goes on with the first one missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fromnoise.run.errors import UserError
from fromnoise.run.machine import give_back_pages


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Atomic: written beside, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False).encode("utf-8", "replace").decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_jsonl(path: Path) -> list[dict]:
    """Records of a file this program wrote; an absent file has none. Raises UserError for one that was damaged since."""
    if not path.exists():
        return []
    records = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip():
                    records.append(json.loads(line.decode()))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: damaged ({error}); remove the file and start again, which makes it anew") from None
    return records


def is_there(path: Path) -> bool:
    """Whether a file of records was made. One that lost all its bytes (a power cut, on a file system that lies about fsync) is made again."""
    return path.exists() and path.stat().st_size > 0


def part(folder: Path, name: str, make: Callable[[], Iterable[dict]]) -> list[dict]:
    """The records of `folder/name.jsonl`: read when the file is there, else made and written.

    Always returned as read back from the file, so that a resumed evaluation sees exactly what an uninterrupted one did.
    """
    path = folder / f"{name}.jsonl"
    if not is_there(path):
        write_jsonl(path, make())
        give_back_pages()  # parts ask for blocks of many sizes, and glibc would keep those of all of them
    return read_jsonl(path)


def rounded(value: float | None) -> float | None:
    """Floats as they go into records: six digits, None for what is not a number (JSON knows no NaN)."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(float(value), 6)
