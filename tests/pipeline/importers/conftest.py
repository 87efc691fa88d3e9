from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from pyspark.sql import SparkSession

from pipeline.importers import ImportRecord, import_logs
from tests.support.generated import SETS


@dataclass(frozen=True)
class Imported:
    """A generated set after its import."""

    folder: Path
    record: ImportRecord

    def rows(self, log: str, *order: str) -> list[dict[str, Any]]:
        """A log's rows without the column of its partitions."""
        table = ds.dataset(self.folder / log, partitioning=None).to_table().to_pylist()
        return sorted(table, key=lambda row: [row[key] for key in order])


@pytest.fixture(scope="session")
def imported(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Imported]:
    """Imports a generated set, once for all tests; they leave it as it is."""
    done: dict[str, Imported] = {}

    def get(name: str) -> Imported:
        if name not in done:
            place = tmp_path_factory.mktemp(name)
            SETS[name](place / "published")
            record = import_logs(spark, name, str(place / "published"), str(place / "logs"))
            done[name] = Imported(place / "logs", record)
        return done[name]

    return get
