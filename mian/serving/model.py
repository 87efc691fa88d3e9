"""The registered model: MLflow runs this file when it loads one ("models from code"), so that nothing is pickled.

Import :mod:`mian.serving.servable` instead of this: running it tells MLflow which model it is.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mian.serving.rows import ServingInputError
from mian.serving.servable import load_servable


class ServableModel(PythonModel):
    """Raw rows in, a column ``probability`` out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the servable folder that is the model's artifact."""
        self._servable = load_servable(context.artifacts["servable"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict.

        Args:
            context: not used.
            model_input: raw rows, see :class:`mian.serving.rows.RowEncoder`.
            params: not used.

        Returns:
            ``probability``, float64, the index of the input.

        Raises:
            MlflowException: the rows are not what the model takes; the scoring server answers 400 with what is wrong.
        """
        try:
            probability = self._servable.predict_proba(model_input)
        except ServingInputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame({"probability": probability}, index=model_input.index)


mlflow.models.set_model(ServableModel())
