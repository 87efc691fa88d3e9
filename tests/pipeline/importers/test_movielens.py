from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from pipeline.importers import import_logs
from tests.pipeline.importers.conftest import Imported
from tests.support.generated import movielens_100k_atomic

UTC = dt.timezone.utc


def test_100k(imported: Callable[[str], Imported]) -> None:
    logs = imported("movielens-100k")
    first = {
        "impression_id": "7-1",
        "user_id": "7",
        "item_id": "1",
        "time": dt.datetime(1997, 9, 20, 12, tzinfo=UTC),
        "rating": 1.0,
    }
    impressions = logs.rows("impressions", "time")
    assert impressions[0] == first
    assert [row["impression_id"] for row in impressions] == ["7-1", "7-2", "8-1", "8-2", "8-3", "7-267"]
    assert logs.rows("users", "user_id") == [
        {"user_id": "7", "age": 24, "gender": "M", "occupation": "technician", "zip_code": "85711"},
        {"user_id": "8", "age": 53, "gender": "F", "occupation": "other", "zip_code": "T8H1N"},
    ]
    keys = ("item_id", "title", "release_year", "genre", "genres")
    assert logs.rows("items", "item_id") == [
        dict(zip(keys, row, strict=True))
        for row in [
            ("1", "Café au Lait (1995)", "1995", "Animation", "Animation|Children's|Comedy"),
            ("2", 'Who "Is" It (1996)', "1996", "Western", "Western"),
            ("267", "unknown", None, None, None),
            ("3", "Four Rooms (1995)", "1995", "Thriller", "Thriller"),
        ]
    ]


def test_100k_lies_by_day(imported: Callable[[str], Imported]) -> None:
    logs = imported("movielens-100k")
    assert sorted(path.name for path in (logs.folder / "impressions").iterdir())[-1] == "day=1998-04-22"
    summary = logs.record.logs["impressions"]
    assert (summary.rows, summary.first, summary.last) == (6, dt.date(1997, 9, 20), dt.date(1998, 4, 22))
    assert len(summary.empty_days) == 215 - 6
    assert logs.record.published_rows == {"u.data": 6, "u.user": 2, "u.item": 4}


def test_100k_in_atomic_files_is_the_same_set(spark: SparkSession, tmp_path: Path) -> None:
    movielens_100k_atomic(tmp_path)
    import_logs(spark, "movielens-100k", str(tmp_path), str(tmp_path / "logs"))
    logs = {name: pq.read_table(tmp_path / "logs" / name).sort_by(key).to_pylist() for name, key in
            [("impressions", "user_id"), ("users", "user_id"), ("items", "item_id")]}  # fmt: skip
    assert [(row["impression_id"], row["rating"]) for row in logs["impressions"]] == [("7-1", 4.0), ("8-2", 3.0)]
    assert logs["impressions"][0]["time"] == dt.datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC)
    assert logs["users"][0] == {"user_id": "7", "age": 24, "gender": "M", "occupation": "technician", "zip_code": "85711"}
    assert [tuple(row.values()) for row in logs["items"]] == [
        ("1", "Copycat", "1995", "Animation", "Animation|Children's|Comedy"),
        ("2", "unknown", None, None, None),
    ]


def test_1m(imported: Callable[[str], Imported]) -> None:
    logs = imported("movielens-1m")
    assert [row["rating"] for row in logs.rows("impressions", "time")] == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]
    assert logs.rows("users", "user_id")[1] == {
        "user_id": "2", "gender": "M", "age": 56, "occupation": "16", "zip_code": "70072-1234"
    }  # fmt: skip
    assert [tuple(row.values()) for row in logs.rows("items", "item_id")] == [
        ("1", "Toys: A Story (1995)", "1995", "Animation", "Animation|Children's|Comedy"),
        ("2", '"Great" Cats, The (1998)', "1998", "Musical", "Musical"),
        ("3", "Misérables, Les (1995)", "1995", "Drama", "Drama|Musical"),
    ]


def test_32m(imported: Callable[[str], Imported]) -> None:
    logs = imported("movielens-32m")
    assert [row["rating"] for row in logs.rows("impressions", "time")] == [5.0, 4.5, 4.0, 3.5, 3.0, 2.5]
    assert [tuple(row.values()) for row in logs.rows("items", "item_id")] == [
        ("1", "Toys (1995)", "1995", "Adventure", "Adventure|Children"),
        ("2", '"Great" Cats, The (1998)', "1998", "Musical", "Musical"),
        ("3", "Élan: A Film", None, None, None),
    ]
