"""Expressions that draw chance, or look at the clock or the session, are refused wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.config import AttributeSource, Lookup, Source
from pipeline.logs.errors import LogError
from pipeline.logs.expressions import evaluate, fits
from pipeline.logs.sources import read_source
from tests.pipeline.bad_logs.conftest import log  # noqa: F401
from tests.support.broken_shop import COLUMNS, Refusals

pytestmark = pytest.mark.spark

CHANGING = {
    "rand()": "rand",
    "int(rand(7) * 4)": "rand",
    "randn()": "randn",
    "uniform(0, 9)": "uniform",
    "randstr(3)": "randstr",
    "uuid()": "uuid",
    "element_at(shuffle(array(id, id + 1)), 1)": "shuffle",
    "monotonically_increasing_id()": "monotonically_increasing_id",
    "spark_partition_id()": "spark_partition_id",
    "input_file_name()": "input_file_name",
    "reflect('java.util.UUID', 'randomUUID')": "reflect",
    "datediff(current_date(), date(at))": "current_date",
    "datediff(current_date, date(at))": "current_date",
    "at > now()": "now",
    "unix_timestamp()": "current_timestamp",
    "localtimestamp()": "localtimestamp",
    "concat(id, current_user)": "current_user",
    "session_user()": "session_user",
    "current_timezone()": "current_timezone",
    "current_database()": "current_schema",
    "transform(array(id), x -> x + rand())": "rand",
    "aggregate(array(id), 0, (a, x) -> a + day(current_date()))": "current_date",
    "if(id > 3, 1, if(id > 2, rand(), 0))": "rand",
    "(SELECT current_date())": "a subquery",
    "EXISTS (SELECT 1 WHERE rand() > 2)": "a subquery",
    "id IN (SELECT int(rand()))": "a subquery",
    "drawn()": "rand",
    "age_in_days(at)": "current_date",
    "at > timestamp 'now'": "timestamp 'now'",
    "date(at) = DATE ' Today '": "DATE ' Today '",
    "date(at) = 'yesterday'": "'yesterday'",
    "to_date('tomorrow')": "'tomorrow'",
    "CAST('now' AS TIMESTAMP)": "'now'",
}

#: What reads other rows, or makes several of one: a row that came later could be among them.
BEYOND = {
    "lead(word) OVER (PARTITION BY user_id ORDER BY at)": "a window (OVER)",
    "id + avg(id) OVER ()": "a window (OVER)",
    "(SELECT 3)": "a subquery",
    "(SELECT avg(id) FROM VALUES (1), (2) AS t(id))": "a subquery",
    "id IN (SELECT 3)": "a subquery",
    "explode(array(id, id))": "explode",
    "posexplode_outer(array(id))": "posexplode_outer",
}

SAME = (
    "id + 1",
    "hash(id)",
    "date_add(date(at), 3)",
    "transform(array(id), x -> x + 1)",
    "word = 'today'",
    "concat(word, 'now')",
    "timestamp '2026-01-01'",
    "next_day_of(at)",
    "user_id",
)


@pytest.fixture(scope="module")
def path(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file of one row, and functions that are defined in SQL."""
    path = str(tmp_path_factory.mktemp("rows") / "rows.parquet")
    at = pa.array([0], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"id": [1], "at": at, "word": ["a"], "user_id": ["u"]}), path)
    functions = {
        "drawn()": "DOUBLE RETURN rand()",
        "age_in_days(t TIMESTAMP)": "INT RETURN datediff(current_date(), date(t))",
        "next_day_of(t TIMESTAMP)": "DATE RETURN date_add(date(t), 1)",
    }
    for head, body in functions.items():
        spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {head} RETURNS {body}")
    yield path
    for head in functions:
        spark.sql(f"DROP TEMPORARY FUNCTION {head.partition('(')[0]}")


@pytest.mark.parametrize("expression", CHANGING | BEYOND)
def test_what_differs_from_run_to_run_is_refused_with_its_place_and_its_name(
    spark: SparkSession, path: str, expression: str
) -> None:
    frame = spark.read.parquet(path)
    with pytest.raises(LogError) as caught:
        evaluate(frame, "fields.context.age", expression)
    assert str(caught.value).startswith(
        f"fields.context.age: {expression!r} is not made of the row alone: {(CHANGING | BEYOND)[expression]} "
    )
    assert not fits(frame, expression)


@pytest.mark.parametrize("expression", SAME)
def test_what_is_made_of_the_row_alone_is_taken(spark: SparkSession, path: str, expression: str) -> None:
    frame = spark.read.parquet(path)
    evaluate(frame, "fields.context.age", expression)
    assert fits(frame, expression)


@pytest.mark.parametrize("name", ["user", "`user`", "current_user", "session_user", "current_date", "current_timestamp", "USER"])
def test_a_name_that_is_no_column_is_not_taken_for_a_function(spark: SparkSession, path: str, name: str) -> None:
    with pytest.raises(
        LogError, match=r"columns.user_id: no column .*which Spark takes for its function current_.*columns there are"
    ):
        read_source(spark, "users", Source(path=path, columns={"user_id": name}))
    assert not fits(spark.read.parquet(path), name)


def test_a_column_with_the_name_of_a_function_is_a_column(spark: SparkSession, path: str) -> None:
    frame = spark.read.parquet(path).withColumnRenamed("word", "user")
    assert fits(frame, "user")
    assert frame.select(evaluate(frame, "fields.context.user", "user")).first() == ("a",)


@pytest.mark.parametrize("kind", [Source, AttributeSource, Lookup])
def test_every_source_and_its_condition_are_looked_at(spark: SparkSession, path: str, kind: type[Source]) -> None:
    keys = {"keys": ["word"]} if kind is Lookup else {}
    columns = {"word": "word", "age": "rand()"}
    with pytest.raises(LogError, match=r"table.columns.age: 'rand\(\)'"):
        read_source(spark, "table", kind.model_validate({"path": path, "columns": columns, **keys}))
    condition = {"path": path, "columns": {"word": "word"}, "where": "at < now()", **keys}
    with pytest.raises(LogError, match=r"table.where: 'at < now\(\)'"):
        read_source(spark, "table", kind.model_validate(condition))


@pytest.mark.parametrize(
    "made",
    [
        "*, rand() AS chance",
        "* EXCEPT (at), current_date() AS at",
        "*, datediff(date 'today', at) AS age",
        "*, cast('now' AS timestamp) AS seen",
        "*, to_date('yesterday') AS before",
    ],
)
def test_a_view_that_differs_from_run_to_run_is_refused(spark: SparkSession, path: str, made: str) -> None:
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW changing AS SELECT {made} FROM parquet.`{path}`")
    try:
        with pytest.raises(
            LogError,
            match=r"users: the view 'changing' is not the same when it is read again: (rand|current_date|date 'today'|'now'|'yesterday') ",
        ):
            read_source(spark, "users", Source(table="changing", columns={"user_id": "user_id"}))
    finally:
        spark.catalog.dropTempView("changing")


def test_a_build_ends_with_one_sentence(log: Refusals) -> None:  # noqa: F811
    log.both()
    log.refused("log.impressions.columns.device: 'rand()' is not made of the row alone", columns=COLUMNS | {"device": "rand()"})
    fields = {"candidate": {"item_id": {}}, "context": {"age": {"expression": "datediff(current_date(), date(time))"}}}
    log.refused("fields.context.age: ", "current_date", "come out the same", changes={"fields": fields})
    fields = {"candidate": {"item_id": {}}, "user": {"user": {}}}
    log.refused("fields.user.user: no column `user`", "function current_user", "device", changes={"fields": fields})
    log.refused("log.impressions.columns.user_id: no column user", columns=COLUMNS | {"user_id": "user"})
