"""KuaiRand: a month of short videos shown by Kuaishou, some of them drawn at random.

Published at https://kuairand.com (files at https://zenodo.org/records/10439422) under CC BY-SA 4.0; Gao et al. 2022 is to be cited.
There are three versions of one layout, Pure, 1K and 27K.

Layout: CSV files with headers. ``log_standard_*.csv``, what the recommender showed, and ``log_random_*.csv``, what was drawn at random:
user_id, video_id, time_ms, is_click, other feedback, is_rand, tab (the scene of the app). ``user_features_*.csv`` and
``video_features_basic_*.csv``. The tables ``video_features_statistic_*`` are means over the whole month, so of the future, and the
videos' ``visible_status`` is of later: they are left out. The users' features have no date; they are taken as known at all times.

Times are milliseconds since 1970; here they are the clock of Beijing, so that the days are those that the files are named by.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day, with_impression_id
from pipeline.importers.published_files import Delimited, Published

BEIJING_MILLISECONDS = 8 * 3_600_000

LOGS = Delimited(
    ("log_standard_*.csv", "log_random_*.csv"),
    {
        "user_id": "string",
        "video_id": "string",
        "time_ms": "bigint",
        "is_click": "int",
        "long_view": "int",
        "is_rand": "int",
        "tab": "string",
    },
    ("user_id", "video_id", "time_ms", "is_click", "is_rand"),
)
USERS = Delimited(
    ("user_features_*.csv",),
    dict.fromkeys(
        ("user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num_range",
         "fans_user_num_range", "friend_user_num_range", "register_days_range", *[f"onehot_feat{i}" for i in range(18)]),
        "string",
    ),
    ("user_id",),
    quoted=True,
)  # fmt: skip
VIDEOS = Delimited(
    ("video_features_basic_*.csv",),
    {
        "video_id": "string",
        "author_id": "string",
        "video_type": "string",
        "upload_dt": "date",
        "upload_type": "string",
        "video_duration": "double",
        "music_type": "string",
        "tag": "string",
    },
    ("video_id",),
    quoted=True,
)


def impressions(logs: DataFrame) -> DataFrame:
    """The videos shown: ``impression_id``, ``user_id``, ``item_id``, ``time``, ``label``, ``long_view``, ``is_rand``, ``tab``.

    Args:
        logs: columns of :data:`LOGS`.
    """
    rows = with_impression_id(logs, "user_id", "video_id", "time_ms")
    return rows.select(
        "impression_id",
        "user_id",
        F.col("video_id").alias("item_id"),
        F.timestamp_millis(F.col("time_ms") + BEIJING_MILLISECONDS).alias("time"),
        F.col("is_click").alias("label"),
        "long_view",
        "is_rand",
        "tab",
    )


def items(videos: DataFrame) -> DataFrame:
    """The videos.

    Args:
        videos: columns of :data:`VIDEOS`.

    Returns:
        Columns ``item_id``, ``author_id``, ``video_type``, ``upload_date``, ``upload_type``, ``duration_ms``, ``music_type``, ``tag``
        (the first), ``tags`` (all, separated by commas).
    """
    return videos.select(
        F.col("video_id").alias("item_id"),
        "author_id",
        "video_type",
        F.col("upload_dt").alias("upload_date"),
        "upload_type",
        F.col("video_duration").alias("duration_ms"),
        "music_type",
        F.split_part("tag", F.lit(","), F.lit(1)).alias("tag"),
        F.col("tag").alias("tags"),
    )


def _read(published: Published) -> dict[str, Log]:
    binary = {f"{name} is neither 0 nor 1": ~F.col(name).isin(0, 1) for name in ("is_click", "is_rand")}
    return {
        "impressions": by_day(impressions(published.read(LOGS, binary))),
        "items": Log(items(published.read(VIDEOS))),
        "users": Log(published.read(USERS)),
    }


KUAIRAND = Importer((LOGS, USERS, VIDEOS), _read, "https://kuairand.com")
