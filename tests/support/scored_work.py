"""Metrics of made-up rows that memory has no room for, a work of each rank."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import ScoredRows
from mian.metrics import MetricError

BATCH = 37


@dataclass(frozen=True)
class Rows:
    """Of all ranks."""

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    users: npt.NDArray[np.int64]

    def take(self, places: npt.NDArray[Any]) -> "Rows":
        return Rows(self.labels[places], self.probabilities[places], self.users[places])


def made_up(count: int, scores: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = lambda p: p) -> Rows:
    """Users with many rows and with few, some of whom click always or never; their keys are as large as such can be."""
    random = np.random.default_rng(count)
    true = random.beta(1, 5, count)
    users = random.geometric(0.02, count) * np.int64(2**56) * random.choice([-1, 1], count)
    return Rows((random.random(count) < true).astype(np.int32), scores(true).astype(np.float32), users)


def giant(rows: Rows) -> Rows:
    """All rows but some are of one user."""
    users = rows.users.copy()
    users[len(users) // 10 :] = 5
    return Rows(rows.labels, rows.probabilities, users)


@dataclass(frozen=True)
class Case:
    rows: Rows
    capacity: int
    order: str = "drawn"

    def rank_rows(self, rank: int, size: int) -> Rows:
        """``drawn``: uneven parts; ``last``: the last rank has them all; ``score``: each rank has other scores, ``user``: other users."""
        keys = {"score": self.rows.probabilities, "user": self.rows.users}
        rows = self.rows.take(np.argsort(keys[self.order], kind="stable")) if self.order in keys else self.rows
        ends = np.linspace(0, 1, size + 1) ** (1e9 if self.order == "last" else 2)
        first, last = (int(len(rows.labels) * end) for end in ends[rank : rank + 2])
        return rows.take(np.arange(first, last))


IN_MEMORY = 1 << 20
CASES = {
    "in memory": Case(made_up(3001), IN_MEMORY),
    "no rows": Case(made_up(0), IN_MEMORY),
    "one row": Case(made_up(1), IN_MEMORY),
    "spilled": Case(made_up(1201), 300),
    "spilled many times": Case(made_up(201), 13),
    "one rank has all": Case(made_up(701), 150, "last"),
    "ranks have scores of their own": Case(made_up(701), 150, "score"),
    "ranks have users of their own": Case(made_up(701), 150, "user"),
    "few scores": Case(made_up(901, lambda p: np.round(p * 8) / 8), 100),
    "one score": Case(made_up(901, lambda p: np.full_like(p, 0.25)), 100),
    "0 and 1": Case(made_up(701, lambda p: np.where(p < 0.05, 0.0, np.where(p > 0.3, 1.0, p**9))), 150),
    "a giant user": Case(giant(made_up(701)), 100),
    "a giant user of few scores": Case(giant(made_up(701, lambda p: np.round(p * 4) / 4)), 100),
    "one user": Case(Rows(made_up(600).labels, made_up(600).probabilities, np.zeros(600, np.int64)), 100),
    "users of one class": Case(Rows(made_up(600).labels, made_up(600).probabilities, made_up(600).labels.astype(np.int64)), 100),
    "no clicks": Case(Rows(np.zeros(600, np.int32), made_up(600).probabilities, made_up(600).users), 100),
    "clicks alone": Case(Rows(np.ones(600, np.int32), made_up(600).probabilities, made_up(600).users), 100),
}

NAN, LABEL, OUTSIDE = (
    (np.array([label]), np.array([p], np.float32), np.array([1])) for label, p in ((0, np.nan), (2, 0.5), (0, 1.5))
)
WRONG = {"NaN": NAN, "label": LABEL, "no probability": OUTSIDE}


class CountingRanks(Ranks):
    """Sees how many rows come here at a time."""

    most = 0

    def gather_to(self, rank: int, rows: Any) -> Any:
        brought = super().gather_to(rank, rows)
        self.most = max(self.most, len(brought) if rank == self.rank else 0)
        return brought


def evaluate(case: Case, ranks: CountingRanks, folder: Path) -> dict[str, Any]:
    mine, ranks.most = case.rank_rows(ranks.rank, ranks.size), 0
    with ScoredRows(ranks, folder, case.capacity) as scored:
        for start in range(0, len(mine.labels), BATCH):
            batch = mine.take(np.arange(start, min(start + BATCH, len(mine.labels))))
            scored.add(batch.labels, batch.probabilities, batch.users)
        evaluation = scored.evaluate()
    table = evaluation.reliability().to_dict("list") if len(case.rows.labels) else None
    return {"metrics": evaluation.metrics, "table": table, "most": ranks.most}


def error_of(rows: Any, ranks: Ranks, folder: Path) -> str:
    """What this rank says where the last one has such rows, and all have good ones."""
    with ScoredRows(ranks, folder) as scored:
        scored.add(np.array([0, 1]), np.array([0.25, 0.5], np.float32), np.array([3, 3]))
        if ranks.rank == ranks.size - 1:
            scored.add(*rows)
        try:
            scored.evaluate()
        except MetricError as error:
            return f"{type(error).__name__}: {error}"
    raise AssertionError("such rows have no metrics")


def scored(folder: Path) -> dict[str, Any]:
    """By case, the metrics that this rank came to, its reliability table, and how many rows at most travelled to a rank at a time.

    Also what it said of rows that are wrong.

    Args:
        folder: where rows are spilled.
    """
    ranks = CountingRanks()
    found = {
        "cases": {name: evaluate(case, ranks, folder) for name, case in CASES.items()},
        "errors": {name: error_of(rows, ranks, folder) for name, rows in WRONG.items()},
    }
    ranks.barrier()
    assert list(folder.iterdir()) == [], "no rank leaves anything there"
    return found
