"""fromnoise: from random noise to a model that can reason. One tool, one run, every claim measured.

    import fromnoise
    run = fromnoise.run("world", budget="10m", run_dir="runs/short")
    run.rlhf.chat("Where does Hazel Scoble live?")
    fromnoise.load("runs/world/sft").complete("The cat sat on the")

Importing this package loads nothing heavy; torch comes with the first call.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `fromnoise.run` is the package below and the function of the same name at once: a package that can be called.
from fromnoise import run as _run

if TYPE_CHECKING:
    from fromnoise.api import Model, Run

__version__ = "0.1.0"
__all__ = ["load", "run"]


class _CallableRun(types.ModuleType):
    def __call__(self, recipe: str | Path = "world", **overrides: Any) -> Run:
        """Carry a recipe out, or go on with it; see `fromnoise.api.run_recipe`."""
        from fromnoise.api import run_recipe

        return run_recipe(recipe, **overrides)


_run.__class__ = _CallableRun


def load(path: str | Path) -> Model:
    """The model in a model folder, or the latest finished one of a run folder; see `fromnoise.api.load_model_folder`."""
    from fromnoise.api import load_model_folder

    return load_model_folder(path)
