"""Ids and categories come to one text, whatever type a source has for them; what is ambiguous is refused."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mian.contract.canonical import canonical_text
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig, Source
from pipeline.logs.errors import LogError
from pipeline.logs.ids import text_of
from pipeline.logs.sources import read_source
from tests.pipeline.bad_logs.conftest import log  # noqa: F401
from tests.support.broken_shop import COLUMNS, DAYS, SCHEMA, Refusals, good_rows
from tests.support.small_logs import DAYS as SMALL_DAYS
from tests.support.small_logs import TIMESTAMP, config, write_logs

pytestmark = pytest.mark.spark

WHOLE = [0, 7, -1, 20_000_000, 2**53 - 1, -(2**53) + 1]


def floats() -> list[float | None]:
    """Some of every size, those among them that Java writes with a digit too many."""
    draw = random.Random(0)
    sizes = [math.ldexp(draw.uniform(-1, 1), draw.randint(-1070, 1023)) for _ in range(2000)]
    return [*map(float, WHOLE), *sizes, 2.0**-44, 2.2e-322, 1e23, 2e23, 0.1, -0.0, math.nan, math.inf, -math.inf, None]


def test_spark_and_the_encoder_write_every_value_alike(spark: SparkSession, tmp_path: Path) -> None:
    decimals = [Decimal(n).scaleb(-draw) for draw, n in enumerate(WHOLE)]
    booleans: list[bool | None] = [True, False, None]
    columns = {
        "double": pa.array(floats(), pa.float64()),
        "float": pa.array(floats(), pa.float64()).cast(pa.float32()),
        "long": pa.array([*WHOLE, None], pa.int64()),
        "short": pa.array([7, -7, None], pa.int16()),
        "wide": pa.array([*decimals, None], pa.decimal128(38, 10)),
        "whole": pa.array([Decimal(n) for n in WHOLE], pa.decimal128(20, 0)),
        "bool": pa.array(booleans),
        "text": pa.array(["a", "007", "2.0E7", "", None]),
    }
    for name, values in columns.items():
        pq.write_table(pa.table({name: values, "row": range(len(values))}), tmp_path / f"{name}.parquet")
        frame = spark.read.parquet(str(tmp_path / f"{name}.parquet")).orderBy("row")
        found = frame.select(text_of(F.col(name), frame.schema[name].dataType).alias("text")).toArrow()["text"].to_pylist()
        assert found == canonical_text(values).to_pylist(), name


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.decimal128(38, 10), pa.decimal128(20, 0), pa.string()])
def test_an_id_is_the_same_text_from_every_type(spark: SparkSession, tmp_path: Path, kind: pa.DataType) -> None:
    values = [str(n) for n in WHOLE] if kind == pa.string() else WHOLE
    ids = pa.array([Decimal(n) for n in WHOLE], kind) if pa.types.is_decimal(kind) else pa.array(values).cast(kind)
    pq.write_table(pa.table({"id": ids}), tmp_path / "ids.parquet")
    found = read_source(spark, "users", Source(path=str(tmp_path / "ids.parquet"), columns={"user_id": "id"})).collect()
    assert sorted(row["user_id"] for row in found) == sorted(map(str, WHOLE))


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (1.5, pa.float64(), "1.5"),
        (-0.0, pa.float64(), "-0.0"),
        (math.nan, pa.float64(), "NaN"),
        (math.inf, pa.float64(), "Infinity"),
        (2.0**53, pa.float64(), "9.007199254740992E15"),
        (Decimal("1.5"), pa.decimal128(38, 10), "1.5"),
    ],
)
def test_a_number_that_is_no_id_is_refused_with_its_value(log: Refusals, value: Any, kind: pa.DataType, shown: str) -> None:  # noqa: F811
    numbers = [Decimal(n) if pa.types.is_decimal(kind) else n for n in range(12)]
    for day in DAYS:
        rows = [{**row, "user_id": number} for row, number in zip(good_rows(day), [value, *numbers[1:]], strict=True)]
        log.parquet(day, rows, SCHEMA.set(1, pa.field("user_id", kind)))
    log.refused("log.impressions: user_id is no whole number below 2^53 in 1 of 12 rows", f"'{shown}'", "CAST")
    table = {"path": str(log.folder / "log"), "columns": {"user_id": "user_id", "city": "clicked"}}
    allowed = {"users": table, "quality": {"max_quarantined": 0.5}}
    log.refused(f"users: user_id is no whole number below 2^53, such as '{shown}'", changes=allowed)


BLANKS, POINT = "user_id has blanks around it", "user_id is text of a whole number with a point"


@pytest.mark.parametrize(
    ("id_", "fault"),
    [(" u0", BLANKS), ("u0 ", BLANKS), ("u0\t", BLANKS), ("\u00a0u0", BLANKS), ("700047.0", POINT), ("-7.0", POINT)],
)
def test_text_that_another_form_of_the_same_id_would_never_meet_is_refused(log: Refusals, id_: str, fault: str) -> None:  # noqa: F811
    log.both(user_id=id_)
    log.refused(f"log.impressions: {fault} in 1 of 12 rows", repr(id_), "trim(...)")
    table = {"path": str(log.folder / "log"), "columns": {"user_id": "user_id", "city": "clicked"}}
    log.refused(f"users: {fault}", "trim(...)", changes={"users": table, "quality": {"max_quarantined": 0.5}})


@pytest.mark.parametrize("written", ["0001", "1.00", "1E0", "+1"])
@pytest.mark.parametrize("numbers", ["users", "log.impressions"])
def test_text_that_stands_for_a_number_beside_numbers_is_refused_with_both_forms(
    log: Refusals,  # noqa: F811
    written: str,
    numbers: str,
) -> None:
    for day in DAYS:
        rows = [{**row, "user_id": 1 if numbers == "log.impressions" else written} for row in good_rows(day)]
        kind = pa.int64() if numbers == "log.impressions" else pa.string()
        log.parquet(day, rows, SCHEMA.set(1, pa.field("user_id", kind)))
    pq.write_table(pa.table({"user_id": [1 if numbers == "users" else written], "city": ["rome"]}), log.folder / "users.parquet")
    table = {"path": str(log.folder / "users.parquet"), "columns": {"user_id": "user_id", "city": "city"}}
    text = "users" if numbers == "log.impressions" else "log.impressions"
    changes = {"users": table}
    log.refused(f"{text}: user_id is text, such as {written!r}, and in {numbers} a whole number, such as '1'", changes=changes)


def test_truths_are_no_ids(log: Refusals) -> None:  # noqa: F811
    log.both()
    log.refused("log.impressions: user_id is boolean", columns=COLUMNS | {"user_id": "clicked = 1"})


def test_a_category_that_a_missing_value_made_a_float_is_the_same_category(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path, per_day=30, days=2)
    views = []
    for day in SMALL_DAYS[:2]:
        for row in pq.read_table(tmp_path / "impressions" / f"day={day}", partitioning=None).to_pylist():
            zone = None if row["item_id"] == "i3" else 1e7 * (1 + row["clicked"])
            views.append({"user_id": row["user_id"], "item_id": row["item_id"], "ts": row["ts"], "zone": zone})
    schema = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "ts": TIMESTAMP, "zone": pa.float64()})
    pq.write_table(pa.Table.from_pylist(views, schema), tmp_path / "views.parquet")
    values = config(tmp_path).model_dump(by_alias=True, exclude_unset=True)
    values |= {"splits": {"train": {"first": SMALL_DAYS[0], "last": SMALL_DAYS[1]}}, "vocabularies": {"zone": {"min_count": 1}}}
    values["log"]["impressions"]["columns"]["zone"] = "bigint(10000000 * (1 + clicked))"
    columns = {"user_id": "user_id", "item_id": "item_id", "time": "ts", "zone": "zone"}
    values["log"]["behaviors"] = {"view": {"path": str(tmp_path / "views.parquet"), "columns": columns}}
    values["fields"] |= {"candidate": {"item_id": {}, "zone": {}}, "behaviors": {"item_id": {}, "zone": {}}}
    made = DataConfig.model_validate(values)
    contract = build_samples(spark, made, SMALL_DAYS[0], SMALL_DAYS[1]).contract
    path = contract.vocabulary("zone").path
    assert path is not None
    assert sorted(pq.read_table(tmp_path / "samples" / path)["value"].to_pylist()) == ["10000000", "20000000"]
    assert not audit(spark, made, 20, 0).findings


def test_clicks_whose_ids_are_decimals_meet_impressions_whose_ids_are_integers(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path, per_day=30, days=2)
    labels = []
    for expression in ("int(substring(item_id, 2))", "CAST(substring(item_id, 2) AS DECIMAL(38, 10))"):
        values = config(tmp_path, samples=str(tmp_path / str(len(labels)))).model_dump(by_alias=True, exclude_unset=True)
        values |= {"splits": {"train": {"first": SMALL_DAYS[0], "last": SMALL_DAYS[1]}}, "items": None}
        values["fields"] |= {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}}}
        values["log"] |= {"attribution_by": "user_and_item"}
        values["log"]["impressions"]["columns"] |= {"item_id": "int(substring(item_id, 2))"}
        values["log"]["clicks"]["columns"] = {**values["log"]["clicks"]["columns"], "item_id": expression}
        contract = build_samples(spark, DataConfig.model_validate(values), SMALL_DAYS[0], SMALL_DAYS[1]).contract
        labels.append([(day.positives, [file.sha256 for file in day.files]) for day in contract.days])
    assert labels[0] == labels[1]
    assert labels[0][0][0] > 0


def test_an_id_of_bytes_is_their_text(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [b"u1"]}), tmp_path / "ids.parquet")
    source = Source(path=str(tmp_path / "ids.parquet"), columns={"user_id": "id"})
    assert read_source(spark, "users", source).first() == ("u1",)


def test_an_array_is_no_id(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [[1]]}), tmp_path / "ids.parquet")
    with pytest.raises(LogError, match="users: user_id is array<bigint>"):
        read_source(spark, "users", Source(path=str(tmp_path / "ids.parquet"), columns={"user_id": "id"}))
