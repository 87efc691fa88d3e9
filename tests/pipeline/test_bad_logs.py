"""A log that cannot be used ends the job with one sentence that says what, where and what to do; a row that breaks a rule goes to the
quarantine. Neither leaves anything half-written behind."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import build_samples as job
from pipeline.build import BuildReport, build_samples
from pipeline.config import DataConfig
from pipeline.contract import Contract

pytestmark = pytest.mark.spark

Row = dict[str, Any]

DAYS = (dt.date(2026, 3, 1), dt.date(2026, 3, 2))
MINUTE = dt.timedelta(minutes=1)
TIMESTAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {"impression_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(), "ts": TIMESTAMP}
    | {"device": pa.string(), "clicked": pa.int32()}
)
COLUMNS = {name: name for name in ("impression_id", "user_id", "item_id", "device")} | {"time": "ts", "label": "clicked"}
DDL = "impression_id STRING, user_id STRING, item_id STRING, ts STRING, device STRING, clicked INT"
CSV = {"format": "csv", "options": {"header": True}, "columns": {**COLUMNS, "time": "to_timestamp(ts)"}}
JSON = {"format": "json", "columns": {**COLUMNS, "time": "to_timestamp(ts)"}}


def midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.timezone.utc)


def good_rows(day: dt.date) -> list[Row]:
    return [
        {
            "impression_id": f"{day}-{n}",
            "user_id": f"u{n % 4}",
            "item_id": f"i{n % 5}",
            "ts": midnight(day) + (60 + n) * MINUTE,
            "device": ("phone", "desktop")[n % 2],
            "clicked": int(n % 3 == 0),
        }
        for n in range(12)
    ]


def with_first(day: dt.date, **values: Any) -> list[Row]:
    """A day's rows, with some values of the first of them replaced."""
    first, *others = good_rows(day)
    return [first | values, *others]


def csv(rows: list[Row], names: list[str] = SCHEMA.names) -> str:
    texts = [{**row, "ts": row["ts"].isoformat()} for row in rows]
    return "".join(f"{line}\n" for line in [",".join(names), *(",".join(str(text[name]) for name in names) for text in texts)])


def objects(rows: list[Row]) -> list[Row]:
    return [{**row, "ts": row["ts"].isoformat()} for row in rows]


def json_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects(rows))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Shop:
    """A labeled log of two days, a folder a day: the first to train on, the second to test."""

    folder: Path

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def partition(self, day: dt.date | str) -> Path:
        path = self.folder / "log" / f"day={day}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, content: Callable[[list[Row]], str | bytes]) -> None:
        """The same kind of file in both days' folders."""
        for day in DAYS:
            made = content(good_rows(day))
            (self.partition(day) / name).write_bytes(made if isinstance(made, bytes) else made.encode())

    def parquet(self, day: dt.date | str, rows: list[Row] | None = None, schema: pa.Schema = SCHEMA) -> Path:
        path = self.partition(day) / "part-0.parquet"
        made = rows if rows is not None else good_rows(dt.date.fromisoformat(str(day)))
        pq.write_table(pa.Table.from_pylist(made, schema), path)
        return path

    def both(self, schema: pa.Schema = SCHEMA, **values: Any) -> None:
        """Parquet on both days; the first row of each has the values."""
        for day in DAYS:
            self.parquet(day, with_first(day, **values), schema)

    def config(self, *, changes: Row | None = None, **source: Any) -> DataConfig:
        """``source`` replaces keys of ``log.impressions``, ``changes`` keys of the top level."""
        impressions = {"path": str(self.folder / "log"), "columns": COLUMNS, "day_column": "day", **source}
        values = {
            "name": "shop",
            "samples": str(self.samples),
            "log": {"kind": "labeled", "impressions": impressions},
            "fields": {
                "candidate": {"item_id": {}},
                "behaviors": {"item_id": {}},
                "user": {"user_id": {}},
                "context": {"device": {}},
            },
            "history": {"length": 3, "days": 1},
            "splits": {"train": {"first": DAYS[0], "last": DAYS[0]}, "test": {"first": DAYS[1], "last": DAYS[1]}},
        }
        return DataConfig.model_validate(values | (changes or {}))


@dataclass(frozen=True)
class Refusals(Shop):
    """A shop whose builds are to be refused."""

    capsys: pytest.CaptureFixture[str]

    def refused(self, *words: str, changes: Row | None = None, **source: Any) -> None:
        self.refused_with(self.config(changes=changes, **source), *words)

    def refused_with(self, config: DataConfig, *words: str, first: dt.date = DAYS[0]) -> None:
        before = files(self.samples)
        sentence = self.sentence(config, first)
        for word in words:
            assert word in sentence
        assert files(self.samples) == before

    def sentence(self, config: DataConfig, first: dt.date = DAYS[0]) -> str:
        """What the job says of a build that fails, and nothing else."""
        path = self.folder / "data.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True, exclude_unset=True)))
        code = job.main(["--config", str(path), "--from", str(first)])
        said = self.capsys.readouterr()
        assert (code, said.out) == (1, "")
        assert "Traceback" not in said.err
        assert "\tat " not in said.err
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return sentence


@pytest.fixture
def log(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Refusals]:
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)  # the job ends its session, which here is that of all tests
    yield Refusals(tmp_path, capsys)


# Files that cannot be read


def test_a_folder_that_is_not_there(log: Refusals) -> None:
    log.refused("log.impressions", "no such path", "/nowhere", "correct log.impressions.path", path=str(log.folder / "nowhere"))


def test_a_folder_without_files(log: Refusals) -> None:
    (log.folder / "log").mkdir()
    log.refused("log.impressions", "has no parquet files", "bring the files")


def test_a_kind_of_path_that_the_cluster_does_not_know(log: Refusals) -> None:
    log.refused("log.impressions: cannot reach s3x://shop/log", 'scheme "s3x"', path="s3x://shop/log")


def test_a_table_that_the_catalog_does_not_have(log: Refusals) -> None:
    config = log.config()
    source = config.log.impressions.model_copy(update={"path": None, "table": "shop.views", "day_column": None})
    source = source.model_validate({"table": "shop.views", "columns": COLUMNS})
    shop_log = config.log.model_copy(update={"impressions": source})
    log.refused_with(config.model_copy(update={"log": shop_log}), "log.impressions", "no table 'shop.views'")


def test_parquet_files_of_no_bytes(log: Refusals) -> None:
    log.text("part-0.parquet", lambda rows: b"")
    log.refused(
        "log.impressions: cannot read", "part-0.parquet is not a Parquet file (length is too low: 0)", "write the files anew"
    )


def test_a_day_whose_only_file_has_no_bytes(log: Refusals) -> None:
    log.both()
    log.parquet(DAYS[1]).write_bytes(b"")
    log.refused("log.impressions", f"no events on {DAYS[1]}", "bring the missing days")


def test_text_in_a_folder_of_parquet(log: Refusals) -> None:
    log.both()
    (log.partition(DAYS[1]) / "readme.txt").write_text("these are the logs")
    log.refused("log.impressions: cannot read", "readme.txt is not a Parquet file", "take it away")


def test_a_parquet_file_that_ends_too_early(log: Refusals) -> None:
    log.both()
    whole = log.parquet(DAYS[1])
    whole.write_bytes(whole.read_bytes()[:-100])
    log.refused("log.impressions: cannot read", f"day={DAYS[1]}/part-0.parquet is not a Parquet file", "write it anew")


def test_a_parquet_file_that_is_damaged_in_the_middle(log: Refusals) -> None:
    log.both()
    whole = log.parquet(DAYS[1])
    whole.write_bytes(whole.read_bytes()[:4] + b"\xff" * 200 + whole.read_bytes()[204:])
    log.refused("log.impressions: cannot read", f"day={DAYS[1]}/part-0.parquet", "the file is damaged", "write it anew")


def test_parquet_that_is_said_to_be_orc(log: Refusals) -> None:
    log.both()
    log.refused("log.impressions: cannot read", "as orc", "Malformed ORC file", "correct log.impressions.path", format="orc")


def test_a_gzip_file_that_ends_too_early(log: Refusals) -> None:
    log.text("part-0.csv.gz", lambda rows: gzip.compress(csv(rows).encode())[:-30])
    log.refused("log.impressions: cannot read", "part-0.csv.gz", "Unexpected end of input", "write it anew", **CSV)


def test_a_gzip_file_that_is_none(log: Refusals) -> None:
    log.text("part-0.json.gz", json_lines)
    log.refused("log.impressions: cannot read", "part-0.json.gz: IOException: not a gzip file", schema=DDL, **JSON)


def test_a_csv_in_latin_1_read_as_utf_8(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv([rows[0] | {"user_id": "Zoë"}, *rows[1:]]).encode("latin-1"))
    log.refused("log.impressions: user_id is not UTF-8 text in 1 of 12 rows", "Zo\ufffd", "encoding: ISO-8859-1", **CSV)


def test_a_csv_in_utf_16_read_as_utf_8(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).encode("utf-16"))
    log.refused("log.impressions.columns", "not UTF-8 text", "encoding: UTF-16, multiLine: true", **CSV)


def test_an_encoding_that_spark_does_not_know(log: Refusals) -> None:
    log.text("part-0.csv", csv)
    log.refused("log.impressions: cannot read", "utf-99", "log.impressions.options", **CSV | {"options": {"encoding": "utf-99"}})


def test_a_json_array_over_several_lines(log: Refusals) -> None:
    log.text("part-0.json", lambda rows: json.dumps(objects(rows), indent=1))
    log.refused("log.impressions: no line of", "is a JSON object", "multiLine: true", **JSON)


# Columns


def test_a_column_that_is_not_there(log: Refusals) -> None:
    log.both()
    columns = COLUMNS | {"user_id": "member"}
    log.refused("log.impressions.columns.user_id", "`member`", "the columns there are clicked, day, device", columns=columns)


def test_a_csv_with_another_separator(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).replace(",", ";"))
    log.refused("log.impressions.columns", "the columns there are day, impression_id;user_id", **CSV)


def test_a_csv_header_that_names_a_column_twice(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).replace("device", "user_id"))
    log.refused("log.impressions.columns", "the columns there are", "user_id1, user_id4", **CSV)


def test_csv_files_whose_columns_are_in_another_order_on_the_second_day(log: Refusals) -> None:
    (log.partition(DAYS[0]) / "part-0.csv").write_text(csv(good_rows(DAYS[0])))
    other = ["user_id", "impression_id", *SCHEMA.names[2:]]
    (log.partition(DAYS[1]) / "part-0.csv").write_text(csv(good_rows(DAYS[1]), other))
    log.refused("log.impressions: cannot read", "header does not conform", "part-0.csv", "enforceSchema", **CSV)


def test_parquet_whose_columns_differ_in_case_only(log: Refusals) -> None:
    log.both(pa.schema([*SCHEMA, pa.field("Device", pa.string())]))
    log.refused("log.impressions: cannot read", "`device` already exists", "caseSensitive")


def test_parquet_whose_id_is_missing_on_the_second_day(log: Refusals) -> None:
    log.parquet(DAYS[0])
    log.parquet(DAYS[1], schema=pa.schema([field for field in SCHEMA if field.name != "user_id"]))
    log.refused(f"log.impressions: user_id is null or empty in 12 of 12 rows on {DAYS[1]}", "IS NOT NULL")


def test_parquet_whose_id_has_another_type_on_the_second_day(log: Refusals) -> None:
    log.parquet(DAYS[0])
    numbers = [{**row, "user_id": n} for n, row in enumerate(good_rows(DAYS[1]))]
    log.parquet(DAYS[1], numbers, SCHEMA.set(1, pa.field("user_id", pa.int64())))
    log.refused("log.impressions: cannot read", f"day={DAYS[1]}/part-0.parquet", "[user_id]", "INT64", "one type in all files")


@pytest.mark.parametrize(("expression", "kind"), [("array(user_id)", "array<string>"), ("double(1)", "double")])
def test_an_id_that_is_neither_text_nor_a_whole_number(log: Refusals, expression: str, kind: str) -> None:
    log.both()
    columns = COLUMNS | {"user_id": expression}
    log.refused(f"log.impressions: user_id is {kind}", "text or a whole number", "CAST", columns=columns)


@pytest.mark.parametrize(("expression", "kind"), [("unix_millis(ts)", "bigint"), ("to_timestamp_ntz(ts)", "timestamp_ntz")])
def test_a_time_that_is_no_timestamp(log: Refusals, expression: str, kind: str) -> None:
    log.both()
    log.refused(f"log.impressions: time is {kind}", "timestamp_millis", "to_timestamp", columns=COLUMNS | {"time": expression})


def test_times_in_nanoseconds(log: Refusals) -> None:
    log.both(SCHEMA.set(3, pa.field("ts", pa.timestamp("ns", tz="UTC"))))
    log.refused("log.impressions: cannot read", "TIMESTAMP(NANOS", "nanosAsLong=true", "timestamp_micros")


def test_an_aggregate_for_a_column(log: Refusals) -> None:
    log.both()
    log.refused("log.impressions.columns.device", "GROUP BY", columns=COLUMNS | {"device": "max(device)"})


def test_a_field_without_a_column(log: Refusals) -> None:
    log.both()
    fields = {"candidate": {"item_id": {}}, "context": {"weather": {}}}
    log.refused("fields.context.weather", "`weather`", "device", changes={"fields": fields})


def test_a_numeric_field_that_is_text(log: Refusals) -> None:
    log.both()
    fields = {"candidate": {"item_id": {}}, "context": {"device": {"kind": "numeric"}}}
    log.refused("fields.context.device", "string", "try_cast", changes={"fields": fields})


def test_a_table_whose_column_the_log_has_already(log: Refusals) -> None:
    log.both()
    items = {"path": str(log.folder / "log"), "columns": {"item_id": "item_id", "device": "device"}}
    log.refused("items.columns", "'device'", "another name", changes={"items": items})


# Expressions that fail on a row


@pytest.mark.parametrize(
    ("column", "expression", "words"),
    [
        ("label", "int(1 / clicked)", ["Division by zero", "try_divide"]),
        ("label", "int(device)", ["'phone'", "try_cast"]),
        ("time", "to_timestamp(device)", ["'phone'", "TIMESTAMP", "try_cast"]),
        ("time", "timestamp_seconds(9223372036854775807 - clicked)", ["long overflow", "is its unit right?"]),
    ],
)
def test_an_expression_that_fails_on_a_row(log: Refusals, column: str, expression: str, words: list[str]) -> None:
    log.both(device="phone", clicked=0)
    log.refused(f"log.impressions.columns.{column}: ", *words, columns=COLUMNS | {column: expression})


def test_a_condition_that_fails_on_a_row(log: Refusals) -> None:
    log.both()
    log.refused("log.impressions.where: 'int(device) = 1' fails on a row", "try_cast", where="int(device) = 1")


def test_a_condition_that_is_no_condition(log: Refusals) -> None:
    log.both()
    log.refused("log.impressions.where: it is string, not true or false", where="device")


def test_a_field_s_expression_that_fails_on_a_row(log: Refusals) -> None:
    log.both()
    fields = {"candidate": {"item_id": {}}, "context": {"device": {"expression": "int(device)"}}}
    log.refused("fields.context.device: 'int(device)' fails on a row", "try_cast", changes={"fields": fields})


# Days


def test_a_day_folder_without_files(log: Refusals) -> None:
    log.parquet(DAYS[0])
    log.partition(DAYS[1])
    log.refused("log.impressions", f"no events on {DAYS[1]}", "log.empty_days")


def test_a_day_that_is_not_there(log: Refusals) -> None:
    log.parquet(DAYS[1])
    log.refused("log.impressions", f"no events on {DAYS[0]}", f"run from {DAYS[1]} to {DAYS[1]}", "correct --from and --to")


@pytest.mark.parametrize("name", ["foo", "__HIVE_DEFAULT_PARTITION__"])
def test_a_day_folder_that_names_no_day(log: Refusals, name: str) -> None:
    log.both()
    log.parquet(name, good_rows(DAYS[0]))
    log.refused("log.impressions: the row lies in a partition that is no date in 12 of 36 rows", "day=2026-01-31")


def test_a_day_folder_with_a_date_that_is_none(log: Refusals) -> None:
    log.both()
    log.parquet("2026-02-30", good_rows(DAYS[0]))
    log.refused("log.impressions: the row lies in a partition that is no date", "day=2026-01-31")


def test_day_folders_that_are_named_by_numbers(log: Refusals) -> None:
    for day in DAYS:
        log.parquet(f"{day:%Y%m%d}", good_rows(day))
    log.refused("log.impressions.day_column: day is int, not a date", "day=2026-01-31")


def test_day_folders_of_two_names(log: Refusals) -> None:
    log.both()
    shutil.move(log.folder / "log" / f"day={DAYS[1]}", log.folder / "log" / f"date={DAYS[1]}")
    log.refused(
        "log.impressions: cannot read", "Conflicting partition column names", f"date={DAYS[1]}", "bring the folders to one name"
    )


def test_times_in_the_wrong_unit(log: Refusals) -> None:
    log.both()
    columns = COLUMNS | {"time": "timestamp_seconds(unix_millis(ts))"}
    log.refused("log.impressions: time lies outside the years 1990 to 2100", "seconds or milliseconds?", columns=columns)


def test_a_condition_that_leaves_nothing(log: Refusals) -> None:
    log.both()
    log.refused("log.impressions: no events between", "the condition (where)", where="device = 'television'")


def test_a_click_log_without_rows(log: Refusals) -> None:
    log.both()
    clicks = log.folder / "clicks.parquet"
    pq.write_table(SCHEMA.empty_table(), clicks)
    events = {c: e for c, e in COLUMNS.items() if c != "label"}
    sources = {
        "impressions": {"path": str(log.folder / "log"), "columns": events, "day_column": "day"},
        "clicks": {"path": str(clicks), "columns": events},
    }
    log.refused(
        "log.clicks: no events between", "correct the path", changes={"log": {"kind": "impressions_and_clicks", **sources}}
    )


def test_an_item_table_without_rows_where_items_must_be_known(log: Refusals) -> None:
    log.both()
    items = log.folder / "items.parquet"
    pq.write_table(pa.schema({"item_id": pa.string(), "category": pa.string()}).empty_table(), items)
    columns = {"item_id": "item_id", "category": "category"}
    table = {"path": str(items), "columns": columns, "missing": "quarantine"}
    sentence = log.sentence(log.config(changes={"items": table}))
    assert f"no samples were made for {DAYS[0]} to {DAYS[1]}" in sentence
    assert "in the quarantine" in sentence
    assert not (log.samples / "contract.json").exists()


# Rows of lines that break a rule


def milliseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def line(name: str, **values: Any) -> bytes:
    noon = milliseconds(midnight(DAYS[0]) + 720 * MINUTE)
    row = {"id": name, "user": "u1", "item": "i1", "time": noon, "arrived": noon, "label": 1, "device": "phone"} | values
    return ",".join(map(str, row.values())).encode("latin-1") + b"\n"


NOON = milliseconds(midnight(DAYS[0]) + 720 * MINUTE)
BROKEN_LINES = {
    "no-user": (line("no-user", user=""), "user_id is null or empty"),
    "no-item": (line("no-item", item=""), "item_id is null or empty"),
    "no-utf-8": (line("no-utf-8", user="Zoë"), "user_id is not UTF-8 text"),
    "10-MB-id": (line("10-MB-id", user="u" * 10_000_000), "user_id has more than 1000 bytes"),
    "too-few-columns": (b"too-few-columns,u1,i1\n", "the line cannot be parsed"),
    "too-many-columns": (line("too-many-columns", more="more"), "the line cannot be parsed"),
    "no-number": (line("no-number", time="noon"), "the line cannot be parsed"),
    "no-time": (line("no-time", time=""), "time is null"),
    "negative-time": (line("negative-time", time=-1), "time lies outside the years 1990 to 2100"),
    "seconds": (line("seconds", time=NOON // 1000), "time lies outside the years 1990 to 2100"),
    "year-9999": (line("year-9999", time=253_402_300_799_000), "time lies outside the years 1990 to 2100"),
    "microseconds": (line("microseconds", time=NOON * 1000), "time lies outside the years 1990 to 2100"),
    "other-day": (line("other-day", time=NOON + 86_400_000), "the row lies in the partition of another day"),
    "no-arrival": (line("no-arrival", arrived=""), "arrived is null"),
    "arrived-before": (line("arrived-before", arrived=NOON - 300_001), "the row arrived before it happened"),
    "label-2": (line("label-2", label=2), "label is neither 0 nor 1"),
    "label-yes": (line("label-yes", label="yes"), "label is neither 0 nor 1"),
    "label-half": (line("label-half", label=0.5), "label is neither 0 nor 1"),
    "no-label": (line("no-label", label=""), "label is neither 0 nor 1"),
    "twice": (line("twice") * 2, "a duplicate of another impression"),
}
GOOD_LINES = {
    "clocks-differ": line("clocks-differ", arrived=NOON - 300_000),
    "10-MB-device": line("10-MB-device", device="d" * 10_000_000),
    "no-device": line("no-device", device=""),
}


@dataclass(frozen=True)
class Built:
    """A build with rows in quarantine."""

    samples: Path
    contract: Contract

    def ids(self, day: dt.date) -> list[str]:
        """The impressions that were published."""
        (found,) = [found for found in self.contract.days if found.day == day]
        return sorted(name for f in found.files for name in pq.read_table(self.samples / f.path)["impression_id"].to_pylist())

    def reasons(self, day: dt.date) -> dict[str, str]:
        """The rows in quarantine by their impression, and why they are there; the counts are those that the contract says."""
        (found,) = [found for found in self.contract.days if found.day == day]
        assert found.quality is not None
        if found.quarantine is None:
            assert not found.quality.quarantined
            return {}
        rows = pq.read_table(self.samples / found.quarantine.path).to_pylist()
        counted: dict[str, int] = {}
        for row in rows:
            counted[row["reason"]] = counted.get(row["reason"], 0) + 1
        assert found.quality.quarantined == counted
        return {str(json.loads(row["row"]).get("impression_id")): row["reason"] for row in rows}

    def words(self, vocabulary: str) -> set[str]:
        path = self.contract.vocabulary(vocabulary).path
        assert path is not None
        return set(pq.read_table(self.samples / path)["value"].to_pylist())

    def column(self, day: dt.date, name: str) -> dict[str, Any]:
        (found,) = [found for found in self.contract.days if found.day == day]
        tables = [pq.read_table(self.samples / f.path, columns=["impression_id", name]) for f in found.files]
        return {row["impression_id"]: row[name] for table in tables for row in table.to_pylist()}


@pytest.fixture(scope="module")
def lines(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """CSV that is good but for some lines; the first day's begins with a byte order mark."""
    shop = Shop(tmp_path_factory.mktemp("lines"))
    broken = b"".join(content for content, _ in BROKEN_LINES.values()) + b"".join(GOOD_LINES.values())
    more = [line(f"good-{n}", user=f"u{n % 3}", item=f"i{n % 4}") for n in range(10)]
    (shop.partition(DAYS[0]) / "part-0.csv").write_bytes(b"\xef\xbb\xbf" + more[0] + broken + b"".join(more[1:]))
    (shop.partition(DAYS[1]) / "part-0.csv").write_bytes(
        b"".join(line(f"later-{n}", time=NOON + 86_400_000, arrived=NOON + 86_400_000) for n in range(3))
    )
    (shop.partition("foo") / "part-0.csv").write_bytes(line("no-day"))
    names = "impression_id STRING, user_id STRING, item_id STRING, ts BIGINT, arrived BIGINT, clicked STRING, device STRING"
    columns = COLUMNS | {"time": "timestamp_millis(ts)", "arrived": "timestamp_millis(arrived)"}
    config = shop.config(format="csv", schema=names, columns=columns, changes={"quality": {"max_quarantined": 0.9}})
    report: BuildReport = build_samples(spark, config, *DAYS)
    return Built(shop.samples, report.contract)


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_goes_to_the_quarantine_with_its_reason(lines: Built, name: str) -> None:
    assert lines.reasons(DAYS[0])[name] == f"log.impressions: {BROKEN_LINES[name][1]}"
    assert lines.ids(DAYS[0]).count(name) == (name == "twice")


def test_a_line_in_a_folder_of_no_day_goes_to_the_quarantine_of_the_first_day(lines: Built) -> None:
    assert lines.reasons(DAYS[0])["no-day"] == "log.impressions: the row lies in a partition that is no date"


def test_the_good_lines_beside_broken_ones_are_published(lines: Built) -> None:
    assert lines.ids(DAYS[0]) == sorted(["twice", *GOOD_LINES, *(f"good-{n}" for n in range(10))])
    assert lines.ids(DAYS[1]) == [f"later-{n}" for n in range(3)]
    assert lines.reasons(DAYS[1]) == {}


def test_a_value_that_no_one_can_mean_is_unknown(lines: Built) -> None:
    devices = lines.column(DAYS[0], "context_device")
    assert devices["10-MB-device"] == devices["no-device"] == 1
    assert devices["clocks-differ"] > 1
    assert lines.words("device") == {"phone"}


def test_a_10_mb_value_is_cut_in_the_quarantine(lines: Built) -> None:
    (day, _) = lines.contract.days
    assert day.quarantine is not None
    rows = pq.read_table(lines.samples / day.quarantine.path)["row"].to_pylist()
    assert max(map(len, rows)) < 11_000


# Rows of tables that break a rule


@pytest.fixture(scope="module")
def nested(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Parquet with nested columns, bytes and late rows; clicks and tables with what may happen to such."""
    shop = Shop(tmp_path_factory.mktemp("nested"))
    names = SCHEMA.remove(5).set(1, pa.field("user", pa.struct({"id": pa.string()})))
    names = names.set(2, pa.field("item_id", pa.binary())).set(3, pa.field("ts", pa.string()))

    def row(name: str, day: dt.date, **values: Any) -> Row:
        found = {"impression_id": name, "user": {"id": "u1"}, "item_id": b"i1", "ts": f"{day} 12:00:00", "device": "phone"}
        return found | values

    first = [row(f"first-{n}", DAYS[0], item_id=b"i%d" % (n % 2)) for n in range(8)]
    first += [row("null-parent", DAYS[0], user=None), row("null-child", DAYS[0], user={"id": None})]
    first += [row("bytes", DAYS[0], item_id=b"\xff\xfe"), row("no-time", DAYS[0], ts="noon")]
    first += [row("early", DAYS[1]), row("unknown-item", DAYS[0], item_id=b"i9")]
    shop.parquet(DAYS[0], first, names)
    second = [row(f"second-{n}", DAYS[1]) for n in range(3)] + [row("late", DAYS[0])]
    shop.parquet(DAYS[1], second, pa.schema(list(names)[::-1]))
    (shop.partition(DAYS[1]) / "part-1.parquet").write_bytes(b"")
    clicked = [{"impression_id": name, "user_id": "u1", "item_id": "i1", "ts": midnight(DAYS[0]) + 721 * MINUTE} for name in "ab"]
    clicked.append({**clicked[0], "impression_id": "first-1"})
    pq.write_table(pa.Table.from_pylist(clicked, pa.schema(list(SCHEMA)[:4])), shop.folder / "clicks.parquet")
    items = pa.table({"item_id": ["i0", "i0", "i1", None], "category": ["a", "z", "y", "x"]})
    pq.write_table(items, shop.folder / "items.parquet")
    known = pa.array([None, midnight(DAYS[0])], TIMESTAMP)
    pq.write_table(pa.table({"user_id": ["u1", "u1"], "age": ["99", "30"], "since": known}), shop.folder / "users.parquet")
    columns = {"impression_id": "impression_id", "user_id": "user.id", "item_id": "item_id", "device": "device"}
    event = {"impression_id": "impression_id", "user_id": "user_id", "item_id": "item_id", "time": "ts"}
    log = {
        "kind": "impressions_and_clicks",
        "impressions": {
            "path": str(shop.folder / "log"),
            "columns": columns | {"time": "try_to_timestamp(ts)"},
            "day_column": "day",
            "late_days": 1,
        },
        "clicks": {"path": str(shop.folder / "clicks.parquet"), "columns": event},
    }
    changes = {
        "log": log,
        "items": {
            "path": str(shop.folder / "items.parquet"),
            "columns": {"item_id": "item_id", "category": "category"},
            "missing": "quarantine",
        },
        "users": {
            "path": str(shop.folder / "users.parquet"),
            "columns": {"user_id": "user_id", "age": "age", "valid_from": "since"},
        },
        "fields": {"candidate": {"item_id": {}, "category": {}}, "user": {"age": {}}, "context": {"device": {}}},
        "quality": {"max_quarantined": 0.5},
    }
    report = build_samples(spark, shop.config(changes=changes), *DAYS)
    return Built(shop.samples, report.contract)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("null-parent", "user_id is null or empty"),
        ("null-child", "user_id is null or empty"),
        ("bytes", "item_id is not UTF-8 text"),
        ("no-time", "time is null"),
        ("early", "the row lies in the partition of another day"),
        ("unknown-item", "nothing is known of it in items"),
    ],
)
def test_a_broken_row_goes_to_the_quarantine_with_its_reason(nested: Built, name: str, reason: str) -> None:
    assert nested.reasons(DAYS[0])[name] == f"log.impressions: {reason}"
    assert name not in nested.ids(DAYS[0]) + nested.ids(DAYS[1])


def test_a_late_row_is_of_its_own_day(nested: Built) -> None:
    assert nested.ids(DAYS[0]) == sorted(["late", *(f"first-{n}" for n in range(8))])
    assert nested.ids(DAYS[1]) == [f"second-{n}" for n in range(3)]  # in columns of another order, beside a file of no bytes


def test_clicks_without_impressions_are_no_labels(nested: Built) -> None:
    assert [name for name, label in nested.column(DAYS[0], "label").items() if label] == ["first-1"]


def test_of_items_with_one_key_the_greatest_counts_and_those_without_a_key_do_not(nested: Built) -> None:
    assert nested.words("category") == {"y", "z"}


def test_what_is_known_of_a_user_since_no_one_says_when_does_not_count(nested: Built) -> None:
    assert nested.words("age") == {"30"}


# Days that pass a threshold


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with its first day built. The second has rows twice, unknown items, and devices that are new."""
    shop = Shop(tmp_path_factory.mktemp("trained"))
    shop.parquet(DAYS[0])
    rows = [{**row, "device": "television"} for row in good_rows(DAYS[1])]
    shop.parquet(DAYS[1], [*rows, *rows[:3], {**rows[0], "impression_id": "new", "item_id": "i9"}])
    names = [f"i{n}" for n in range(5)]
    pq.write_table(pa.table({"item_id": names, "category": names}), shop.folder / "items.parquet")
    build_samples(spark, limited(shop), DAYS[0], DAYS[0])
    return shop


def limited(shop: Shop, samples: Path | None = None, **quality: Any) -> DataConfig:
    columns = {"item_id": "item_id", "category": "category"}
    items = {"path": str(shop.folder / "items.parquet"), "columns": columns, "missing": "quarantine"}
    changes = {"items": items, "quality": {"max_quarantined": 0.2, "max_duplicates": 0.5} | quality}
    return shop.config(changes=changes | {"samples": str(samples or shop.samples)})


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ({"max_duplicates": 0.1}, ["3 of 16 of the impressions are duplicates", "quality.max_duplicates allows 0.1"]),
        ({"max_quarantined": 0.01}, ["1 of 16 of the impressions break a rule", "nothing is known of it in items: 1"]),
        ({"max_unknown": {"context_device": 0.5}}, ["context_device: share of unknown ids is 1.0", "max_unknown allows 0.5"]),
        ({"max_drift": {"context_device": 0.25}}, ["context_device: population stability index", "max_drift allows 0.25"]),
    ],
)
def test_a_day_over_a_threshold_is_not_published(trained: Shop, log: Refusals, quality: Row, words: list[str]) -> None:
    shutil.copytree(trained.samples, log.samples)
    sentence = log.sentence(limited(trained, log.samples, **quality), first=DAYS[1])
    for word in (str(DAYS[1]), *words):
        assert word in sentence
    before = files(trained.samples)
    assert before["contract.json"] == files(log.samples)["contract.json"]
    assert before.items() <= files(log.samples).items()


def test_a_day_over_a_threshold_leaves_no_file_behind(trained: Shop, log: Refusals) -> None:
    shutil.copytree(trained.samples, log.samples)
    log.refused_with(limited(trained, log.samples, max_duplicates=0.1), "duplicates", first=DAYS[1])


def test_a_day_under_the_thresholds_is_published(spark: SparkSession, trained: Shop, tmp_path: Path) -> None:
    shutil.copytree(trained.samples, tmp_path / "samples")
    quality = {"max_unknown": {"context_device": 1.0, "candidate_item_id": 0.1}, "max_drift": {"candidate_item_id": 1.0}}
    contract = build_samples(spark, limited(trained, tmp_path / "samples", **quality), DAYS[1], DAYS[1]).contract
    built = Built(tmp_path / "samples", contract)
    reasons = built.reasons(DAYS[1])
    assert reasons.pop("new") == "log.impressions: nothing is known of it in items"
    assert set(reasons.values()) == {"log.impressions: a duplicate of another impression"}
    assert built.ids(DAYS[1]) == sorted(row["impression_id"] for row in good_rows(DAYS[1]))


def test_a_day_known_to_be_empty_is_a_day_of_no_rows(spark: SparkSession, log: Refusals) -> None:
    log.parquet(DAYS[0])
    source = log.config().log.impressions.model_dump(by_alias=True, exclude_unset=True)
    config = log.config(changes={"log": {"kind": "labeled", "impressions": source, "empty_days": [DAYS[1]]}})
    assert [day.rows for day in build_samples(spark, config, *DAYS).contract.days] == [12, 0]
