"""What samples lack may tell their label, but not more in training days than later: rows of drawn worlds, honest and spoiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.audit.indicators import BoolArray, Indicator, IndicatorRows
from pipeline.audit.leaks import find_leaks

COLUMNS = ("candidate_item_id", "candidate_brand", "context_city", "user_age", "behavior_length")


def honest(seed: int, users: int = 300, rows_per_user: float = 30.0) -> IndicatorRows:
    """A world without a leak: users, days and columns differ in what they lack and in how often they click, which may go together."""
    draw = np.random.default_rng(seed)
    count = np.maximum(1, draw.poisson(rows_per_user * draw.gamma(1.0, 1.0, users)))  # some users have most of the rows
    user = np.repeat(np.arange(users), count)
    size = len(user)
    day = draw.integers(0, 8, size)
    held_out = day >= 6
    logit = draw.normal(-1.2, 0.2) + draw.normal(0, 0.8, users)[user] + draw.normal(0, 0.3, 8)[day]
    lacking = []
    for column in COLUMNS:
        share = draw.choice([0.002, 0.02, 0.1, 0.4])
        per_user = column.startswith(("user", "behavior"))
        later = np.where(held_out, draw.choice([1.0, 3.0]), 1.0)  # unknown values get more frequent
        chance = np.minimum(0.9, share * later * (draw.gamma(1.0, 1.0, users)[user] if per_user else 1.0))
        on = draw.random(size) < chance
        logit = logit + draw.choice([-0.8, 0.0, 0.0, 0.8]) * on
        lacking.append(Indicator(column, "unknown or missing", on, column.startswith("behavior"), column.startswith("user")))
    label = (draw.random(size) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return IndicatorRows(label, user, day, np.ones(size), held_out, tuple(lacking))


def spoiled(rows: IndicatorRows, column: str, on: BoolArray) -> IndicatorRows:
    return replace(rows, indicators=tuple(replace(i, on=on) if i.column == column else i for i in rows.indicators))


def found(rows: IndicatorRows) -> set[str]:
    return {name for finding in find_leaks(rows) for name in finding.column.split(", ")}


def test_honest_worlds_are_silent() -> None:
    assert [seed for seed in range(40) if find_leaks(honest(seed))] == []


@pytest.mark.parametrize("column", COLUMNS)
def test_a_value_that_is_unknown_if_it_was_not_clicked_in_the_training_days(column: str) -> None:
    """As of a vocabulary that counts clicks: rare values, a tenth of the rows, are known where they were clicked."""
    rows = honest(1)
    rare = np.random.default_rng(0).random(len(rows.labels)) < 0.1
    on = rare & (rows.held_out | (rows.labels == 0))
    assert column in found(spoiled(rows, column, on))


def test_a_history_whose_length_knows_the_label_of_training_days() -> None:
    rows = honest(2)
    draw = np.random.default_rng(0).random(len(rows.labels))
    on = draw < np.where(rows.held_out, 0.3, 0.2 + 0.2 * rows.labels)
    findings = find_leaks(spoiled(rows, "behavior_length", on))
    assert findings
    assert all(finding.column.startswith("behavior_length") for finding in findings)


def test_a_value_that_negatives_alone_lack_on_all_days() -> None:
    """As of negatives drawn among items that did not exist yet: nothing differs between training and held-out days."""
    rows = honest(3)
    on = (np.random.default_rng(0).random(len(rows.labels)) < 0.02) & (rows.labels == 0)
    (finding,) = {finding.column: finding for finding in find_leaks(spoiled(rows, "candidate_brand", on))}.values()
    assert finding.column == "candidate_brand"
    assert ", 0 of them with label 1" in finding.samples
    assert "tells the label for certain, or nearly" in finding.logs


def test_new_items_that_are_mostly_positives_are_no_leak_where_negatives_are_drawn() -> None:
    """A negative had an event before, so on held-out days the items that no training day has are mostly positives."""
    rows = honest(3)
    on = rows.held_out & (rows.labels == 1) & (np.random.default_rng(0).random(len(rows.labels)) < 0.5)
    new = spoiled(rows, "candidate_item_id", on)
    assert "tells the label for certain" in find_leaks(new)[0].logs
    assert find_leaks(replace(new, drawn=True)) == []
    assert find_leaks(replace(spoiled(rows, "candidate_item_id", rows.labels == 0), drawn=True)) != []


def test_many_columns_that_each_tell_a_little() -> None:
    """No column moves the label beyond the tolerance; all of them together do."""
    rows = honest(4, users=2000)
    draw = np.random.default_rng(0)
    lift = np.where(rows.held_out, 0.0, 0.025 * (2 * rows.labels - 1))
    many = tuple(Indicator(f"context_{n}", "unknown or missing", draw.random(len(lift)) < 0.5 + lift) for n in range(12))
    (finding,) = find_leaks(replace(rows, indicators=many))
    assert "a model of these alone" in finding.samples
    assert finding.column.count("context_") == 3


def test_a_few_rows_or_users_prove_nothing() -> None:
    rows = honest(5)
    few = np.zeros(len(rows.labels), np.bool_)
    few[np.flatnonzero((rows.labels == 0) & ~rows.held_out)[:6]] = True
    assert find_leaks(spoiled(rows, "candidate_brand", few)) == []
    one_user = (rows.users == np.bincount(rows.users).argmax()) & (rows.labels == 0)
    assert find_leaks(spoiled(rows, "user_age", one_user)) == []


def test_thinned_negatives_of_the_training_days_are_no_leak() -> None:
    rows = honest(6, users=3000)
    kept = rows.held_out | (rows.labels == 1) | (np.random.default_rng(0).random(len(rows.labels)) < 0.1)
    weights = np.where(rows.held_out | (rows.labels == 1), 1.0, 10.0)[kept]
    thinned = tuple(replace(i, on=i.on[kept]) for i in rows.indicators)
    parts = (rows.labels[kept], rows.users[kept], rows.days[kept], weights, rows.held_out[kept])
    assert find_leaks(IndicatorRows(*parts, thinned)) == []


def test_without_held_out_days_there_is_nothing_to_compare() -> None:
    rows = honest(7)
    assert find_leaks(replace(rows, held_out=np.zeros(len(rows.labels), np.bool_))) == []
