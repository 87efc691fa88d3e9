"""In the workers: from packed candidates to the bytes of files of scores."""

from __future__ import annotations

import gc
import io
import json
import pathlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkFiles
from pyspark.sql import DataFrame

from mian.contract import Contract, Encoder, read_contract, vocabulary_values
from mian.contract.document import ID_COLUMN, LENGTH_COLUMN, TIME_COLUMN
from mian.contract.encoder import padded, padding
from pipeline.arrays import IntArray, codes, pairs
from pipeline.encoding.encoded import EncodedSamples
from pipeline.encoding.sample_files import FACTS, PART, files_of_the_day
from pipeline.io.parquet_files import FILES, file_row
from pipeline.join.outputs import ITEM_ID_COLUMN, NO_FILE, SAMPLES, USER_ID_COLUMN
from pipeline.scoring.moments import score_moments
from pipeline.scoring.scorer import Columns, Scorer, ScorerFactory
from pipeline.scoring.tasks import TASK, FileTasks, spread

MOMENT = pa.timestamp("us", tz="UTC")
#: The columns of ids, and where packed candidates have them.
IDS = {"impression_id": ID_COLUMN, "user_id": USER_ID_COLUMN, "item_id": ITEM_ID_COLUMN}


@dataclass(frozen=True)
class ScorePlan:
    """What the workers have to know."""

    archive: str
    """The name of the model's folder among the files that Spark gives to its workers; another one for each model."""
    factory: ScorerFactory
    model_version: str
    scored_at: int
    """Microseconds since 1970-01-01 UTC."""
    smallest_group: int
    """See :func:`pipeline.scoring.moments.score_moments`."""
    stand_ins: Mapping[str, int | float]
    """See :class:`pipeline.scoring.run.ScoringRequest`."""


@dataclass(frozen=True)
class WorkerModel:
    """A model as a worker holds it."""

    contract: Contract
    encoder: Encoder
    scorer: Scorer


def score_files(blobs: DataFrame, plan: ScorePlan, tasks: FileTasks) -> DataFrame:
    """Score packed candidates, a file at a time.

    Args:
        blobs: see :func:`pipeline.join.partition.join_by_user`; only samples, rejected rows and matches.
        plan: by which model.
        tasks: which task scores which file.

    Returns:
        Columns of :data:`pipeline.io.parquet_files.FILES`: scores, rejected rows, and for each file a row of facts.
    """

    def work(group: pa.Table) -> pa.Table:
        day, file = (group.column(name)[0].as_py() for name in ("day", "file"))
        payloads: dict[str, list[pa.Buffer]] = defaultdict(list)
        for kind, payload in zip(group.column("kind").to_pylist(), group.column("payload"), strict=True):
            payloads[kind].append(payload.as_buffer())
        if file == NO_FILE:
            files, facts = files_of_the_day(payloads)
        else:
            files, facts = {PART: scored(payloads[SAMPLES], worker_model(plan), plan)}, {}
        facts["files"] = {name: table.num_rows for name, table in files.items()}
        files[FACTS] = pa.table({"facts": [json.dumps(facts)]})
        return pa.concat_tables(file_row(name, day, file, table) for name, table in files.items())

    return spread(blobs, tasks).groupBy(TASK, "day", "file").applyInArrow(work, FILES)


@dataclass(frozen=True)
class EncodedCandidates:
    """Candidates in the order of time, user and impression."""

    keys: pa.Table
    """Columns ``impression_id``, ``user_id``, ``item_id`` and ``time``, microseconds."""
    columns: Columns
    moments: IntArray
    """The number of each one's user and time, ``(N,)``."""


def scored(payloads: list[pa.Buffer], model: WorkerModel, plan: ScorePlan) -> pa.Table:
    """The scores of a file, in the order of time, user and impression.

    Args:
        payloads: packed candidates, in whatever order.
        model: what scores them.
        plan: what is said of the run.

    Returns:
        Columns ``impression_id``, ``user_id``, ``item_id``, ``time``, ``score``, ``model_version`` and ``scored_at``.
    """
    candidates = encoded(payloads, model)
    columns = candidates.columns
    columns |= {name: np.full_like(columns[name], value) for name, value in plan.stand_ins.items()}
    scores = score_moments(model.scorer, model.contract, columns, candidates.moments, plan.smallest_group)
    return pa.table(
        {
            **{name: candidates.keys.column(name) for name in IDS},
            "time": candidates.keys.column("time").cast(pa.timestamp("us")).cast(MOMENT),
            "score": scores,
            "model_version": pa.repeat(plan.model_version, len(scores)),
            "scored_at": pa.repeat(pa.scalar(plan.scored_at, MOMENT), len(scores)),
        }
    )


def encoded(payloads: list[pa.Buffer], model: WorkerModel) -> EncodedCandidates:
    """The candidates of a file as the model reads them.

    Args:
        payloads: packed candidates, in whatever order.
        model: encodes them.
    """
    samples = EncodedSamples(payloads, model.contract, model.encoder)
    keys = pa.table({"time": samples.plain(TIME_COLUMN), **{name: samples.text(column) for name, column in IDS.items()}})
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ("time", "user_id", "impression_id")])
    keys = keys.take(order).combine_chunks()
    users, _ = codes(keys.column("user_id"))
    times: IntArray = np.unique(keys.column("time").to_numpy(), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return EncodedCandidates(keys, _ordered(samples, model.contract, order.to_numpy().astype(np.int64)), pairs(users, times))


def _ordered(samples: EncodedSamples, contract: Contract, order: IntArray) -> Columns:
    """The columns of a sample, as the model reads them, in an order."""
    columns: Columns = {name: values[order] for name, values in samples.columns.items()}
    places = padding(samples.lengths, contract.history.length, order)
    for name, values in samples.behaviors.items():
        columns[name] = padded(values, places)
    lengths: npt.NDArray[np.int32] = samples.lengths[order]
    return columns | {LENGTH_COLUMN: lengths}


_latest: tuple[str, ScorerFactory, WorkerModel] | None = None


def worker_model(plan: ScorePlan) -> WorkerModel:
    """One model a worker process, loaded at its first file: Spark uses workers again.

    Spark's workers look for garbage after each task, among all that a model's libraries made too: that is left out from then on.
    """
    global _latest
    if _latest is None or _latest[:2] != (plan.archive, plan.factory):
        _latest = plan.archive, plan.factory, load_model(SparkFiles.get(plan.archive), plan.factory)
        gc.collect()
        gc.freeze()
    return _latest[2]


def load_model(folder: str, factory: ScorerFactory) -> WorkerModel:
    """Load a model and what its inputs are encoded with.

    Args:
        folder: the model, see :class:`pipeline.scoring.scorer.ScoringModel`.
        factory: loads what scores.
    """
    contract = read_contract(folder)
    tables = {
        vocabulary.name: vocabulary_values(io.BytesIO(pathlib.Path(folder, vocabulary.path).read_bytes()))
        for vocabulary in contract.vocabularies
        if vocabulary.path is not None
    }
    return WorkerModel(contract, Encoder(contract.vocabularies, tables), factory(folder))
