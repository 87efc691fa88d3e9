"""What MLflow is told about the input: its schema."""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from mian.contract import Contract


def signature(contract: Contract) -> ModelSignature:
    """The schema of raw rows: a column a field; any value may be missing. One parameter, ``explain``.

    Columns are of any type, and :class:`mian.serving.request_encoder.RowEncoder` looks at the values. MLflow would make text of a
    value that a list of strings lacks, and refuse whole numbers as doubles and columns of missing values as text.
    """
    inputs: list[ColSpec | TensorSpec] = [ColSpec(AnyType(), field.column, required=False) for field in contract.fields]  # type: ignore[no-untyped-call]
    params = ParamSchema([ParamSpec("explain", DataType.boolean, default=False)])
    return ModelSignature(Schema(inputs), Schema([ColSpec(DataType.double, "probability")]), params)
