from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.broken_shop import Refusals


@pytest.fixture
def log(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Refusals]:
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)  # the job ends its session, which here is that of all tests
    yield Refusals(tmp_path, capsys)
