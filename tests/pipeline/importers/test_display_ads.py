"""Taobao's logs, the DMR samples that were made of them, and KuaiRand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.importers import import_logs
from pipeline.importers.dmr import DAYS, FIRST_DAY
from tests.pipeline.importers.conftest import Imported

UTC = dt.timezone.utc
REAL_DMR_SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "taobao-dmr-sample"


def test_taobao_impressions_are_on_the_days_of_beijing(imported: Callable[[str], Imported]) -> None:
    logs = imported("taobao-ads")
    impressions = logs.rows("impressions", "time", "impression_id")
    assert impressions[0] == {
        "impression_id": "581738-1494000000-10",
        "user_id": "581738",
        "item_id": "10",
        "time": dt.datetime(2017, 5, 6, tzinfo=UTC),
        "placement": "430548_1007",
        "label": 0,
    }
    assert impressions[1]["impression_id"] == "581738-1494000000-10-2"
    assert [row["time"].day for row in impressions] == [6, 6, 11, 12, 13]
    assert [row["label"] for row in impressions] == [0, 0, 1, 0, 1]


def test_taobao_behaviors_lie_by_action(imported: Callable[[str], Imported]) -> None:
    logs = imported("taobao-ads")
    folders = {path.parent.name: path.name for path in (logs.folder / "behaviors").glob("*/*")}
    assert folders == {
        "action=pv": "day=2017-05-05", "action=cart": "day=2017-05-05", "action=fav": "day=2017-05-11",
        "action=buy": "day=2017-05-11",
    }  # fmt: skip
    assert logs.rows("behaviors/action=pv") == [
        {"user_id": "581738", "item_id": "6250:91286", "time": dt.datetime(2017, 5, 5, 23, 59, tzinfo=UTC),
         "behavior_category": "6250", "behavior_brand": "91286"},
    ]  # fmt: skip


def test_taobao_attributes(imported: Callable[[str], Imported]) -> None:
    logs = imported("taobao-ads")
    assert [tuple(row.values()) for row in logs.rows("items", "item_id")] == [
        ("10", "6406", "83237", "1", "95471", 170.0), ("11", "6406", "83237", "1", None, 1e8),
    ]  # fmt: skip
    first, second = logs.rows("users", "user_id")
    assert first == {
        "user_id": "581738", "cms_segid": "0", "cms_group_id": "5", "gender": "2", "age_level": "5", "pvalue_level": None,
        "shopping_level": "3", "occupation": "0", "city_level": "3",
    }  # fmt: skip
    assert second["city_level"] is None


def test_kuairand(imported: Callable[[str], Imported]) -> None:
    logs = imported("kuairand")
    impressions = logs.rows("impressions", "time", "is_rand")
    assert impressions[0] == {
        "impression_id": "0-1071-1649350800860",
        "user_id": "0",
        "item_id": "1071",
        "time": dt.datetime(2022, 4, 8, 1, 0, 0, 860_000, tzinfo=UTC),
        "label": 1,
        "long_view": 1,
        "is_rand": 0,
        "tab": "1",
    }
    assert [(row["time"].day, row["is_rand"]) for row in impressions] == [
        (8, 0), (28, 0), (29, 0), (1, 0), (2, 0), (2, 1), (8, 0)
    ]  # fmt: skip
    full, empty = logs.rows("items", "item_id")
    assert tuple(full.values()) == (
        "1071", "441", "NORMAL", dt.date(2022, 4, 1), "ShortImport", 17200.0, "4.0", "12", "12,65"
    )  # fmt: skip
    assert tuple(empty.values()) == ("1072", "442", "AD", None, "Web", None, None, None, None)
    user = logs.rows("users")[0]
    assert (user["follow_user_num_range"], user["fans_user_num_range"], user["onehot_feat4"]) == ("(0,10]", "[100,1k)", None)


def test_dmr_lines_are_users_with_the_behaviors_just_before(imported: Callable[[str], Imported]) -> None:
    logs = imported("dmr")
    impressions = logs.rows("impressions", "user_id")
    assert len({row["user_id"] for row in impressions}) == len(impressions) == 81
    days = {row["time"].date() for row in impressions}
    assert days == {FIRST_DAY + dt.timedelta(days=n) for n in range(DAYS)}
    first, again = (row for row in impressions if row["uid"] == "1000000")
    assert again == first | {"impression_id": first["impression_id"] + "-2", "user_id": first["user_id"] + "-2"}
    assert (first["category"], first["price"], first["placement"], first["label"]) == ("6410", 0.98971260954681, "1", 0)
    behaviors = [row for row in logs.rows("behaviors", "user_id", "time") if row["user_id"] == first["user_id"]]
    assert [(row["item_id"], row["category"], row["brand"]) for row in behaviors] == [
        ("9000:200000", "9000", "200000"), ("9001:200001", "9001", "200001"),
    ]  # fmt: skip
    assert [first["time"] - row["time"] for row in behaviors] == [dt.timedelta(seconds=2), dt.timedelta(seconds=1)]
    assert logs.record.logs["behaviors"].rows == 2 + 2 + 79 * 50


@pytest.mark.skipif(not REAL_DMR_SAMPLES.is_dir(), reason="the published DMR samples are not on this machine")
def test_dmr_as_published(spark: SparkSession, tmp_path: Path) -> None:
    record = import_logs(spark, "dmr", str(REAL_DMR_SAMPLES), str(tmp_path / "logs"))
    impressions = pq.read_table(tmp_path / "logs" / "impressions").to_pandas()
    assert (len(impressions), impressions["label"].sum(), impressions["uid"].nunique()) == (500, 210, 230)
    assert impressions["user_id"].is_unique
    assert record.logs["behaviors"].rows == 24_879
