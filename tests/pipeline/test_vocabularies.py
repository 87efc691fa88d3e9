from __future__ import annotations

import math
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipeline.config import DataConfig
from pipeline.vocabularies import fit
from tests.pipeline.small_logs import config

pytestmark = pytest.mark.spark


def settings(tmp_path: Path, **vocabularies: dict[str, int]) -> DataConfig:
    fields = {
        "candidate": {"item_id": {}, "price": {"kind": "numeric", "transform": "log"}},
        "behaviors": {"item_id": {}},
        "user": {"constant": {"kind": "numeric"}},
        "context": {"city": {}},
    }
    return config(tmp_path, fields=fields, vocabularies=vocabularies)


@pytest.fixture(scope="module")
def fitted(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory):
    impressions = spark.createDataFrame(
        [
            ("a", 0.0, 4.0, "x"),
            ("a", math.e - 1, 4.0, None),
            ("b", None, 4.0, "y"),
            ("c", math.nan, 4.0, "x"),
            (None, 1.0, 4.0, "x"),
        ],
        "candidate_item_id string, candidate_price double, user_constant double, context_city string",
    )
    behaviors = spark.createDataFrame([("b",), ("b",), ("d",), ("d",), ("e",)], "behavior_item_id string")

    def run(**vocabularies: dict[str, int]):
        return fit(settings(tmp_path_factory.mktemp("fit"), **vocabularies), impressions, behaviors)

    return run


def test_values_by_falling_count_of_all_fields_that_share_the_vocabulary(fitted) -> None:
    assert fitted().vocabularies["item_id"].to_pydict() == {"value": ["b", "a", "d"], "count": [3, 2, 2]}
    assert fitted().vocabularies["city"].to_pydict() == {"value": ["x"], "count": [3]}


def test_minimum_count_and_maximum_size(fitted) -> None:
    rare = fitted(item_id={"min_count": 1}).vocabularies["item_id"]
    assert rare.to_pydict() == {"value": ["b", "a", "d", "c", "e"], "count": [3, 2, 2, 1, 1]}
    few = fitted(item_id={"min_count": 1, "max_size": 4}).vocabularies["item_id"]
    assert few["value"].to_pylist() == ["b", "a"]  # padding and unknown count


def test_transforms_are_fitted_without_missing_numbers(fitted) -> None:
    price, constant = fitted().fields[1].transform, fitted().fields[3].transform
    logs = [0.0, 1.0, math.log(2)]
    mean = sum(logs) / 3
    assert price.kind == "log"
    assert price.mean == pytest.approx(mean, rel=1e-5)
    assert price.std == pytest.approx(math.sqrt(sum((x - mean) ** 2 for x in logs) / 3), rel=1e-5)
    assert (constant.kind, constant.mean, constant.std) == ("identity", 4.0, 1.0)  # what never varies is not divided by 0
    assert [field.column for field in fitted().fields] == [
        "candidate_item_id",
        "candidate_price",
        "behavior_item_id",
        "user_constant",
        "context_city",
    ]
