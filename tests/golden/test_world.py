"""The world is the same bytes as when its digests were written down, on any Python and under any hash seed.

What a seed makes is part of every number that is published of it. Where a change of the world is meant, write the digests anew
(world_digests.py says how) and say so in the changelog: runs made before are then runs in another world.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from fromnoise.run.recipe_load import load_recipe
from tests.golden.world_digests import GOLDEN, SOURCE, world_digests

VERSIONS = ["3.11", "3.12", "3.13"]


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def test_it_is_the_smoke_recipes_world(golden):
    recipe = load_recipe("smoke")
    assert (golden["seed"], golden["section"]) == (recipe.seed, recipe.world.model_dump())
    assert {"documents", "facts.jsonl", "prompts.jsonl", "conversations_curated.jsonl", "conversations_noisy.jsonl"} <= golden["sha256"].keys()


def test_the_world_is_the_same_bytes_and_another_seeds_is_not(golden):
    section = load_recipe("smoke").world
    assert world_digests(golden["seed"], section) == golden["sha256"]
    other = world_digests(golden["seed"] + 1, section)
    assert all(other[name] != digest for name, digest in golden["sha256"].items())


@pytest.mark.parametrize("version", VERSIONS)
def test_other_pythons_make_the_same_bytes(golden, version):
    """Under a hash seed of their own. Of this Python's own version, another hash seed alone."""
    own = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if own else shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no python{version} on PATH that starts")
    environment = {**os.environ, "PYTHONHASHSEED": version.removeprefix("3."), "PYTHONPATH": str(SOURCE.parent)}
    command = [python, "-m", "tests.golden.world_digests"]
    done = subprocess.run(command, env=environment, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == golden
