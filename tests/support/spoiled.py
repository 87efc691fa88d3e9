"""Samples that have a value that is no number."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mian.contract import CONTRACT_FILE, Contract


def spoil(folder: Path, contract: Contract, path: str, column: str, rows: Sequence[int], value: float) -> Contract:
    """Put a value into rows of a file of a finished data set, in lists into the first entry; the contract then vouches for it.

    Returns:
        The contract.
    """
    table = pq.read_table(folder / path)
    place = table.column_names.index(column)
    values = table[column].to_pylist()
    for row in rows:
        values[row] = [value, *values[row][1:]] if isinstance(values[row], list) else value
    table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
    # as many bytes whatever the value is
    pq.write_table(table, folder / path, compression="none", use_dictionary=False, write_statistics=False)
    content = (folder / path).read_bytes()
    changes = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    days = [
        day.model_copy(
            update={"files": tuple(file.model_copy(update=changes) if file.path == path else file for file in day.files)}
        )
        for day in contract.days
    ]
    contract = contract.model_copy(update={"days": tuple(days)})
    (folder / CONTRACT_FILE).write_text(contract.to_json())
    return contract


def rows_with_history(folder: Path, path: str, empty: bool) -> list[int]:
    """The rows of a file whose history is empty, or those whose history is not."""
    lengths = pq.read_table(folder / path, columns=["behavior_length"]).column(0).to_numpy()
    return [int(row) for row in np.flatnonzero((lengths == 0) == empty)]
