"""A log that cannot be used ends the job with one sentence that says what, where and what to do, and leaves nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.broken_shop import (
    COLUMNS,
    CSV,
    DAYS,
    DDL,
    JSON,
    SCHEMA,
    Refusals,
    csv,
    files,
    good_rows,
    json_lines,
    objects,
)

pytestmark = pytest.mark.spark


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


def test_a_column_whose_name_is_no_word_and_has_no_backticks(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).replace("user_id", "User ID", 1))
    named = CSV | {"columns": {**CSV["columns"], "user_id": "User ID"}}
    log.refused("log.impressions.columns.user_id: 'User ID' is a column", "`User ID`", **named)


def test_a_csv_with_another_separator(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).replace(",", ";"))
    log.refused("log.impressions.columns", "the columns there are day, 'impression_id;user_id", **CSV)


def test_a_csv_whose_header_is_read_as_a_row(log: Refusals) -> None:
    log.text("part-0.csv", csv)
    unnamed = CSV | {"options": {}}
    log.refused("log.impressions.columns", "the columns there are _c0, _c1", "options: {header: true}", **unnamed)


def test_a_csv_header_that_names_a_column_twice(log: Refusals) -> None:
    log.text("part-0.csv", lambda rows: csv(rows).replace("device", "user_id"))
    log.refused("log.impressions.columns", "the columns there are", "user_id1, user_id4", **CSV)


def test_csv_files_with_a_schema_whose_columns_are_in_another_order_on_the_second_day(log: Refusals) -> None:
    (log.partition(DAYS[0]) / "part-0.csv").write_text(csv(good_rows(DAYS[0])))
    other = ["user_id", "impression_id", *SCHEMA.names[2:]]
    (log.partition(DAYS[1]) / "part-0.csv").write_text(csv(good_rows(DAYS[1]), other))
    typed = CSV | {"schema": DDL}
    log.refused("log.impressions: cannot read", "header does not conform", "part-0.csv", "leave the schema out", **typed)


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


@pytest.mark.parametrize(("expression", "kind"), [("array(user_id)", "array<string>"), ("clicked = 1", "boolean")])
def test_an_id_that_is_neither_text_nor_a_number(log: Refusals, expression: str, kind: str) -> None:
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


def test_a_categorical_field_of_many_values(log: Refusals) -> None:
    log.both()
    fields = {"candidate": {"item_id": {}}, "context": {"device": {"expression": "split(device, 'o')"}}}
    log.refused("fields.context.device", "array<string>", "array_join", changes={"fields": fields})


@pytest.mark.parametrize("table", ["items", "lookups"])
def test_a_table_with_a_line_that_cannot_be_parsed(log: Refusals, table: str) -> None:
    log.both()
    path = log.folder / "table.csv"
    path.write_text("item_id,price\ni0,3.5\ni1,cheap\n")
    columns = {"item_id": "item_id", "price": "price"}
    source = {"path": str(path), "format": "csv", "schema": "item_id STRING, price DOUBLE", "columns": columns}
    source["options"] = {"header": True}
    changes = {"items": source} if table == "items" else {"lookups": [{**source, "keys": ["item_id"]}]}
    name = {"items": "items", "lookups": "lookups.0"}[table]
    log.refused(f"{name}: 1 of its lines cannot be parsed, such as 'i1,cheap'", "DROPMALFORMED", changes=changes)


def test_sampling_that_leaves_nothing_of_a_day(log: Refusals) -> None:
    for day in DAYS:
        log.parquet(day, [{**row, "clicked": 0} for row in good_rows(day)])
    sentence = log.sentence(log.config(changes={"sampling": {"negatives": 1e-9}}))
    assert f"no samples were made for {DAYS[0]}" in sentence
    assert "sampling.negatives keeps none of them" in sentence
    assert not files(log.samples)


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
    assert f"on {DAYS[0]} log.impressions: nothing is known of it in items: 12" in sentence
    assert not files(log.samples)
