"""The join of some days, spread over the cluster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession

from mian.contract import Split
from pipeline.config import DataConfig
from pipeline.join.partition import join_by_user
from pipeline.join.plan import join_plan
from pipeline.join.rows import all_rows
from pipeline.logs.events import Events

#: Impressions that one Python worker joins at a time, with their behaviors: about a gigabyte where histories are long.
ROWS_PER_PARTITION = 500_000


def join_days(
    spark: SparkSession,
    config: DataConfig,
    events: Events,
    days: Sequence[dt.date],
    *,
    fit_days: Split | None,
    samples: bool,
    for_scoring: bool = False,
) -> DataFrame:
    """Join the events of some days.

    Args:
        spark: the session.
        config: the data set.
        events: of these days.
        days: without gaps.
        fit_days: those that vocabularies are to be made from, if any.
        samples: whether samples are wanted.
        for_scoring: whether these are candidates to score, see :class:`pipeline.join.plan.JoinPlan`.

    Returns:
        See :func:`pipeline.join.partition.join_by_user`.

    Raises:
        LogError: a table cannot be used, or an expression cannot be evaluated.
    """
    rows = all_rows(spark, config, events)
    plan = join_plan(config, events.rows, days, rows, fit_days=fit_days, samples=samples, for_scoring=for_scoring)
    impressions = sum(events.facts["log.impressions"].rows.values())
    cores = spark.sparkContext.defaultParallelism
    # as many for each core, so that none waits for another's last one
    return join_by_user(rows, plan, cores * max(1, -(-impressions // (ROWS_PER_PARTITION * cores))))
