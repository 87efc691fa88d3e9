"""Spans and seeds that no data set has are refused when the configuration is read, and do not overflow later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.small_logs import config


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("history.days", 10**6),
        ("history.lag_hours", float("inf")),
        ("log.attribution_hours", 1e12),
        ("log.impressions.late_days", 10**7),
        ("items.max_age_days", float("inf")),
        ("quality.clock_skew_seconds", float("inf")),
        ("splits.test", {"first": "2150-01-01", "last": "2150-01-02"}),
        ("splits.test", {"first": "1960-01-01", "last": "1960-01-02"}),
        ("day_time_zone", "posix/Europe/Zurich"),
        ("seed", 2**63),
    ],
)
def test_a_span_beyond_all_reason_is_refused(tmp_path: Path, place: str, value: Any) -> None:
    values = config(tmp_path).model_dump(mode="json", by_alias=True, exclude_unset=True)
    values["items"]["columns"]["valid_from"] = "ts"
    *parents, key = place.split(".")
    inner = values
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[key] = value
    with pytest.raises(ValidationError, match="split test lies" if key == "test" else key):
        type(config(tmp_path)).model_validate(values)
