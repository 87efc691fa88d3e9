"""The tables, against scikit-learn and SciPy."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import log_loss, roc_auc_score

from mian.evaluation.truth import ATTAINABLE, UPPER_BOUND
from mian.experiments import comparison_tables
from mian.experiments.held_out import HeldOutRows

ROWS = 4000


@pytest.fixture(scope="module")
def world() -> tuple[HeldOutRows, dict[str, list[Any]]]:
    """Clicks of a known probability, and models that know it more or less well."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, ROWS)
    labels = (rng.random(ROWS) < truth).astype(np.int32)
    lengths = rng.integers(0, 31, ROWS).astype(np.int32)
    known = rng.random(ROWS) < 0.9
    seen = (rng.random(ROWS) < 0.2) & (lengths > 0) & known
    gaps = np.where(lengths > 0, 2.0 ** rng.integers(10, 22, ROWS), np.nan)
    attainable = np.clip(truth + rng.normal(0, 0.05, ROWS), 0.01, 0.99)
    known_to_world = {ATTAINABLE: attainable, UPPER_BOUND: truth}
    rows = HeldOutRows(labels, rng.integers(0, 200, ROWS), lengths, seen, known, gaps, known_to_world)
    noise = {"LR": 0.4, "DIN": 0.15, "MIAN": 0.1}
    models = {
        variant: [np.clip(truth + rng.normal(0, size, ROWS), 0.01, 0.99).astype(np.float32) for _ in range(3)]
        for variant, size in noise.items()
    }
    return rows, models


def test_means_and_deviations_are_over_the_seeds(world: Any) -> None:
    rows, models = world
    metrics = comparison_tables.metrics_by_seed(rows, models)
    assert comparison_tables.best_peer(metrics, list(models), ["MIAN"]) == "DIN"
    table = comparison_tables.comparison(rows, metrics, models, list(models), "DIN")
    aucs = {variant: [roc_auc_score(rows.labels, p) for p in arrays] for variant, arrays in models.items()}
    losses = {variant: [log_loss(rows.labels, p.astype(float)) for p in arrays] for variant, arrays in models.items()}
    for variant in models:
        row = table.loc[variant]
        assert row["auc"] == pytest.approx(np.mean(aucs[variant]))
        assert row["auc_sd"] == pytest.approx(np.std(aucs[variant], ddof=1))
        assert row["logloss"] == pytest.approx(np.mean(losses[variant]))
        assert row["auc_relative"] == pytest.approx(np.mean(aucs[variant]) / np.mean(aucs["DIN"]) - 1)
        assert row["logloss_relative"] == pytest.approx(np.mean(losses[variant]) / np.mean(losses["DIN"]) - 1)
        assert row["low"] <= row["auc"] - table.loc["DIN", "auc"] <= row["high"]
        attainable, bound = (roc_auc_score(rows.labels, p) for p in rows.truth.values())
        assert row["attainable_fraction"] == pytest.approx(np.mean(aucs[variant]) / attainable)
        assert row["share"] == pytest.approx((np.mean(aucs[variant]) - 0.5) / (attainable - 0.5))
    assert table.loc["MIAN", "p"] == pytest.approx(ttest_rel(aucs["MIAN"], aucs["DIN"]).pvalue)
    assert np.isnan(table.loc["DIN", "p"])
    assert table.index[-2:].tolist() == [ATTAINABLE, UPPER_BOUND]
    assert table.loc[ATTAINABLE, ["auc", "attainable_fraction", "share"]].tolist() == pytest.approx([attainable, 1.0, 1.0])
    share = (bound - 0.5) / (attainable - 0.5)
    assert share > 1
    assert table.loc[UPPER_BOUND, ["auc", "attainable_fraction", "share"]].tolist() == pytest.approx(
        [bound, bound / attainable, share]
    )


def test_with_one_seed_there_is_no_deviation_and_no_p(world: Any) -> None:
    rows, models = world
    ones = {variant: arrays[:1] for variant, arrays in models.items()}
    table = comparison_tables.comparison(rows, comparison_tables.metrics_by_seed(rows, ones), ones, list(ones), "LR")
    assert table[["auc_sd", "p"]].isna().all(axis=None)
    assert table.loc["MIAN", "low"] > 0


def test_without_a_truth_there_is_no_share(world: Any) -> None:
    rows, models = world
    blind = HeldOutRows(rows.labels, rows.users, None, None, None, None, None)
    table = comparison_tables.comparison(blind, comparison_tables.metrics_by_seed(blind, models), models, list(models), "LR")
    assert "share" not in table
    assert not {ATTAINABLE, UPPER_BOUND} & set(table.index)
    assert comparison_tables.slices(blind, models, list(models)) == {}


def test_parts_are_disjoint_and_make_up_all_rows(world: Any) -> None:
    rows, models = world
    parts = comparison_tables.slices(rows, models, list(models))
    assert list(parts) == ["behaviors in the history", "time since the latest behavior", "candidate and history"]
    for table in parts.values():
        assert table["rows"].sum() == ROWS
        assert (table["rows"] * table["rate"]).sum() == pytest.approx(rows.labels.sum())
    by_count = parts["behaviors in the history"]
    assert list(by_count.index) == ["0", "1 to 5", "6 to 15", "16 to 30"]
    some = (rows.lengths >= 6) & (rows.lengths <= 15)
    expected = np.mean([roc_auc_score(rows.labels[some], p[some]) for p in models["DIN"]])
    assert by_count.loc["6 to 15", "DIN"] == pytest.approx(expected)
    by_seen = parts["candidate and history"]
    assert by_seen.loc["candidate is in the history", "rows"] == rows.seen.sum()
    assert by_seen.loc["candidate is unknown", "rows"] == (~rows.known & (rows.lengths > 0)).sum()
    by_gap = parts["time since the latest behavior"]
    assert by_gap.loc["18 hours to 3 days", "rows"] == ((rows.gaps == 2**16) | (rows.gaps == 2**17)).sum()


def test_a_part_of_one_class_has_no_auc_and_nothing_is_logged_of_it(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows, models = world
    labels = np.where(rows.lengths == 0, 0, rows.labels).astype(np.int32)
    other = HeldOutRows(labels, rows.users, rows.lengths, None, None, None, None)
    table = comparison_tables.slices(other, models, list(models))["behaviors in the history"]
    assert np.isnan(table.loc["0", "DIN"])
    assert not caplog.records
    assert table.loc["0", "rate"] == 0
