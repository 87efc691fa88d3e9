from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract.encoder import LARGEST_NUMBER
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.encoding.vocabularies import quantiles
from pipeline.logs.errors import LogError
from tests.support.small_logs import DAYS, IMPRESSIONS, config, write_logs


@pytest.mark.parametrize("transform", ["identity", "log", "quantiles"])
def test_numbers_beyond_float32_are_cut_and_counted_and_nothing_is_fitted_on_them(
    spark: SparkSession, tmp_path: Path, transform: str
) -> None:
    write_logs(tmp_path)
    huge = [1e200, -1e300, float("inf"), float("-inf"), 1e39, float("nan"), None]
    for day in (DAYS[1], DAYS[5]):  # of the training days, and of the test
        path = tmp_path / "impressions" / f"day={day}" / "part-0.parquet"
        rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
        for row, bid in zip(rows, huge, strict=False):
            row["bid"] = bid
        pq.write_table(pa.Table.from_pylist(rows, IMPRESSIONS), path)
    fields = config(tmp_path).model_dump(mode="json", exclude_unset=True)["fields"]
    fields["context"]["bid"] = {"kind": "numeric", "transform": transform}
    small = config(tmp_path, fields=fields)
    contract = build_samples(spark, small, DAYS[0], DAYS[5]).contract
    assert audit(spark, small, rows=100).findings == []
    counts = [day.quality.clipped if day.quality is not None else {} for day in contract.days]
    files = [file for day in contract.days for file in day.files]
    bids = np.concatenate(
        [pq.read_table(Path(small.samples) / file.path, partitioning=None)["context_bid"].to_numpy() for file in files]
    )
    field = next(field for field in contract.fields if field.column == "context_bid")
    if transform == "quantiles":
        edges = contract.vocabulary("context_bid").edges
        assert edges is not None
        assert all(0 <= edge <= 10 for edge in edges)
        assert counts == [{}] * 6
        return
    assert np.isfinite(bids).all()
    cut = 5 if transform == "identity" else 2  # the logarithm of 1e300 is 691
    assert counts == [{}, {"context_bid": cut}, {}, {}, {}, {"context_bid": cut}]
    assert (np.abs(bids) == LARGEST_NUMBER).sum() == 2 * cut
    assert field.transform is not None
    if transform == "identity":
        assert (4 < field.transform.mean < 6, 2.5 < field.transform.std < 3.5) == (True, True)
    else:
        assert math.isfinite(field.transform.std)


def test_numbers_that_are_missing_are_counted_and_a_column_of_none_is_told(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_logs(tmp_path)
    fields = config(tmp_path).model_dump(mode="json", exclude_unset=True)["fields"]
    fields["context"] |= {
        "price": {"kind": "numeric", "expression": "try_cast('650,67' AS DOUBLE)"},
        "even": {"kind": "numeric", "expression": "if(minute(time) % 2 = 0, minute(time), NULL)"},
    }
    small = config(tmp_path, fields=fields)
    contract = build_samples(spark, small, DAYS[0], DAYS[5]).contract
    told = [record.getMessage() for record in caplog.records if "is its expression right" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("fields.context.price: not one of ")
    for day in contract.days:
        assert day.quality is not None
        assert day.quality.unknown["context_price"] == 1.0
        files = [pq.read_table(Path(small.samples) / file.path, partitioning=None) for file in day.files]
        times = np.concatenate([file["time"].to_numpy() for file in files])
        odd = float(np.mean(times // 60_000_000 % 60 % 2 == 1))
        assert day.quality.unknown["context_even"] == pytest.approx(odd, abs=1e-6)
    limited = config(tmp_path, fields=fields, samples=str(tmp_path / "limited"), quality={"max_unknown": {"context_price": 0.9}})
    with pytest.raises(LogError, match="context_price: share of unknown ids or missing numbers is 1"):
        build_samples(spark, limited, DAYS[0], DAYS[5])


def test_edges_of_buckets_are_of_numbers_that_float32_can_hold() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e200, np.inf, -np.inf, np.nan])
    assert quantiles(values, 4) == (1.0, 2.0, 3.0)
