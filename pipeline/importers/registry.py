"""The published sets that can be imported, by name."""

from __future__ import annotations

from pipeline.importers.amazon_2014 import AMAZON_2014
from pipeline.importers.amazon_2023 import AMAZON_2023
from pipeline.importers.canonical_logs import Importer
from pipeline.importers.dmr import DMR
from pipeline.importers.kuairand import KUAIRAND
from pipeline.importers.movielens import MOVIELENS_1M, MOVIELENS_32M, MOVIELENS_100K
from pipeline.importers.taobao_ads import TAOBAO_ADS

IMPORTERS: dict[str, Importer] = {
    "amazon-2014": AMAZON_2014,
    "amazon-2023": AMAZON_2023,
    "dmr": DMR,
    "kuairand": KUAIRAND,
    "movielens-100k": MOVIELENS_100K,
    "movielens-1m": MOVIELENS_1M,
    "movielens-32m": MOVIELENS_32M,
    "taobao-ads": TAOBAO_ADS,
}
