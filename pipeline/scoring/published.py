"""Reading published scores, without Spark."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mian.contract import ContractError
from pipeline.scoring.manifest import MANIFEST_FILE, Manifest, ScoredDay


def read_manifest(folder: str) -> Manifest:
    """The manifest of a folder of scores.

    Args:
        folder: A local path or any URL that fsspec opens.

    Raises:
        ContractError: It is no folder of scores, or the manifest is damaged.
    """
    path = f"{folder.rstrip('/')}/{MANIFEST_FILE}"
    try:
        content = _read(path)
    except FileNotFoundError as error:
        raise ContractError(f"{path}: no such file; name the folder that jobs/score.py wrote") from error
    return Manifest.from_json(content.decode("utf-8", "replace"), path)


def read_scores(folder: str, day: ScoredDay, columns: Sequence[str]) -> pa.Table:
    """Columns of the scores of a day, in the order of its files.

    Raises:
        ContractError: A file is missing, or is not what the manifest names.
    """
    tables = []
    for file in day.files:
        path = f"{folder.rstrip('/')}/{file.path}"
        try:
            content = _read(path)
        except FileNotFoundError as error:
            raise ContractError(f"{path}: no such file, though the manifest names it; score {day.day} again") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise ContractError(f"{path}: does not have the checksum that the manifest says; score {day.day} again")
        tables.append(pq.read_table(io.BytesIO(content), columns=list(columns), partitioning=None))
    if not tables:
        raise ContractError(f"{folder}: {day.day} has no scores; look at no such day")
    return pa.concat_tables(tables)


def _read(path: str) -> bytes:
    with fsspec.open(path, "rb") as file:
        content: bytes = file.read()
    return content
