"""sha256 of a small world, of the smoke recipe's size and seed. It needs the standard library alone, so that any Python can say.

    python -m tests.golden.world_digests > new.json && mv new.json tests/golden/world.json      # after a change of the world that is meant
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from hashlib import sha256
from pathlib import Path

GOLDEN = Path(__file__).parent / "world.json"
SOURCE = Path(__file__).parents[2] / "src"
FIELDS = ("text", "source", "doc_id", "date", "licence", "exempt")  # of a document: what the world says; readers note more


def world_digests(seed: int, section) -> dict[str, str]:
    """section: a WorldSection. {"documents", "facts.jsonl", "prompts.jsonl", ...: sha256}"""
    from fromnoise.world.build import documents
    from fromnoise.world.records import write_records

    digest = sha256()
    for document in documents(seed, section):
        digest.update(json.dumps({name: getattr(document, name) for name in FIELDS}, sort_keys=True).encode() + b"\n")
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), seed, section)
        return {"documents": digest.hexdigest()} | {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


if __name__ == "__main__":
    sys.path.insert(0, str(SOURCE))
    # The world takes a name from fromnoise.run.recipe, whose pydantic the Python at hand may not have.
    sys.modules["fromnoise.run.recipe"] = types.SimpleNamespace(WorldSection=types.SimpleNamespace)
    golden = json.loads(GOLDEN.read_text())
    print(json.dumps(golden | {"sha256": world_digests(golden["seed"], types.SimpleNamespace(**golden["section"]))}, indent=1))
