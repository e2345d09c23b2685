"""Files that are either there whole or not there: atomic writes, content hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fromnoise.run.errors import UserError


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_atomic(path: Path, text: str) -> None:
    """Write through a temporary file beside `path`, fsync, rename: a reader or a kill sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails, on a full disk say, names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, to_json(value, indent=1, allow_nan=False) + "\n")


def to_json(value: Any, **options: Any) -> str:
    """JSON in readable characters; a lone surrogate (of a file name that is not UTF-8) as the escape that JSON has for it."""
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "backslashreplace").decode()


def local_model(name: str, key: str = "") -> Path | None:
    """The model folder here that `name` is, or None: a Hub id (owner/name). Raises UserError for what can be neither, `key` before it."""
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        what = "no model folder there (a folder with config.json and model.safetensors), and no Hub id (owner/name)"
        raise UserError(f"{key}{name}: {what}; if it was moved, say where it is now: from=FOLDER")
    return None


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(hashes: dict[str, str]) -> str:
    """One hash for a set of named contents, whatever order they were found in."""
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


class HashCache:
    """Content hashes by path, recomputed when size or modification time changed (what make and git do).

    Kept in one JSON file so that asking whether a finished run is up to date does not read its gigabytes again.
    """

    def __init__(self, path: Path):
        self.path, self._changed = path, False
        try:
            found = read_json(path)
        except (OSError, ValueError):
            found = None
        entries = found.items() if isinstance(found, dict) else ()  # what another program made of the file is computed anew
        self._known: dict[str, list] = {key: known for key, known in entries if isinstance(known, list) and len(known) == 3 and isinstance(known[2], str)}

    def sha256(self, path: Path) -> str:
        stat = path.stat()
        key, mark = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[:2] != mark:
            self._known[key] = known = [*mark, sha256_file(path)]
            self._changed = True
        return known[2]

    def save(self) -> None:
        """Write the cache when it learnt something; a read-only run folder is no error."""
        if not self._changed:
            return
        self._known = {key: value for key, value in self._known.items() if os.path.exists(key)}
        try:
            write_json(self.path, self._known)
        except OSError:
            return
        self._changed = False


def files_under(folder: Path, skip: Iterable[str] = ()) -> list[Path]:
    """Every file below `folder` in a fixed order, without hidden ones and without those below a name in `skip`."""
    skip = set(skip)
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts) and not skip.intersection(parts):
            found.append(path)
    return found
