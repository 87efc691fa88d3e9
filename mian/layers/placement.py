"""Where the rows of embedding tables lie: all of them on every rank, or each on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import torch


class Exchange(Protocol):
    """What a sharded table needs of the ranks."""

    rank: int
    size: int

    def all_to_all(self, values: torch.Tensor, counts: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Send rows to the ranks and get theirs; all ranks do so together.

        Args:
            values: ``(N, ...)``, those for rank 0 first.
            counts: int ``(size,)``, how many are for each rank; their sum is N.
            name: of this exchange; the same on all ranks.

        Returns:
            What the ranks sent here, that of rank 0 first, ``(M, ...)``; and how many each sent, int ``(size,)``.
        """

    def all_to_all_gradients(self, gradients: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The same for gradients, float ``(N, width)``, which may be rounded on the way; what the ranks sent here, ``(M, width)``."""


@dataclass(frozen=True)
class Placement:
    """Row ``r`` of a table is row ``r // size`` of rank ``r % size``: neighbors, often of like popularity, lie on different ranks."""

    rank: int = 0
    size: int = 1

    def count(self, rows: int) -> int:
        """How many of a table's first ``rows`` rows are here."""
        return len(range(self.rank, rows, self.size))

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Which rows of the table those from ``start`` to before ``stop`` here are, int64."""
        return torch.arange(start, stop) * self.size + self.rank

    def own(self, rows: torch.Tensor) -> torch.Tensor:
        """Where those of a table's rows that are here lie here."""
        return rows[rows % self.size == self.rank] // self.size


_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def sharded_tables(exchange: Exchange | None) -> Iterator[None]:
    """Embedding tables that are made within are sharded over the ranks.

    Args:
        exchange: with the other ranks, which make the same tables; None: tables lie whole, as they do without this.
    """
    token = _EXCHANGE.set(exchange)
    try:
        yield
    finally:
        _EXCHANGE.reset(token)


_WITHOUT_MEMORY: ContextVar[bool] = ContextVar("without_memory", default=False)


@contextmanager
def tables_without_memory() -> Iterator[None]:
    """Embedding tables that are made within take no memory and draw nothing: their weights are to be assigned."""
    token = _WITHOUT_MEMORY.set(True)
    try:
        yield
    finally:
        _WITHOUT_MEMORY.reset(token)


def device_of_tables() -> str:
    """Where the weights of a table are made: ``meta`` within :func:`tables_without_memory`."""
    return "meta" if _WITHOUT_MEMORY.get() else "cpu"


def current_exchange() -> Exchange | None:
    """The exchange of the :func:`sharded_tables` that this is within."""
    return _EXCHANGE.get()
