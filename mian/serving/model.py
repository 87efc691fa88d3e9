"""The registered model: MLflow runs this file when it loads one ("models from code"), so that nothing is pickled.

Import :mod:`mian.serving.servable` instead of this: running it tells MLflow which model it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

try:
    from mian.scoring.raw_values import ServingInputError
    from mian.serving.code import check_code
    from mian.serving.explanation import explain
    from mian.serving.servable import load_servable
except ImportError as missing:
    raise ImportError(
        f"{missing}; if this process has imported mian of another version, load the model in a process of its own"
    ) from missing


class ServableModel(PythonModel):
    """Raw rows in, a column ``probability`` out; with the parameter ``explain``, a column ``explanation`` beside it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the servable folder that is the model's artifact."""
        self._servable = load_servable(context.artifacts["servable"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict.

        Args:
            context: not used.
            model_input: raw rows, see :class:`mian.serving.request_encoder.RowEncoder`.
            params: ``explain``, whether to say what the model looked at.

        Returns:
            ``probability``, float64, the index of the input; and where it was asked for, ``explanation``, a list of records, see
            :func:`mian.serving.explanation.explain`.

        Raises:
            MlflowException: the rows are not what the model takes; the scoring server answers 400 with what is wrong.
        """
        try:
            _check(model_input, [field.column for field in self._servable.contract.fields])
            columns: dict[str, Any] = {"probability": self._servable.predict_proba(model_input)}
            if (params or {}).get("explain"):
                tables = explain(self._servable, model_input)
                columns["explanation"] = [table.to_dict(orient="records") for table in tables]
        except ServingInputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame(columns, index=model_input.index)


def _check(raw: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what only a request can be.

    Args:
        raw: what MLflow makes of the request.
        columns: what the model takes.

    Raises:
        ServingInputError: there are no rows, or no columns, or a column holds nothing but its own name.
    """
    if not len(raw.columns):  # MLflow leaves out columns that the model does not take, and with the last of them the rows
        raise ServingInputError(f"the input has no rows, or none of the model's columns; it takes {', '.join(columns)}")
    if not len(raw):
        raise ServingInputError("the input has no rows; give at least one")
    # of a column that is there as often as there are rows MLflow makes a column of its name
    named = [name for name in raw.columns if len(raw) > 1 and all(isinstance(v, str) and v == name for v in raw[name])]
    if named:
        raise ServingInputError(f"the input has the column {', '.join(named)} more than once; give each column once")


check_code(Path(__file__).parent / "code")
mlflow.models.set_model(ServableModel())
