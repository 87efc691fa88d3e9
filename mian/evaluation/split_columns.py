"""Columns of a split, read into memory in the order of the contract's files and their rows."""

from __future__ import annotations

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mian.contract import Contract
from mian.contract.document import ID_COLUMN
from mian.stream import SampleStream, StreamError

BATCH_SIZE = 4096


def ordered_stream(contract: Contract, samples: str, split: str) -> SampleStream:
    """All rows of a split, in the order of the contract's files and their rows.

    Args:
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        split: The split to read.

    Raises:
        ContractError: There is no such split, or none of its days is built.
        StreamError: Samples cannot be read.
    """
    return SampleStream(samples, contract, split, BATCH_SIZE, shuffle=False, drop_last=False)


def impression_ids(contract: Contract, samples: str, split: str) -> npt.NDArray[np.object_]:
    """Read the impression ids of a split, in the order of :func:`ordered_stream`.

    Args:
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        split: The split to read, of N rows.

    Returns:
        Text, ``(N,)``.

    Raises:
        ContractError: There is no such split, or none of its days is built.
        OSError, StreamError: See :func:`read_column`.
    """
    ids: npt.NDArray[np.object_] = read_column(contract, samples, split, ID_COLUMN, pa.string()).to_numpy()
    return ids


def read_column(contract: Contract, samples: str, split: str, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Read one column of a split, in the order of :func:`ordered_stream`.

    Args:
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        split: The split to read, of N rows.
        name: The column, as the sample files call it.
        kind: The type that the files hold the column in.

    Returns:
        N values.

    Raises:
        ContractError: There is no such split, or none of its days is built.
        OSError: A file is missing.
        StreamError: A file is damaged.
    """
    parts = []
    for day in contract.split(split):
        for file in day.files:
            path = f"{samples.rstrip('/')}/{file.path}"
            with fsspec.open(path, "rb") as handle:
                try:
                    parts.append(pq.read_table(handle, columns=[name]).column(0))
                except pa.ArrowException as error:
                    raise StreamError(f"{path}: damaged ({error}): rebuild day {day.day}") from error
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], kind)


def read_columns(contract: Contract, samples: str, split: str) -> dict[str, npt.NDArray[np.generic]]:
    """Read all columns of a split into memory, in the order of :func:`ordered_stream`.

    Args:
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        split: The split to read, of N rows.

    Returns:
        By name, int32, int64 or float32 of shape ``(N,)``; columns of behaviors ``(N, T)``, the most recent first and padded to the
        contract's length of histories T.

    Raises:
        ContractError: There is no such split, or none of its days is built.
        StreamError: Samples cannot be read.
    """
    batches = list(ordered_stream(contract, samples, split).epoch(0))
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}
