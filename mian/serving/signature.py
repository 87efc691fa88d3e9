"""What MLflow is told about the input: its schema."""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array

from pipeline.contract import Contract, Field


def signature(contract: Contract) -> ModelSignature:
    """The schema of raw rows: ids are strings, numbers doubles, behaviors arrays; any value may be missing. One parameter, ``explain``."""
    inputs: list[ColSpec | TensorSpec] = [ColSpec(_type(field), field.column, required=False) for field in contract.fields]
    params = ParamSchema([ParamSpec("explain", DataType.boolean, default=False)])
    return ModelSignature(Schema(inputs), Schema([ColSpec(DataType.double, "probability")]), params)


def _type(field: Field) -> DataType | Array:
    if field.group != "behaviors":
        return DataType.string if field.is_text else DataType.double
    # MLflow refuses whole numbers in an array of doubles, and JSON from JavaScript writes 3.0 as 3.
    return Array(DataType.string) if field.is_text else Array(AnyType())  # type: ignore[no-untyped-call]
