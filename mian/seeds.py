"""Seeds that are made of others."""

from __future__ import annotations

import hashlib
import json

LARGEST_SEED = 2**63 - 1


def mixed_seed(*values: str | int | None) -> int:
    """A seed made of several values: the first 63 bits of their SHA-256 hash, so that it fits wherever a signed 64-bit number does.

    Args:
        values: what the seed depends on, such as a purpose, the training's seed and a rank; integers of any size.
    """
    digest = hashlib.sha256(json.dumps(values).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
