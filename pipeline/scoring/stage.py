"""What the scoring stage is given: packed candidates, tasks for their files, and the model's folder in the workers."""

from __future__ import annotations

import datetime as dt
import pathlib
import tempfile
import zipfile
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig
from pipeline.join.outputs import MATCHES, NO_FILE, REJECTED, SAMPLES
from pipeline.join.plan import files_of
from pipeline.join.quarantine import packed_quarantine
from pipeline.join.spark_join import join_days
from pipeline.logs.events import Events
from pipeline.scoring.scorer import ScoringModel
from pipeline.scoring.tasks import FileTasks, deal_out


def file_tasks(candidates: DataConfig, events: Events, days: list[dt.date], cores: int) -> FileTasks:
    """Which task scores which file.

    Args:
        candidates: see :func:`pipeline.logs.candidates.candidates_config`.
        events: of these days.
        days: see :func:`packed_candidates`.
        cores: how many tasks run at a time.
    """
    rows: dict[tuple[dt.date, int], float] = {(day, NO_FILE): 0.0 for day in days}
    for day in days:
        count = files_of(candidates, events.rows, day)
        rows |= {(day, file): events.rows.get(day, 0) / count for file in range(count)}
    return deal_out(rows, cores)


def packed_candidates(spark: SparkSession, candidates: DataConfig, events: Events, days: list[dt.date]) -> DataFrame:
    """Candidates with their histories, profiles and attributes, packed; and the rows that broke a rule.

    Args:
        spark: the session.
        candidates: see :func:`pipeline.logs.candidates.candidates_config`.
        events: of these days.
        days: without gaps.
    """
    joined = join_days(spark, candidates, events, days, fit_days=None, samples=True, for_scoring=True)
    blobs = joined.where(F.col("kind").isin(SAMPLES, REJECTED, MATCHES))
    if any(facts.broken for facts in events.facts.values()):
        blobs = blobs.unionByName(packed_quarantine(events.quarantine))
    return blobs


def give_to_workers(spark: SparkSession, model: ScoringModel) -> str:
    """Send a model's files to the workers, which need not share a disk with the driver; the name that they find its folder by.

    The archive stays as long as the session: workers that come later fetch it too.
    """
    context: Any = spark.sparkContext
    name = f"model-{model.digest[:16]}"
    if not any(str(archive).endswith(f"#{name}") for archive in context.listArchives):
        archive = pathlib.Path(tempfile.mkdtemp(dir=context._temp_dir), f"{name}.zip")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            for file in model.files:
                packed.write(pathlib.Path(model.folder, file), file)
        context.addArchive(f"{archive}#{name}")
    return name
