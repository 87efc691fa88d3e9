"""Which rows share a user's part, and that each row gets its own score."""

from __future__ import annotations

import numpy as np
import pytest

from mian.contract import Contract
from mian.serving.batch_scorer import BatchScorer
from pipeline.scoring import moments
from pipeline.scoring.moments import group_starts, score_moments
from pipeline.scoring.scorer import Columns
from tests.factories import CONTRACTS, make_batch, make_model

CONTRACT = CONTRACTS["all groups"]
OPTIONS = {"embedding_dim": 4, "heads": 2, "mlp": [8], "global_dim": 8, "init_std": 0.5}


class Watched:
    """A scorer that keeps how many rows it was given each time."""

    def __init__(self, contract: Contract) -> None:
        self.scorer = BatchScorer(make_model(contract, options=OPTIONS))
        self.alone: list[int] = []
        self.together: list[int] = []

    def rows(self, columns: Columns) -> np.ndarray:
        self.alone.append(len(columns["behavior_length"]))
        return self.scorer.rows(columns)

    def candidates(self, user: Columns, candidates: Columns) -> np.ndarray:
        self.together.append(len(next(iter(candidates.values()))))
        assert all(len(column) == 1 for column in user.values())
        return self.scorer.candidates(user, candidates)


def pages(contract: Contract, sizes: list[int], seed: int = 0) -> tuple[Columns, np.ndarray]:
    """Rows of moments of some sizes: user and history are those of each moment, candidate and context each row's own."""
    rows = sum(sizes)
    batch = {name: column.numpy() for name, column in make_batch(contract, rows, seed).items() if name != "label"}
    number = np.repeat(np.arange(len(sizes)), sizes)
    firsts = np.cumsum([0, *sizes[:-1]])[number]
    shared = {field.column for field in contract.fields if field.group in ("user", "behaviors")} | {"behavior_length"}
    return {name: column[firsts] if name in shared else column for name, column in batch.items()}, number


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_candidates_of_a_moment_have_the_scores_of_their_rows(name: str) -> None:
    contract = CONTRACTS[name]
    columns, number = pages(contract, [1, 5, 3, 4, 2, 12])
    watched = Watched(contract)
    found = score_moments(watched, contract, columns, number, 4)
    np.testing.assert_allclose(found, watched.scorer.rows(columns), rtol=0, atol=1e-6)
    assert (watched.together, watched.alone) == ([5, 4, 12], [6])
    assert found.std() > 0.001


def test_a_moment_whose_histories_or_profiles_differ_is_cut_where_they_do() -> None:
    for column in ("behavior_item_id", "user_age", "behavior_length", "user_tenure"):
        columns, number = pages(CONTRACT, [12])
        columns["behavior_length"][:] = 6
        columns[column] = columns[column].copy()
        columns[column][5:7] = np.where(columns[column][5:7] > 1, columns[column][5:7] - 1, 1)
        watched = Watched(CONTRACT)
        found = score_moments(watched, CONTRACT, columns, number, 4)
        np.testing.assert_allclose(found, watched.scorer.rows(columns), rtol=0, atol=1e-6)
        assert (watched.together, watched.alone) == ([5, 5], [2]), column


def test_two_moments_of_one_history_are_two() -> None:
    columns, _ = pages(CONTRACT, [8])
    watched = Watched(CONTRACT)
    score_moments(watched, CONTRACT, columns, np.array([0, 0, 0, 0, 1, 1, 1, 1]), 4)
    assert watched.together == [4, 4]


def test_many_rows_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ROWS_PER_BATCH", 5)
    columns, number = pages(CONTRACT, [12, 2, 1, 3, 1])
    watched = Watched(CONTRACT)
    found = score_moments(watched, CONTRACT, columns, number, 4)
    np.testing.assert_allclose(found, watched.scorer.rows(columns), rtol=0, atol=1e-6)
    assert (watched.together, watched.alone) == ([5, 5, 2], [5, 2])


def test_no_rows_have_no_scores() -> None:
    columns, number = pages(CONTRACT, [1])
    none = {name: column[:0] for name, column in columns.items()}
    assert score_moments(Watched(CONTRACT), CONTRACT, none, number[:0], 4).shape == (0,)


def test_runs_begin_where_a_column_changes() -> None:
    assert group_starts([np.array([1, 1, 2, 2, 2])], 5).tolist() == [0, 2]
    assert group_starts([np.array([1, 1, 2, 2, 2]), np.array([[0, 0], [0, 1], [3, 3], [3, 3], [3, 4]])], 5).tolist() == [
        0,
        1,
        2,
        4,
    ]
    assert group_starts([np.zeros(0)], 0).tolist() == []
    assert group_starts([], 3).tolist() == [0]
