from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig, Source
from pipeline.logs.errors import LogError
from pipeline.logs.sources import read_source
from tests.support.small_logs import DAYS, TIMESTAMP

SHOWN = pa.list_(pa.struct([("item", pa.string()), ("clicked", pa.int32())]))
PAGES = pa.schema([("id", pa.string()), ("user", pa.string()), ("ts", TIMESTAMP), ("shown", pa.string()), ("structs", SHOWN)])
TEXT = {
    "impression_id": "concat(id, '-', position)",
    "user_id": "user",
    "item_id": "split_part(element, '-', 1)",
    "time": "ts",
    "label": "int(split_part(element, '-', 2))",
    "place": "position",
}


def page(number: int, shown: list[tuple[str | None, int]] | None, **more: Any) -> dict[str, Any]:
    """A page of the first day, its list as a text in MIND's layout and as structs."""
    text = " ".join("" if item is None else f"{item}-{clicked}" for item, clicked in shown) if shown is not None else None
    structs = [{"item": item, "clicked": clicked} if item is not None else None for item, clicked in shown or []]
    time = dt.datetime.combine(DAYS[0], dt.time(1), dt.timezone.utc) + number * dt.timedelta(minutes=1)
    row = {"id": f"p{number}", "user": f"u{number % 3}", "ts": time, "shown": text}
    return row | {"structs": structs if shown is not None else None} | more


def written(folder: Path, pages: list[dict[str, Any]]) -> Path:
    path = folder / "pages.parquet"
    pq.write_table(pa.Table.from_pylist(pages, PAGES), path)
    return path


def config(path: Path, explode: str, columns: dict[str, str], **quality: Any) -> DataConfig:
    return DataConfig.model_validate(
        {
            "name": "pages",
            "samples": str(path.parent / "samples"),
            "log": {
                "kind": "labeled",
                "label_delay_hours": 0,
                "impressions": {"path": str(path), "explode": explode, "columns": columns},
                "empty_days": "any",
            },
            "fields": {"candidate": {"item_id": {}}, "context": {"place": {"kind": "numeric"}}},
            "vocabularies": {"item_id": {"min_count": 1}},
            "splits": {"train": {"first": DAYS[0], "last": DAYS[0]}},
            "quality": quality,
        }
    )


def held(small: DataConfig, spark: SparkSession) -> list[tuple[str, int]]:
    contract = build_samples(spark, small, DAYS[0], DAYS[0]).contract
    files = [file for day in contract.days for file in day.files]
    rows = [row for file in files for row in pq.read_table(Path(small.samples) / file.path, partitioning=None).to_pylist()]
    return sorted((row["impression_id"], row["label"]) for row in rows)


@pytest.mark.parametrize(
    ("explode", "item", "label"),
    [
        ("split(shown, ' ')", "split_part(element, '-', 1)", "int(split_part(element, '-', 2))"),
        ("structs", "element.item", "element.clicked"),
        ("transform(structs, s -> s.item)", "element", "structs[position].clicked"),  # the source's own columns are there too
    ],
)
def test_each_element_of_a_list_is_an_impression(
    spark: SparkSession, tmp_path: Path, explode: str, item: str, label: str
) -> None:
    pages = [page(0, [("N1", 0), ("N2", 1)]), page(1, [("N3", 0)]), page(3, [("N1", 1), ("N1", 0), ("N9", 0)])]
    small = config(written(tmp_path, pages), explode, TEXT | {"item_id": item, "label": label})
    wanted = [("p0-0", 0), ("p0-1", 1), ("p1-0", 0), ("p3-0", 1), ("p3-1", 0), ("p3-2", 0)]
    assert held(small, spark) == wanted
    assert audit(spark, small, rows=10).findings == []


def test_lists_and_elements_that_are_null_are_counted_and_shown_and_empty_lists_give_no_row(
    spark: SparkSession, tmp_path: Path
) -> None:
    pages = [page(0, [("N1", 0), (None, 0), ("N2", 1)]), page(1, None), page(2, []), page(3, [("N4", 2)])]
    columns = TEXT | {"item_id": "element.item", "label": "element.clicked"}
    small = config(written(tmp_path, pages), "structs", columns, max_quarantined=1.0)
    assert held(small, spark) == [("p0-0", 0), ("p0-2", 1)]
    day = build_samples(spark, small, DAYS[0], DAYS[0]).contract.days[0]
    assert day.quality is not None
    assert day.quality.quarantined == {
        "log.impressions: an element of the list of explode is null": 1,
        "log.impressions: label is neither 0 nor 1": 1,
        "log.impressions: the list of explode is null": 1,
    }
    assert day.quarantine is not None
    rows = {
        row["reason"]: row["row"]
        for row in pq.read_table(Path(small.samples) / day.quarantine.path, partitioning=None).to_pylist()
    }
    assert '"user_id":"u1"' in rows["log.impressions: the list of explode is null"]
    assert '"impression_id":"p0-1"' in rows["log.impressions: an element of the list of explode is null"]
    assert '"item_id":"N4"' in rows["log.impressions: label is neither 0 nor 1"]
    strict = config(written(tmp_path, pages[:2]), "structs", columns)
    with pytest.raises(LogError, match=r"of explode is null in 1 of 4 rows.*coalesce\(\.\.\., array\(\)\)"):
        build_samples(spark, strict.model_copy(update={"samples": str(tmp_path / "other")}), DAYS[0], DAYS[0])


def test_a_condition_may_use_the_element(spark: SparkSession, tmp_path: Path) -> None:
    path = written(tmp_path, [page(0, [("N1", 0), (None, 0), ("N2", 1)]), page(1, None)])
    source = Source(path=str(path), explode="structs", columns={"item_id": "element.item"}, where="element IS NOT NULL")
    assert [row["item_id"] for row in read_source(spark, "log.impressions", source).collect()] == ["N1", "N2"]


@pytest.mark.parametrize(
    ("explode", "says"),
    [
        ("shown", r"log\.impressions\.explode: it is string, not an array"),
        ("split(nothing, ' ')", r"log\.impressions\.explode: .*nothing.*the columns there are"),
    ],
)
def test_what_gives_no_list_is_refused(spark: SparkSession, tmp_path: Path, explode: str, says: str) -> None:
    path = written(tmp_path, [page(0, [("N1", 0)])])
    with pytest.raises(LogError, match=says):
        read_source(spark, "log.impressions", Source(path=str(path), explode=explode, columns={"item_id": "element"}))


def test_a_column_that_has_the_name_of_the_element_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"Position": [1], "items": [["a"]]}), tmp_path / "log.parquet")
    source = Source(path=str(tmp_path / "log.parquet"), explode="items", columns={"item_id": "element"})
    with pytest.raises(LogError, match="the source has a column 'Position', a name that explode gives"):
        read_source(spark, "log.impressions", source)
