"""Whoever changes what samples are made of the same logs says so: published days are then built anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.build import build_samples
from pipeline.dataset.fingerprints import SAMPLES_VERSION
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark

#: SHA-256 over the samples of the small logs, by version. A new line for a new version; a line that is here stays.
KNOWN = {
    1: "ccce25bad72019b6b9fc22f89842a6d27673209c3f03315f18d185b555a10272",
    2: "ccce25bad72019b6b9fc22f89842a6d27673209c3f03315f18d185b555a10272",  # others where samples lie before the training days
}


def test_samples_are_those_of_their_version(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    contract = build_samples(spark, config(tmp_path), DAYS[0], DAYS[-1]).contract
    digest = hashlib.sha256()
    for day in contract.days:
        for file in day.files:
            table = pq.read_table(tmp_path / "samples" / file.path, partitioning=None)
            digest.update(repr(sorted(table.to_pydict().items())).encode())
    assert KNOWN.get(SAMPLES_VERSION) == digest.hexdigest(), (
        "the same logs give other samples than before: add one to SAMPLES_VERSION in pipeline/dataset/fingerprints.py, and a line here"
    )
