"""What a served model looks at: the attention weights behind a score, beside the raw values that they are of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from mian.scoring.one_user_encoder import Columns
from mian.scoring.raw_values import ServingInputError
from mian.serving.servable import Servable
from mian.serving.tensors import tensors

#: Attentions by the name of their weights, in the order of the paper: its module's name, and what it weighs.
MODULES = {
    "behaviors": ("IBIM", "behaviors, the most recent first"),
    "user": ("IUIM", "user fields"),
    "context": ("ICIM", "context fields"),
    "global": ("GIM", "parts"),
}
COLUMNS = ("module", "name", "value", "weight")


def explain(servable: Servable, raw: pd.DataFrame) -> list[pd.DataFrame]:
    """The attention behind the score of each row.

    Args:
        servable: a model that has attention.
        raw: raw rows, see :class:`mian.serving.request_encoder.RowEncoder`.

    Returns:
        A table a row, a line for everything that is weighed: ``module`` (``IBIM``, ``IUIM``, ``ICIM``, ``GIM``), ``name`` (a behavior's
        number from the most recent, a field's column, a part), ``value`` (as the model reads it, see :meth:`Servable.values`; of a behavior
        those of its fields; None of a part)
        and ``weight``. The weights of a module add up to 1, but for MIAN-plus's behaviors.

    Raises:
        ServingInputError: the rows are not what the model takes, or it has no attention.
    """
    rows = servable.values(raw)
    weights = servable.explain(raw)
    if rows and not weights:
        raise ServingInputError("the model has no attention that could be explained; mian has")
    return _tables(servable, rows, weights)


def explain_sample(servable: Servable, sample: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> pd.DataFrame:
    """The attention behind the score of a sample, which is encoded already.

    Args:
        servable: A model.
        sample: A batch of one row, ids as the model knows them.
        values: The row's raw values, see :func:`mian.contract.decode_row`.

    Returns:
        A table as :func:`explain` gives it; no line where the model has no attention.
    """
    with torch.inference_mode():
        weights = {name: weight.double().numpy() for name, weight in servable.model.explain(sample).items()}
    (table,) = _tables(servable, [values], weights)
    return table


def explain_candidates(
    servable: Servable, user: Columns, candidates: Columns, rows: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The attention behind the score of each of N candidates of one user.

    Args:
        servable: A model that has attention.
        user: What :meth:`mian.scoring.one_user_encoder.OneUserEncoder.user` gives.
        candidates: What :meth:`mian.scoring.one_user_encoder.OneUserEncoder.candidates` gives.
        rows: The raw values of each candidate by column, of behaviors lists.

    Returns:
        The lines of :func:`explain` for each candidate.

    Raises:
        ServingInputError: The model has no attention.
    """
    batch = tensors({**{name: column.repeat(len(rows), axis=0) for name, column in user.items()}, **candidates})
    with torch.inference_mode():
        weights = {name: weight.double().numpy() for name, weight in servable.model.explain(batch).items()}
    if not weights:
        raise ServingInputError("the model has no attention that could be explained; mian has", "explain")
    return [table.to_dict(orient="records") for table in _tables(servable, rows, weights)]


def _tables(
    servable: Servable, rows: Sequence[Mapping[str, Any]], weights: Mapping[str, npt.NDArray[np.float64]]
) -> list[pd.DataFrame]:
    names = servable.model.explained()
    return [
        _table(servable, names, row, {key: batch_weights[number] for key, batch_weights in weights.items()})
        for number, row in enumerate(rows)
    ]


def _table(
    servable: Servable, names: Mapping[str, Sequence[str]], row: Mapping[str, Any], weights: Mapping[str, Any]
) -> pd.DataFrame:
    lines: list[tuple[str, str, Any, float]] = []
    for key, (module, _) in MODULES.items():
        if key not in weights:
            continue
        if key == "behaviors":
            values = _behaviors(servable, row)
            lines += [(module, str(n + 1), value, float(weights[key][n])) for n, value in enumerate(values)]
        else:
            lines += [(module, name, _plain(row.get(name)), float(weights[key][n])) for n, name in enumerate(names[key])]
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object).astype(
        {"weight": "float64"}
    )  # None stays None beside numbers


def _behaviors(servable: Servable, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = {field.name: row[field.column] for field in servable.contract.group("behaviors")}
    length = min(len(next(iter(lists.values()), ())), servable.contract.history.length)
    return [{name: _plain(values[place]) for name, values in lists.items()} for place in range(length)]


def _plain(value: str | float | None) -> str | float | None:
    """A value as JSON has it, which knows no infinity."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def shown(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
