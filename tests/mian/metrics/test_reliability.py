import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.stats import binomtest

from mian.metrics import MetricError, plot_reliability, reliability
from mian.metrics.reliability import reliability_table

COLUMNS = ["count", "mean_predicted", "observed_rate", "low", "high"]
predictions = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=60)


def test_bins_are_of_equal_mass_and_by_rising_probability() -> None:
    table = reliability([0, 0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], bins=3)
    assert list(table.columns) == COLUMNS
    assert table["count"].tolist() == [2, 2, 2]
    assert table["mean_predicted"].tolist() == pytest.approx([0.15, 0.35, 0.55])
    assert table["observed_rate"].tolist() == [0.0, 0.5, 0.5]


def test_the_interval_is_wilson_s() -> None:
    table = reliability([1] * 8 + [0] * 2, np.full(10, 0.5), bins=5)
    assert table[["low", "high"]].to_numpy()[0] == pytest.approx([0.4902, 0.9433], abs=1e-4)  # 8 of 10


@given(st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_is_scipy_s(counts: tuple[int, int]) -> None:
    clicks, count = counts
    table = reliability_table(np.array([count]), np.array([0.5]), np.array([clicks]))
    expected = binomtest(clicks, count).proportion_ci(confidence_level=0.95, method="wilson")
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high], rel=1e-9, abs=1e-15)


@given(predictions, st.integers(1, 10), st.randoms(use_true_random=False))
def test_whatever_the_ties_rows_are_kept_and_their_order_does_not_matter(
    rows: list[tuple[int, int]], bins: int, random: object
) -> None:
    labels, eighths = (np.array(column) for column in zip(*rows, strict=True))
    table = reliability(labels, eighths / 8, bins)
    assert len(table) <= bins
    assert table["count"].sum() == len(rows)
    assert (table["count"] * table["observed_rate"]).sum() == pytest.approx(labels.sum())
    assert (table["count"] * table["mean_predicted"]).sum() == pytest.approx(eighths.sum() / 8)
    assert (np.diff(table["mean_predicted"]) > 0).all()
    assert (table["low"] <= table["observed_rate"] + 1e-12).all()
    assert (table["observed_rate"] <= table["high"] + 1e-12).all()

    random.shuffle(rows)  # type: ignore[attr-defined]
    labels, eighths = (np.array(column) for column in zip(*rows, strict=True))
    assert reliability(labels, eighths / 8, bins).equals(table)


def test_no_bins_are_refused() -> None:
    with pytest.raises(MetricError, match="at least one bin"):
        reliability([0, 1], [0.1, 0.2], bins=0)


def test_the_plot_names_its_axes_and_models() -> None:
    random = np.random.default_rng(0)
    p = random.beta(1, 20, 5_000)
    tables = {name: reliability(random.random(5_000) < p, p**power) for name, power in (("mian", 1.0), ("popularity", 1.1))}
    figure = plot_reliability(tables, title="validation")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert "predicted" in axes.get_xlabel()
    assert "observed" in axes.get_ylabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["perfect", "mian", "popularity"]  # type: ignore[union-attr]
    figure.savefig(image := io.BytesIO(), format="png")
    assert image.tell() > 0


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        plot_reliability({})
