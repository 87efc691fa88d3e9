"""Intervals of differences of AUC, against drawing users and counting by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mian.experiments.resampling import difference_of_auc


def test_they_are_those_of_users_drawn_with_replacement() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 40, 600) * 7 + 5
    labels = rng.integers(0, 2, 600).astype(np.int32)
    scores = {  # few values, so that many are tied
        name: [np.round(rng.random(600) + strength * labels, 1).astype(np.float32) for _ in range(2)]
        for name, strength in (("good", 0.6), ("bad", 0.2))
    }
    found = difference_of_auc(labels, users, scores, "bad", resamples=60, seed=4)

    names = np.unique(users)
    generator = np.random.default_rng(4)
    differences = []
    for _ in range(60):
        times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)))
        rows = np.concatenate([np.flatnonzero(users == name) for name, n in zip(names, times, strict=True) for _ in range(n)])
        means = {name: np.mean([roc_auc_score(labels[rows], p[rows]) for p in arrays]) for name, arrays in scores.items()}
        differences.append(means["good"] - means["bad"])
    assert found["good"] == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-12)
    assert found["bad"] == (0.0, 0.0)


def test_draws_of_one_class_are_left_out() -> None:
    labels, users = np.array([1, 0, 0, 0], np.int32), np.array([1, 1, 2, 3])
    better = [np.array([0.9, 0.1, 0.2, 0.3], np.float32)]
    low, high = difference_of_auc(labels, users, {"a": better, "b": [1 - better[0]]}, "b", resamples=50)["a"]
    assert (low, high) == (1.0, 1.0)
