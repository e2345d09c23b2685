"""report: a run folder to one self-contained page, report.html.

Reads the JSON the stages left (never the weights, never the clock), so the same folder gives the same bytes. Stages
that have not run are said to be missing.
"""

from __future__ import annotations

from pathlib import Path

from fromnoise.report.page import render
from fromnoise.run.errors import UserError, is_disk_full
from fromnoise.run.files import write_atomic


def run(run_folder: str | Path) -> Path:
    """Write RUN/report.html and return its path. UserError when the folder is no run."""
    folder = Path(run_folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a run folder, for example runs/world")
    path = folder / "report.html"
    text = render(folder)
    try:
        write_atomic(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); {'free some space' if is_disk_full(error) else f'make {folder} writable'}") from None
    return path
