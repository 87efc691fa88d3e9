"""How many threads a rank computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROWS_A_THREAD = 512
"""Of a batch with fewer, operators take less time than threads to meet: see ``docs/performance.md``."""


def default_threads(rows: int, cores: int) -> int:
    """As many threads as there are cores, but one for every :data:`ROWS_A_THREAD` rows of a batch at most; at least one."""
    return max(1, min(cores, rows // ROWS_A_THREAD))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
