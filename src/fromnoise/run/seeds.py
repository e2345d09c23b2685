"""Seeds for everything random, mixed from what they are for."""

from __future__ import annotations

import hashlib


def seed_from(*parts: object) -> int:
    """A seed of 63 bits from any parts with a stable repr: the same on every machine, Python version and hash seed.

    `seed_from(recipe.seed, "sft", "epoch", 3)`: sha256 of the parts' reprs, so that neighbouring seeds share nothing.
    """
    digest = hashlib.sha256("\x1f".join(repr(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
