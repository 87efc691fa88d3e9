"""Rows of the logs that break a rule, packed as what the join itself leaves out."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from pipeline.io.arrow_ipc import ipc_bytes
from pipeline.join.outputs import NO_FILE, OUTPUT, REJECTED


def packed_quarantine(quarantine: DataFrame) -> DataFrame:
    """Rows that break a rule, as the join gives its own.

    Args:
        quarantine: of :class:`pipeline.logs.events.Events`.

    Returns:
        Columns of :data:`pipeline.join.outputs.OUTPUT`.
    """

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            days = batch.column("day")
            for day in days.unique():
                rows = pa.Table.from_batches([batch]).filter(pc.equal(days, day)).select(["reason", "row"])
                columns = {
                    "kind": [REJECTED],
                    "day": pa.array([day.as_py()], pa.date32()),
                    "file": pa.array([NO_FILE], pa.int32()),
                }
                yield pa.RecordBatch.from_pydict({**columns, "payload": [ipc_bytes(rows)]})

    return quarantine.mapInArrow(pack, OUTPUT)
