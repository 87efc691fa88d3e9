from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import DataFrame, SparkSession

from mian.contract import Encoder, History
from pipeline.config import DataConfig
from pipeline.days import days_between
from pipeline.encoding.statistics import NUMBER_BINS, shares
from pipeline.encoding.vocabularies import Fitted, TrainingDays, extend, fit, gap_edges, quantiles, references
from pipeline.join.partition import join_by_user
from pipeline.join.plan import join_plan
from pipeline.join.rows import all_rows
from pipeline.logs.events import EventLogs
from tests.factories import make_contract
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark

FIELDS: dict[str, Any] = {
    "candidate": {"item_id": {}, "category": {}, "bid": {"kind": "numeric", "transform": "quantiles", "buckets": 4}},
    "behaviors": {"item_id": {}, "gap": {"kind": "time_gap"}},
    "user": {"user_id": {}, "constant": {"kind": "numeric", "expression": "4.0"}},
    "context": {"device": {}, "log_bid": {"kind": "numeric", "transform": "log", "expression": "if(bid < 1, NULL, bid)"}},
}

Settings = Callable[..., DataConfig]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_logs(folder)
    return folder


def settings(folder: Path, **vocabularies: dict[str, Any]) -> DataConfig:
    return config(folder, fields=FIELDS, vocabularies=vocabularies)


def joined(spark: SparkSession, folder: Path, first: int = 0, last: int = 3) -> DataFrame:
    options, days = settings(folder), days_between(DAYS[first], DAYS[last])
    events = EventLogs(spark, options).read(days[0], days[-1])
    rows = all_rows(spark, options, events)
    split = options.splits["train"].model_copy(update={"first": days[0], "last": days[-1]})
    plan = join_plan(options, events.rows, days, rows, fit_days=split, samples=False)
    return join_by_user(rows, plan, 3).cache()


@pytest.fixture(scope="module")
def train(spark: SparkSession, folder: Path) -> DataFrame:
    return joined(spark, folder)


@pytest.fixture(scope="module")
def fitted(folder: Path, train: DataFrame) -> Callable[..., Fitted]:
    return lambda **vocabularies: fit(TrainingDays(settings(folder, **vocabularies), train))


def log(folder: Path, name: str, days: Sequence[int] = range(4)) -> pa.Table:
    return pa.concat_tables(pa.parquet.read_table(folder / name / f"day={DAYS[day]}", partitioning=None) for day in days)


def counted(folder: Path) -> dict[str, int]:
    """What the item vocabulary counts: the impressions of the training days, whether they were clicked or not."""
    values = log(folder, "impressions")["item_id"].to_pylist()
    return {value: values.count(value) for value in set(values)}


def test_values_by_falling_count_of_all_fields_that_share_the_vocabulary(folder: Path, fitted: Callable[..., Fitted]) -> None:
    expected = sorted(counted(folder).items(), key=lambda item: (-item[1], item[0]))
    assert fitted().tables["item_id"].to_pydict() == {"value": [v for v, _ in expected], "count": [n for _, n in expected]}


def test_minimum_count_and_maximum_size(folder: Path, fitted: Callable[..., Fitted]) -> None:
    expected = sorted(counted(folder).items(), key=lambda item: (-item[1], item[0]))
    floor = expected[8][1]
    frequent = fitted(item_id={"min_count": floor}).tables["item_id"]
    assert frequent["value"].to_pylist() == [value for value, count in expected if count >= floor]
    few = fitted(item_id={"min_count": 1, "max_size": 4}).tables["item_id"]
    assert few["value"].to_pylist() == [value for value, _ in expected[:2]]  # padding and unknown count


def test_listed_values_keep_their_order_and_hashed_ones_need_no_table(fitted: Callable[..., Fitted]) -> None:
    made = fitted(device={"values": ["tv", "phone"]}, user_id={"hash_buckets": 10})
    assert made.tables["device"]["value"].to_pylist() == ["tv", "phone"]
    assert made.tables["device"]["count"].to_pylist()[0] == 0
    by_name = {vocabulary.name: vocabulary for vocabulary in made.vocabularies}
    assert (by_name["user_id"].kind, by_name["user_id"].size) == ("hash", 12)
    assert "user_id" not in made.tables


def test_transforms_are_fitted_without_missing_numbers(folder: Path, fitted: Callable[..., Fitted]) -> None:
    fields = {field.column: field for field in fitted().fields}
    bids = log(folder, "impressions")["bid"].to_numpy()
    logs = np.log1p(bids[bids >= 1])
    transform = fields["context_log_bid"].transform
    assert transform is not None
    assert transform.kind == "log"
    assert (transform.mean, transform.std) == (pytest.approx(logs.mean(), rel=1e-5), pytest.approx(logs.std(), rel=1e-5))
    constant = fields["user_constant"].transform
    assert constant is not None
    assert (constant.kind, constant.mean, constant.std) == ("identity", 4.0, 1.0)  # what never varies is not divided by 0
    assert list(fields) == [
        "candidate_item_id", "candidate_category", "candidate_bid", "behavior_item_id", "behavior_gap",
        "user_user_id", "user_constant", "context_device", "context_log_bid",
    ]  # fmt: skip


def test_quantile_buckets_are_about_equally_full(folder: Path, fitted: Callable[..., Fitted]) -> None:
    made = fitted()
    vocabulary = next(v for v in made.vocabularies if v.name == "candidate_bid")
    bids = log(folder, "impressions")["bid"]
    field = next(field for field in made.fields if field.column == "candidate_bid")
    ids = Encoder([vocabulary], {}).encode(field, pc.cast(bids, pa.float64()))
    assert vocabulary.size == 6
    assert np.bincount(ids, minlength=6)[2:].tolist() == pytest.approx([len(bids) / 4] * 4, abs=1)


def test_edges() -> None:
    assert quantiles(np.array([1.0, 1.0, 1.0, 1.0, 5.0]), 5) == (1.0,)
    assert quantiles(np.array([np.nan]), 5) == ()
    edges = gap_edges(2, 0.0)
    assert edges[:4] == (1.0, 2.0, 4.0, 8.0)
    assert edges[-2] < 3 * 86_400 <= edges[-1]


def test_references_are_the_shares_of_the_training_days(folder: Path, train: DataFrame, fitted: Callable[..., Fitted]) -> None:
    made = fitted()
    contract = make_contract(*made.fields, vocabularies=made.vocabularies, history=History(length=5, days=2))
    found = references(contract, made.tables, TrainingDays(settings(folder), train))
    devices = log(folder, "impressions")["device"].to_pylist()
    order = made.tables["device"]["value"].to_pylist()
    assert found["context_device"].shares == shares([0, *[devices.count(value) for value in order]])
    assert len(found["context_log_bid"].shares) == NUMBER_BINS
    assert sum(found["behavior_gap"].shares) == pytest.approx(1.0, abs=1e-4)
    assert math.isclose(sum(found["candidate_item_id"].shares), 1.0, abs_tol=1e-4)


def test_extending_moves_no_id_and_brings_new_values_behind(
    spark: SparkSession, folder: Path, fitted: Callable[..., Fitted]
) -> None:
    known = fitted().tables["item_id"]
    later = joined(spark, folder, 5, 5)  # items that no earlier day has
    grown = extend(TrainingDays(settings(folder), later), "item_id", known)
    assert grown.slice(0, known.num_rows).equals(known)
    new = grown.slice(known.num_rows)
    assert new.num_rows > 5
    assert all(int(value[1:]) >= 100 for value in new["value"].to_pylist())
    assert new["count"].to_pylist() == sorted(new["count"].to_pylist(), reverse=True)
    capped = TrainingDays(settings(folder, item_id={"max_size": known.num_rows + 2 + 3}), later)
    assert extend(capped, "item_id", known).num_rows == known.num_rows + 3
    listed = TrainingDays(settings(folder, item_id={"values": ["i1"]}), later)
    assert extend(listed, "item_id", known).equals(known)
