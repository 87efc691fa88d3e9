"""Raw rows as an example of what a model takes."""

from __future__ import annotations

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mian.contract import Contract, ContractError, Field, vocabulary_values


def input_example(contract: Contract, samples: str, rows: int = 5) -> pd.DataFrame:
    """Some raw rows: those that ``build_samples`` kept of the last finished day, or, if it kept none, made of the vocabularies.

    Args:
        contract: the data set's contract.
        samples: the data set's folder; a local path or any URL that fsspec opens.
        rows: how many at most.

    Raises:
        ContractError: a file that the contract names is missing.
    """
    samples = samples.rstrip("/")
    kept = [day.examples for day in sorted(contract.days, key=lambda day: day.day) if day.examples is not None]
    if kept:
        path = f"{samples}/{kept[-1].path}"
        try:
            with fsspec.open(path, "rb") as file:
                table = pq.read_table(file, columns=[field.column for field in contract.fields]).slice(0, rows)
        except FileNotFoundError as error:
            raise ContractError(f"{path}: no such file; the contract names it: build again with --verify") from error
    else:
        table = pa.table({field.column: _made_up(contract, samples, field, rows) for field in contract.fields})
    return _plain(table, contract)


def _made_up(contract: Contract, samples: str, field: Field, rows: int) -> list[object]:
    """The i-th row has the i-th most frequent value, or i, and a history of i behaviors."""
    values: list[object] = [float(i) for i in range(rows)]
    if field.is_text:
        path = contract.vocabulary(field.vocabulary or "").path
        known = [f"value {i}" for i in range(rows)]  # of a hashed field any text is a value
        if path is not None:
            with fsspec.open(f"{samples}/{path}", "rb") as file:
                known = vocabulary_values(file).slice(0, rows).to_pylist()
        values = [known[i % len(known)] if known else None for i in range(rows)]
    return [values[: i + 1] for i in range(rows)] if field.group == "behaviors" else values


def _plain(table: pa.Table, contract: Contract) -> pd.DataFrame:
    """Python lists and None, which MLflow writes to JSON."""
    frame = pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})
    numbers = [f.column for f in contract.fields if not f.is_text and f.group != "behaviors"]
    return frame.astype(dict.fromkeys(numbers, "float64"))
