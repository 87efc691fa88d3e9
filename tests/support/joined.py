"""What the join makes of some days, before anything is encoded or published."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from pyspark.sql import SparkSession

from pipeline.config import DataConfig
from pipeline.days import days_between
from pipeline.join.blobs import unpack
from pipeline.join.matches import merged
from pipeline.join.outputs import MATCHES, SAMPLES
from pipeline.join.partition import join_by_user
from pipeline.join.plan import join_plan
from pipeline.join.rows import all_rows
from pipeline.logs.events import EventLogs

EPOCH = dt.date(1970, 1, 1)


def join(
    spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date
) -> tuple[list[dict[str, Any]], dict[dt.date, dict[str, Any]]]:
    """All samples as raw values, each with its ``file``, and by day how many rows found their partner."""
    events = EventLogs(spark, config).read(first, last)
    table = all_rows(spark, config, events)
    plan = join_plan(config, events.rows, days_between(first, last), table)
    samples: list[dict[str, Any]] = []
    parts: dict[dt.date, list[dict[str, Any]]] = {}
    for row in join_by_user(table, plan, 3).where(f"kind IN ('{SAMPLES}', '{MATCHES}')").collect():
        if row["kind"] == SAMPLES:
            columns = unpack(bytes(row["payload"]))[0]
            values = {name: columns.column(name).to_pylist() for name in columns.column_names}
            day = {"day": row["day"], "file": row["file"]}
            samples += [day | {name: values[name][n] for name in values} for n in range(columns.num_rows)]
        else:
            parts.setdefault(row["day"], []).append(json.loads(bytes(row["payload"])))
    return samples, {day: merged(found) for day, found in parts.items()}
