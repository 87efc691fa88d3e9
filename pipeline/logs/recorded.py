"""Histories that the impression log brings along: lists in its rows, taken apart into behaviors that need no join by time."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config import RECORDED, DataConfig
from pipeline.logs.rules import LONGEST_ID

#: The number of an impression's history: equal for the impressions of a user, a time and the same lists, as of one page.
LIST = "_list"
#: A behavior's place in its history, 0 for the most recent.
PLACE = "_place"
#: When a behavior happened, where the log says so. Its ``time`` is the impression's, at which attributes of items are looked up.
HAPPENED = "_happened"


def take_histories(config: DataConfig, impressions: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Take recorded histories out of impressions.

    Args:
        config: a data set with a ``recorded_history``.
        impressions: with a list in each column that begins with :data:`pipeline.config.RECORDED`; lists of a row have one length.

    Returns:
        The impressions with :data:`LIST` in place of the lists, and the behaviors: ``user_id``, ``time``, ``item_id``, ``action``,
        :data:`LIST`, :data:`PLACE`, ``_once``, :data:`HAPPENED` where times are known, and the other columns of the elements.
    """
    lists = [c for c in impressions.columns if c.startswith(RECORDED)]
    numbered = impressions.withColumn("_entries", _entries(config, lists))
    numbered = numbered.withColumn(LIST, F.xxhash64("user_id", "time", "_entries")).drop(*lists)
    shared = numbered.select("user_id", "time", LIST, "_entries").dropDuplicates(
        ["user_id", LIST]
    )  # once for all items of a page
    entries = shared.select("user_id", "time", LIST, F.posexplode("_entries").alias(PLACE, "_entry"))
    names = {c: {f"{RECORDED}time": HAPPENED}.get(c, c.removeprefix(RECORDED)) for c in lists}
    columns = [F.col("_entry")[c].alias(name) for c, name in names.items()]
    action = [] if "action" in names.values() else [F.lit("click").alias("action")]
    once = F.xxhash64(LIST, PLACE).alias("_once")
    return numbered.drop("_entries"), entries.select("user_id", "time", LIST, PLACE, once, *columns, *action)


def _entries(config: DataConfig, lists: list[str]) -> Column:
    """The entries of a history that count, as structs, the most recent first."""
    recorded = config.log.recorded_history
    assert recorded is not None
    window = F.expr(f"INTERVAL {config.history.days * 24} HOURS")

    def counts(entry: Column) -> Column:
        item = entry[f"{RECORDED}item_id"]
        good = item.isNotNull() & (item != "") & (F.octet_length(item) <= LONGEST_ID) & F.is_valid_utf8(item)
        if recorded.times is None:
            return good
        time = entry[f"{RECORDED}time"]
        return good & F.coalesce((time < F.col("time")) & (time >= F.col("time") - window), F.lit(False))

    entries = F.filter(F.arrays_zip(*lists), counts)
    if recorded.most_recent == "last":
        entries = F.reverse(entries)
    return F.slice(entries, 1, config.history.length)
