"""What the options of all models have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Deviation = Annotated[float, Field(gt=0.0)]


class Options(BaseModel):
    """A model's options: no others than those that are named, and none that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
