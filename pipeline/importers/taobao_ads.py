"""Taobao display ads: eight days of impressions and clicks, and 22 days of what the same users did in the shop.

Published by Alibaba as "Ad Display/Click Data on Taobao.com" at https://tianchi.aliyun.com/dataset/56, to those who have an account
there; the page states the license, which is for non-commercial use.

Layout: CSV files with headers. ``raw_sample.csv``: user, time_stamp, adgroup_id, pid, nonclk, clk. ``ad_feature.csv``: adgroup_id,
cate_id, campaign_id, customer, brand (``NULL`` where there is none), price. ``user_profile.csv``: userid and eight attributes, the
last one's name with a space behind it. ``behavior_log.csv``: user, time_stamp, btag (pv, cart, fav, buy), cate, brand.

Behaviors name no ad and no product, only a category and a brand: their item id is ``category:brand``, and their attributes are their
own. Times are seconds since 1970; here they are the clock of Beijing, so that the days are those of the published split (train on
2017-05-06 to 2017-05-12, test on 2017-05-13) and the hours those that users lived in.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day, with_impression_id
from pipeline.importers.published_files import Delimited, Published

ACTIONS = ("pv", "cart", "fav", "buy")
BEIJING_SECONDS = 8 * 3_600

SAMPLES = Delimited(
    ("raw_sample.csv",),
    {"user": "string", "time_stamp": "bigint", "adgroup_id": "string", "pid": "string", "clk": "int"},
    ("user", "time_stamp", "adgroup_id", "clk"),
    null="NULL",
)
ADS = Delimited(
    ("ad_feature.csv",),
    {
        "adgroup_id": "string",
        "cate_id": "string",
        "campaign_id": "string",
        "customer": "string",
        "brand": "string",
        "price": "double",
    },
    ("adgroup_id",),
    null="NULL",
)
PROFILES = Delimited(
    ("user_profile.csv",),
    dict.fromkeys(
        ("userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level", "occupation",
         "new_user_class_level"),
        "string",
    ),
    ("userid",),
    null="NULL",
)  # fmt: skip
BEHAVIORS = Delimited(
    ("behavior_log.csv",),
    {"user": "string", "time_stamp": "bigint", "btag": "string", "cate": "string", "brand": "string"},
    ("user", "time_stamp", "btag", "cate"),
    null="NULL",
)


def impressions(samples: DataFrame) -> DataFrame:
    """The ads shown: ``impression_id``, ``user_id``, ``item_id``, ``time``, ``placement``, ``label``.

    Args:
        samples: columns of :data:`SAMPLES`.
    """
    rows = with_impression_id(samples, "user", "time_stamp", "adgroup_id")
    return rows.select(
        "impression_id",
        F.col("user").alias("user_id"),
        F.col("adgroup_id").alias("item_id"),
        _time(),
        F.col("pid").alias("placement"),
        F.col("clk").alias("label"),
    )


def items(ads: DataFrame) -> DataFrame:
    """The ads: ``item_id``, ``category``, ``campaign``, ``customer``, ``brand``, ``price``.

    Args:
        ads: columns of :data:`ADS`.
    """
    names = {"adgroup_id": "item_id", "cate_id": "category", "campaign_id": "campaign"}
    return ads.withColumnsRenamed(names)


def users(profiles: DataFrame) -> DataFrame:
    """The users: ``user_id``, ``gender``, ``city_level``, and the others as published.

    Args:
        profiles: columns of :data:`PROFILES`.
    """
    names = {"userid": "user_id", "final_gender_code": "gender", "new_user_class_level": "city_level"}
    return profiles.withColumnsRenamed(names)


def behaviors(log: DataFrame) -> DataFrame:
    """What users did: ``user_id``, ``item_id``, ``time``, ``action``, ``behavior_category``, ``behavior_brand``.

    Args:
        log: columns of :data:`BEHAVIORS`.
    """
    return log.select(
        F.col("user").alias("user_id"),
        F.concat_ws(":", "cate", "brand").alias("item_id"),
        _time(),
        F.col("btag").alias("action"),
        F.col("cate").alias("behavior_category"),
        F.col("brand").alias("behavior_brand"),
    )


def _time() -> Column:
    return F.timestamp_seconds(F.col("time_stamp") + BEIJING_SECONDS).alias("time")


def _read(published: Published) -> dict[str, Log]:
    samples = published.read(SAMPLES, {"clk is neither 0 nor 1": ~F.col("clk").isin(0, 1)})
    log = published.read(BEHAVIORS, {f"btag is none of {', '.join(ACTIONS)}": ~F.col("btag").isin(*ACTIONS)})
    return {
        "impressions": by_day(impressions(samples)),
        "behaviors": by_day(behaviors(log), "action"),
        "items": Log(items(published.read(ADS))),
        "users": Log(users(published.read(PROFILES))),
    }


TAOBAO_ADS = Importer((SAMPLES, ADS, PROFILES, BEHAVIORS), _read, "https://tianchi.aliyun.com/dataset/56")
