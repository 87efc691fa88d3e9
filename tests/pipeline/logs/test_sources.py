"""The same logs in any format, under any names, give the same samples, to the byte."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import Contract
from pipeline.build import build_samples
from pipeline.config import DataConfig, Source
from pipeline.logs.errors import LogError, log_errors
from pipeline.logs.sources import CORRUPT, read_source
from tests.support.small_logs import DAYS, EVENT, config, write_logs

pytestmark = pytest.mark.spark

FIRST, LAST = DAYS[0], DAYS[1]
SPLITS = {"train": {"first": FIRST, "last": FIRST}, "test": {"first": LAST, "last": LAST}}
LOGS = ("impressions", "clicks")
OTHERS = {"impressions": {"device": "device", "bid": "bid"}, "clicks": {}}
TYPES = {
    "impressions": "impression_id STRING, user_id STRING, item_id STRING, ts TIMESTAMP, device STRING, clicked INT, bid DOUBLE",
    "clicks": "impression_id STRING, user_id STRING, item_id STRING, ts TIMESTAMP",
}
Sources = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of the small logs, in Parquet."""
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, per_day=30)
    for path in folder.glob("*/day=*"):
        if path.name > f"day={LAST}":
            shutil.rmtree(path)
    return folder


def settings(logs: Path, samples: Path, sources: Sources, **changes: Any) -> DataConfig:
    """The configuration of the small logs, with keys of their sources replaced; ``kind`` and the like are keys of ``log``."""
    log: dict[str, Any] = {"kind": "impressions_and_clicks"}
    for name, source in sources.items():
        log[name] = {"columns": EVENT | OTHERS[name], "day_column": "day"} | source
    return config(logs, samples=str(samples), splits=SPLITS, **{"log": log} | changes)


def sums(contract: Contract) -> list[tuple[str, ...]]:
    """The checksums of all that is published: samples, examples, statistics, vocabularies."""
    days = [tuple(file.sha256 for file in day.named_files) for day in contract.days]
    return [*days, tuple(vocabulary.sha256 or "" for vocabulary in contract.vocabularies)]


@pytest.fixture(scope="module")
def expected(spark: SparkSession, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, ...]]:
    sources = {name: {"path": str(logs / name)} for name in LOGS}
    contract = build_samples(spark, settings(logs, tmp_path_factory.mktemp("plain"), sources), FIRST, LAST).contract
    assert [day.rows for day in contract.days] == [30, 30]
    assert 0 < sum(day.positives for day in contract.days) < 60
    return sums(contract)


def rows(logs: Path, name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each day's folder and its rows, moments as text."""
    for path in sorted((logs / name).glob("day=*/*.parquet")):
        found = pq.read_table(path, partitioning=None).to_pylist()
        yield path.parent.name, [{**row, "ts": row["ts"].isoformat()} for row in found]


def write_csv(logs: Path, target: Path, *, header: bool, separator: str = ",") -> None:
    for name in LOGS:
        for day, found in rows(logs, name):
            (target / name / day).mkdir(parents=True)
            with (target / name / day / "part.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(found[0]), delimiter=separator)
                if header:
                    writer.writeheader()
                writer.writerows(found)


def write_json(logs: Path, target: Path) -> None:
    """The first day plain, the second compressed."""
    for name in LOGS:
        for day, found in rows(logs, name):
            (target / name / day).mkdir(parents=True)
            text = "".join(json.dumps(row) + "\n" for row in found).encode()
            if day == f"day={FIRST}":
                (target / name / day / "part.json").write_bytes(text)
            else:
                (target / name / day / "part.json.gz").write_bytes(gzip.compress(text))


def parquet(spark: SparkSession, logs: Path, name: str) -> DataFrame:
    return spark.read.parquet(str(logs / name))


def test_csv_with_a_header_and_types_from_expressions(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    write_csv(logs, tmp_path, header=True)
    sources: Sources = {
        name: {
            "path": str(tmp_path / name),
            "format": "csv",
            "options": {"header": True},
            "columns": EVENT | OTHERS[name] | {"time": "to_timestamp(ts)"},
        }
        for name in LOGS
    }
    sources["impressions"]["columns"] |= {"bid": "CAST(bid AS DOUBLE)"}
    contract = build_samples(spark, settings(logs, tmp_path / "samples", sources), FIRST, LAST).contract
    assert sums(contract) == expected


def test_csv_without_a_header_and_with_a_schema(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    write_csv(logs, tmp_path, header=False, separator="\t")
    sources = {
        name: {"path": f"{tmp_path / name}", "format": "csv", "options": {"sep": "\t"}, "schema": TYPES[name]} for name in LOGS
    }
    contract = build_samples(spark, settings(logs, tmp_path / "samples", sources), FIRST, LAST).contract
    assert sums(contract) == expected


def test_json_lines_plain_and_compressed(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    write_json(logs, tmp_path)
    inferred = {"columns": EVENT | OTHERS["impressions"] | {"time": "to_timestamp(ts)"}}
    sources = {
        "impressions": {"path": str(tmp_path / "impressions"), "format": "json", **inferred},
        "clicks": {"path": str(tmp_path / "clicks"), "format": "json", "schema": TYPES["clicks"]},
    }
    contract = build_samples(spark, settings(logs, tmp_path / "samples", sources), FIRST, LAST).contract
    assert sums(contract) == expected


def test_orc_and_a_table_of_the_catalog_under_other_names(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    parquet(spark, logs, "impressions").write.partitionBy("day").orc(str(tmp_path / "impressions"))
    clicks = parquet(spark, logs, "clicks").selectExpr(
        "named_struct('member', int(substring(user_id, 2)), 'article', substring(item_id, 2)) AS who",
        "impression_id AS shown",
        "unix_micros(ts) AS at",
        "day AS dt",
        "'click' AS event",
    )
    both = clicks.unionByName(clicks.withColumn("event", F.lit("scroll")))
    both.write.partitionBy("dt").option("path", str(tmp_path / "clicks")).saveAsTable("small_clicks")
    renamed = {
        "impression_id": "shown",
        "user_id": "concat('u', who.member)",
        "item_id": "concat('i', who.article)",
        "time": "timestamp_micros(at)",
    }
    try:
        sources: Sources = {
            "impressions": {"path": str(tmp_path / "impressions"), "format": "orc"},
            "clicks": {"table": "small_clicks", "columns": renamed, "where": "event = 'click'", "day_column": "dt"},
        }
        contract = build_samples(spark, settings(logs, tmp_path / "samples", sources), FIRST, LAST).contract
    finally:
        spark.sql("DROP TABLE small_clicks")
    assert sums(contract) == expected


def test_a_view_a_pattern_of_paths_without_a_day_column_and_items_from_csv(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    items = [(row["item_id"][1:], row["category"][1:]) for row in pq.read_table(logs / "items.parquet").to_pylist()]
    (tmp_path / "items.csv").write_text("article;kind\n" + "".join(f"{article};{kind}\n" for article, kind in items))
    table = {
        "path": str(tmp_path / "items.csv"),
        "format": "csv",
        "options": {"header": True, "sep": ";", "inferSchema": True},
        "columns": {"item_id": "concat('i', article)", "category": "concat('c', kind)"},
    }
    # moments without a zone, as pandas writes them, are in UTC
    parquet(spark, logs, "impressions").selectExpr("*", "to_timestamp_ntz(ts) AS local").createOrReplaceTempView("small_view")
    try:
        sources: Sources = {
            "impressions": {
                "table": "small_view",
                "columns": EVENT | OTHERS["impressions"] | {"time": "to_timestamp(local)"},
                "day_column": None,
            },
            "clicks": {"path": f"{logs}/clicks/day=2026-03-*/*.parquet", "day_column": None},
        }
        contract = build_samples(spark, settings(logs, tmp_path / "samples", sources, items=table), FIRST, LAST).contract
    finally:
        spark.catalog.dropTempView("small_view")
    assert sums(contract) == expected


def impressions(samples: Path, contract: Contract) -> dict[str, int]:
    """Label by impression, of all that is published."""
    paths = [samples / file.path for day in contract.days for file in day.files]
    tables = [pq.read_table(path, columns=["impression_id", "label"], partitioning=None) for path in paths]
    return {row["impression_id"]: row["label"] for table in tables for row in table.to_pylist()}


def clicked(logs: Path) -> dict[str, int]:
    """What the log says of each impression."""
    return {row["impression_id"]: row["clicked"] for _, found in rows(logs, "impressions") for row in found}


def test_labels_of_the_log_itself_from_csv(spark: SparkSession, logs: Path, tmp_path: Path) -> None:
    write_csv(logs, tmp_path, header=True)
    source = {
        "path": str(tmp_path / "impressions"),
        "format": "csv",
        "options": {"header": True, "inferSchema": True},
        "columns": EVENT | OTHERS["impressions"] | {"label": "if(clicked > 0, 1, 0)", "time": "to_timestamp(ts)"},
        "day_column": "day",
    }
    labeled = settings(logs, tmp_path / "samples", {}, log={"kind": "labeled", "impressions": source, "label_delay_hours": 0})
    contract = build_samples(spark, labeled, FIRST, LAST).contract
    assert impressions(tmp_path / "samples", contract) == clicked(logs)


def test_a_log_of_positives_only_from_csv(spark: SparkSession, logs: Path, tmp_path: Path) -> None:
    write_csv(logs, tmp_path, header=True, separator="|")
    source = {
        "path": str(tmp_path / "impressions"),
        "format": "csv",
        "options": {"header": True, "sep": "|"},
        "columns": EVENT | OTHERS["impressions"] | {"bid": "double(bid)", "time": "to_timestamp(ts)"},
        "where": "clicked = '1'",
        "day_column": "day",
    }
    log = {"kind": "positives_only", "negatives": {"uniform": 1, "popularity": 1}, "impressions": source}
    contract = build_samples(spark, settings(logs, tmp_path / "samples", {}, log=log), FIRST, LAST).contract
    positives = {name for name, label in clicked(logs).items() if label}
    asked = {f"{name}#{n}" for name in positives for n in (1, 2)}
    found = impressions(tmp_path / "samples", contract)
    drawn = {name for name, label in found.items() if label == 0}
    assert found == dict.fromkeys(positives, 1) | dict.fromkeys(drawn, 0)
    assert drawn <= asked
    # the log begins with these days: before the first purchases nothing was sold
    assert len(asked - drawn) == sum(day.quality.undrawn or 0 for day in contract.days if day.quality is not None)
    assert len(asked - drawn) < 0.2 * len(asked)


def test_numbers_as_ids_are_the_same_text_in_every_format(spark: SparkSession, tmp_path: Path) -> None:
    ids = [7, 2**53 + 1, -1]
    table = pa.table({"id": pa.array(ids, pa.int64())})
    pq.write_table(table, tmp_path / "ids.parquet")
    (tmp_path / "ids.csv").write_text("id\n" + "".join(f"{n}\n" for n in ids))
    (tmp_path / "ids.json").write_text("".join(json.dumps({"id": n}) + "\n" for n in ids))
    spark.read.parquet(str(tmp_path / "ids.parquet")).selectExpr("CAST(id AS DECIMAL(20, 0)) AS id").write.orc(
        str(tmp_path / "orc")
    )
    columns = {"user_id": "id"}
    found = [
        Source(path=str(tmp_path / "ids.parquet"), columns=columns),
        Source(path=str(tmp_path / "ids.csv"), format="csv", options={"header": True}, columns=columns),
        Source(path=str(tmp_path / "ids.csv"), format="csv", options={"header": True, "inferSchema": True}, columns=columns),
        Source(path=str(tmp_path / "ids.json"), format="json", columns=columns),
        Source(path=str(tmp_path / "orc"), format="orc", columns=columns),
    ]
    for source in found:
        rows = read_source(spark, "users", source).collect()
        assert sorted(row["user_id"] for row in rows) == sorted(map(str, ids)), source


@pytest.mark.parametrize("folder", ["a{b,c}", "a[1]", "a*", "a?", "a\\b", "a b", "a%20b", "a#b", "a:b", "größe"])
def test_a_path_that_is_there_is_no_pattern(spark: SparkSession, tmp_path: Path, folder: str) -> None:
    for name in (folder, "ab", "a1"):
        (tmp_path / name / "day=2026-03-01").mkdir(parents=True)
        pq.write_table(pa.table({"id": [name]}), tmp_path / name / "day=2026-03-01" / "part.parquet")
        (tmp_path / name / "ids.csv").write_text(f'id\n"{name}"\n')
    table = read_source(spark, "users", Source(path=str(tmp_path / folder / "day=2026-03-01"), columns={"user_id": "id"}))
    lines = Source(path=f"{tmp_path / folder}/ids.csv", format="csv", options={"header": True}, columns={"user_id": "id"})
    assert [row["user_id"] for row in table.collect()] == [folder]
    assert [row["user_id"] for row in read_source(spark, "users", lines).collect()] == [folder]


def test_a_path_that_is_not_there_is_a_pattern(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("b", "c", "d"):
        pq.write_table(pa.table({"id": [name]}), tmp_path / f"{name}.parquet")
    found = read_source(spark, "users", Source(path=f"{tmp_path}/{{b,[c]}}.parquet", columns={"user_id": "id"})).collect()
    assert sorted(row["user_id"] for row in found) == ["b", "c"]


@pytest.mark.parametrize("value", ['19" rack', 'say "hi"', "with, comma", "back\\slash", 'a\\"b', '"'])
def test_csv_is_read_as_pandas_writes_it(spark: SparkSession, tmp_path: Path, value: str) -> None:
    pd.DataFrame({"id": ["i1", "i2"], "shelf": [value, "plain"]}).to_csv(tmp_path / "items.csv", index=False)
    columns = {"item_id": "id", "shelf": "shelf"}
    source = Source(path=str(tmp_path / "items.csv"), format="csv", options={"header": True}, columns=columns)
    assert [row["shelf"] for row in read_source(spark, "items", source).orderBy("item_id").collect()] == [value, "plain"]
    quoted = source.model_copy(update={"options": {"header": True, "multiLine": True}})
    pd.DataFrame({"id": ["i1"], "shelf": [f"{value}\nover two lines"]}).to_csv(tmp_path / "items.csv", index=False)
    assert [row["shelf"] for row in read_source(spark, "items", quoted).collect()] == [f"{value}\nover two lines"]


def write_days(folder: Path, *days: dict[str, Any]) -> None:
    for number, day in enumerate(days, 1):
        (folder / f"day=2026-03-{number:02d}").mkdir(parents=True)
        pd.DataFrame(day).to_parquet(folder / f"day=2026-03-{number:02d}" / "part.parquet", index=False)


@pytest.mark.parametrize("day_column", ["day", None])
@pytest.mark.parametrize("first", [{}, {"zone": [None]}, {"zone": [None], "age": [None]}], ids=["lacking", "null", "two null"])
def test_a_column_that_begins_on_a_later_day_is_null_before(
    spark: SparkSession, tmp_path: Path, first: dict[str, Any], day_column: str | None
) -> None:
    write_days(
        tmp_path, {"id": ["u1"], **first}, {"id": ["u2"], "zone": ["north"]}, {"id": ["u3"], "zone": ["south"], "age": [7]}
    )
    columns = {"user_id": "id", "zone": "zone", "age": "age", "on": "date(day)"}
    source = Source(path=str(tmp_path), columns=columns, day_column=day_column)
    found = read_source(spark, "users", source, (DAYS[0], DAYS[2])).orderBy("user_id").collect()
    assert [(row["zone"], row["age"], row["on"]) for row in found] == [
        (None, None, DAYS[0]),
        ("north", None, DAYS[1]),
        ("south", 7, DAYS[2]),
    ]


def test_files_of_days_that_are_not_needed_have_no_say_in_the_columns(spark: SparkSession, tmp_path: Path) -> None:
    write_days(tmp_path, {"id": ["u1"]}, {"id": ["u2"], "zone": ["north"]}, {"id": ["u3"], "zone": [4.5]}, {"id": ["u4"]})
    source = Source(path=str(tmp_path), columns={"user_id": "id", "zone": "zone"}, day_column="day")
    found = read_source(spark, "users", source, (DAYS[0], DAYS[1])).orderBy("user_id").collect()
    assert [row["zone"] for row in found] == [None, "north"]
    assert [row["zone"] for row in read_source(spark, "users", source, (DAYS[1], DAYS[1])).collect()] == ["north"]


def test_a_column_of_two_types_is_refused_with_its_file(spark: SparkSession, tmp_path: Path) -> None:
    write_days(tmp_path, {"id": ["u1"], "zone": ["north"]}, {"id": ["u2"], "zone": [4.5]})
    source = Source(path=str(tmp_path), columns={"user_id": "id", "zone": "zone"}, day_column="day")
    made = config(tmp_path, users=source.model_dump(exclude_unset=True))
    with pytest.raises(LogError, match=r"users: cannot read .*part.parquet: .*\[zone\].*one type in all files"), log_errors(made):
        read_source(spark, "users", source, (DAYS[0], DAYS[1])).collect()


def test_json_whose_later_files_have_a_column_more(spark: SparkSession, tmp_path: Path) -> None:
    for day, rows in ((DAYS[0], [{"id": 1}]), (DAYS[1], [{"id": 2, "zone": None}]), (DAYS[2], [{"id": 3, "zone": "north"}])):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "part.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path=str(tmp_path), format="json", columns={"user_id": "id", "zone": "zone"}, day_column="day")
    found = read_source(spark, "users", source, (DAYS[0], DAYS[2])).orderBy("user_id").collect()
    assert [row["zone"] for row in found] == [None, None, "north"]


def test_a_catalog_table_whose_partitions_have_blanks_and_colons(
    spark: SparkSession, logs: Path, tmp_path: Path, expected: list[tuple[str, ...]]
) -> None:
    hourly = parquet(spark, logs, "clicks").withColumn("hour", F.date_format("ts", "yyyy-MM-dd HH:00"))
    hourly.drop("day").write.partitionBy("hour").option("path", str(tmp_path / "clicks")).saveAsTable("hourly_clicks")
    try:
        for number, place in enumerate(({"table": "hourly_clicks"}, {"path": str(tmp_path / "clicks")})):
            sources: Sources = {"impressions": {"path": str(logs / "impressions")}, "clicks": {**place, "day_column": None}}
            contract = build_samples(spark, settings(logs, tmp_path / f"samples-{number}", sources), FIRST, LAST).contract
            assert sums(contract) == expected
    finally:
        spark.sql("DROP TABLE hourly_clicks")


def test_csv_files_may_differ_in_their_columns_and_in_their_order(spark: SparkSession, tmp_path: Path) -> None:
    days = (
        pd.DataFrame({"id": ["u1"], "zone": ["north"]}),
        pd.DataFrame({"zone": ["south"], "id": ["u2"]}),
        pd.DataFrame({"age": [7], "id": ["u3"], "zone": ['"x", y']}),
        pd.DataFrame({"wholly": ["another"], "table": ["of a day that is not asked for"]}),
    )
    for number, day in enumerate(days, 1):
        (tmp_path / f"day=2026-03-{number:02d}").mkdir()
        day.to_csv(tmp_path / f"day=2026-03-{number:02d}" / ("part.csv.gz" if number == 3 else "part.csv"), index=False)
    (tmp_path / "day=2026-03-01" / "empty.csv").touch()
    columns = {"user_id": "id", "zone": "zone", "age": "age", "on": "date(day)"}
    options = {"header": True}
    source = Source(path=str(tmp_path), format="csv", options=options, columns=columns, day_column="day")
    found = read_source(spark, "users", source, (DAYS[0], DAYS[2])).orderBy("user_id").collect()
    assert [(row["user_id"], row["zone"], row["age"], row["on"]) for row in found] == [
        ("u1", "north", None, DAYS[0]),
        ("u2", "south", None, DAYS[1]),
        ("u3", '"x", y', "7", DAYS[2]),
    ]
    one = read_source(spark, "users", source.model_copy(update={"columns": {"user_id": "id"}}), (DAYS[1], DAYS[1])).collect()
    assert [row["user_id"] for row in one] == ["u2"]


def test_a_broken_line_is_found_in_csv_files_of_different_columns(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,zone\nu1,north\n")
    (tmp_path / "b.csv").write_text("zone,id,age\nsouth,u2,7,8,9\neast,u3,4\n")
    columns = {"user_id": "id", "zone": "zone"}
    source = Source(path=str(tmp_path), format="csv", options={"header": True}, columns=columns)
    found = read_source(spark, "users", source).orderBy("user_id").collect()
    assert [(row["user_id"], row[CORRUPT]) for row in found] == [("u1", None), ("u2", "south,u2,7,8,9"), ("u3", None)]
