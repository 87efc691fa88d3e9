"""From packed raw samples to the bytes of files: encoded, padded, put in order, counted."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.core.broadcast import Broadcast
from pyspark.sql import DataFrame

from mian.contract import Contract, Encoder, Vocabulary
from mian.contract.document import ID_COLUMN, LABEL_COLUMN, LENGTH_COLUMN, TIME_COLUMN, USER_COLUMN
from mian.contract.encoder import padded, padding
from pipeline.arrays import IntArray
from pipeline.encoding.encoded import EncodedSamples
from pipeline.encoding.statistics import Counts, measure, total
from pipeline.hashing import uniform
from pipeline.io.arrow_ipc import ipc_table
from pipeline.io.parquet_files import FILES, file_row
from pipeline.join.matches import merged
from pipeline.join.outputs import HASH_COLUMN, MATCHES, NO_FILE, REJECTED, SAMPLES, SEEN_COLUMN

#: Kinds of files.
PART, EXAMPLES, QUARANTINE, FACTS = "part", "examples", "quarantine", "facts"


@dataclass(frozen=True)
class EncodePlan:
    """What the workers have to know: what samples are, and which share of the rows of a day's first file is kept as raw values too.

    Days count from 1970-01-01.
    """

    contract: Contract
    examples: Mapping[int, float]


def encode_files(blobs: DataFrame, plan: EncodePlan, tables: Broadcast[dict[str, pa.Array]], partitions: int) -> DataFrame:
    """Make files of packed samples, and of the rows that were left out.

    Args:
        blobs: see :func:`pipeline.join.partition.join_by_user`; only samples, rejected rows and matches.
        plan: what to make of them.
        tables: for each vocabulary that is a table its values, in the order of their ids.
        partitions: how many tasks.

    Returns:
        Columns of :data:`pipeline.io.parquet_files.FILES`: samples, raw examples, rejected rows, and for each file a row of facts.
    """

    def work(group: pa.Table) -> pa.Table:
        day, file = (group.column(name)[0].as_py() for name in ("day", "file"))
        payloads: dict[str, list[pa.Buffer]] = defaultdict(list)
        for kind, payload in zip(group.column("kind").to_pylist(), group.column("payload"), strict=True):
            payloads[kind].append(payload.as_buffer())
        if file == NO_FILE:
            files, facts = files_of_the_day(payloads)
        else:
            rows = _Samples(payloads[SAMPLES], plan.contract, worker_encoder(plan.contract.vocabularies, tables))
            number = group.column("day")[0].cast(pa.int32()).as_py()
            files = rows.files(plan.examples.get(number, 0.0) if file == 0 else 0.0)
            facts = rows.counts()
        facts["files"] = {name: table.num_rows for name, table in files.items()}
        files[FACTS] = pa.table({"facts": [json.dumps(facts)]})
        return pa.concat_tables(file_row(name, day, file, table) for name, table in files.items())

    keys = ["day", "file"]
    return blobs.repartition(partitions, *keys).groupBy(*keys).applyInArrow(work, FILES)


class _Samples:
    """The samples of one file."""

    def __init__(self, payloads: list[pa.Buffer], contract: Contract, encoder: Encoder) -> None:
        self._contract = contract
        self._samples = samples = EncodedSamples(payloads, contract, encoder)
        self._hashes: IntArray = samples.plain(HASH_COLUMN)
        self._order = np.lexsort((samples.plain(USER_COLUMN), self._hashes))
        self._places = padding(samples.lengths, contract.history.length, self._order)

    def files(self, examples: float) -> dict[str, pa.Table]:
        """The samples in order, and a share of them as raw values."""
        order, samples = pa.array(self._order), self._samples
        columns = {
            name: samples.text(name).take(order) if name == ID_COLUMN else samples.plain(name)[self._order] for name in _KEPT
        }
        for field in self._contract.fields:
            if field.group == "behaviors":
                columns[field.column] = self._padded(samples.behaviors[field.column])
            else:
                columns[field.column] = samples.columns[field.column][self._order]
        columns[LENGTH_COLUMN] = samples.lengths[self._order]
        files = {PART: pa.table(columns)}
        chosen = self._order[uniform(self._hashes.astype(np.uint64), 3)[self._order] < examples]
        if len(chosen):
            files[EXAMPLES] = self._raw(pa.array(chosen))
        return files

    def counts(self) -> Counts:
        """The statistics of the samples of a file."""
        samples = self._samples
        columns = {LABEL_COLUMN: samples.plain(LABEL_COLUMN), LENGTH_COLUMN: samples.lengths, **samples.columns}
        seen = samples.plain(SEEN_COLUMN)
        return measure(self._contract, columns, samples.behaviors, seen, samples.ages, samples.missing)

    def _padded(self, values: npt.NDArray[Any]) -> pa.ListArray:
        rows = padded(values, self._places)
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1)))

    def _raw(self, rows: pa.Array) -> pa.Table:
        samples = self._samples
        columns = {name: samples.text(name).take(rows) if name == ID_COLUMN else samples.plain(name)[rows] for name in _KEPT}
        for field in self._contract.fields:
            kind = pa.string() if field.is_text else pa.float64()
            kind = pa.list_(kind) if field.group == "behaviors" else kind
            parts = [_decoded(table.column(field.column).combine_chunks()).cast(kind) for table in samples.tables]
            columns[field.column] = pa.chunked_array(parts).take(rows)
        return pa.table(columns)


#: Columns of a sample that are no fields.
_KEPT = (ID_COLUMN, TIME_COLUMN, LABEL_COLUMN, USER_COLUMN)


def _decoded(column: pa.Array) -> pa.Array:
    """Text in place of a dictionary, in lists too."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(column.offsets, _decoded(column.flatten()))
    return _null_for_nan(column)


def _null_for_nan(column: pa.Array) -> pa.Array:
    if not pa.types.is_floating(column.type):
        return column
    return pa.array(column.to_numpy(zero_copy_only=False), from_pandas=True)


def files_of_the_day(payloads: Mapping[str, list[pa.Buffer]]) -> tuple[dict[str, pa.Table], Counts]:
    """What is of no file of samples: a day's rows that were left out, and how many of its rows found their partner.

    Args:
        payloads: of the join, by kind.

    Returns:
        The file of the rows that were left out, if there are any, and the counts: ``matched``, and ``rejected`` by reason.
    """
    files: dict[str, pa.Table] = {}
    facts = total([{**total([]), "matched": merged(json.loads(payload.to_pybytes()) for payload in payloads.get(MATCHES, []))}])
    if REJECTED in payloads:
        table = pa.concat_tables(ipc_table(payload) for payload in payloads[REJECTED])
        files[QUARANTINE] = table.sort_by([("reason", "ascending"), ("row", "ascending")])
        facts["rejected"] = dict(sorted(Counter(table["reason"].to_pylist()).items()))
    return files, facts


_latest: tuple[dict[str, pa.Array], Encoder] | None = None


def worker_encoder(vocabularies: Iterable[Vocabulary], tables: Broadcast[dict[str, pa.Array]]) -> Encoder:
    """One encoder a worker process and broadcast: its tables are built once, not for every file.

    Workers outlive builds. The broadcast's value is kept beside its encoder, for without it a later one could have its address.
    """
    global _latest
    values = tables.value
    if _latest is None or _latest[0] is not values:
        _latest = values, Encoder(vocabularies, values)
    return _latest[1]
