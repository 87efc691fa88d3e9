from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mian.contract import Contract, Field
from mian.models import ClickModel
from tests.factories import (
    categorical,
    make_contract,
    make_model,
    numeric,
    write_contract,
    write_servable,
    write_vocabularies,
)

VALUES = {"item": [f"i{n}" for n in range(40)], "category": ["books", "toys", "7"], "age": ["20s", "30s"], "hour": ["9", "17"]}
FIELDS = (
    categorical("candidate", "item_id", "item"),
    categorical("candidate", "category", "category"),
    numeric("candidate", "price", "log", mean=2.0, std=1.5),
    categorical("behaviors", "item_id", "item"),
    categorical("behaviors", "category", "category"),
    numeric("behaviors", "gap", mean=10.0, std=4.0),
    categorical("user", "age", "age"),
    categorical("context", "hour", "hour"),
)
HISTORY = 4
OPTIONS: dict[str, Any] = {"embedding_dim": 4, "heads": 2, "mlp": [8], "global_dim": 8, "init_std": 0.5}


@dataclass(frozen=True)
class Trained:
    """A model, what it was trained on, and where that is."""

    model: ClickModel
    contract: Contract
    samples: str
    options: Mapping[str, Any]

    def save(self, folder: Path, **options: Any) -> None:
        write_servable(folder, self.model, self.contract, self.samples, options={**self.options, **options})

    def with_other_weights(self) -> "Trained":
        return replace(self, model=make_model(self.contract, options=self.options, seed=1))

    def probabilities(self, raw: pd.DataFrame) -> np.ndarray:
        """The slow way: each value looked up by itself, then the model itself."""
        columns: dict[str, Any] = {
            "behavior_length": torch.tensor([min(len(v or []), HISTORY) for v in raw["behavior_item_id"]], dtype=torch.int32)
        }
        for field in self.contract.fields:
            rows = []
            for value in raw[field.column]:
                if field.group == "behaviors":
                    encoded = [encode(field, entry) for entry in (value or [])[:HISTORY]]
                    rows.append(encoded + [0] * (HISTORY - len(encoded)))
                else:
                    rows.append(encode(field, value))
            columns[field.column] = torch.tensor(rows, dtype=torch.int32 if field.is_categorical else torch.float32)
        with torch.no_grad():
            return torch.sigmoid(self.model.eval()(columns)).numpy()


def encode(field: Field, value: Any) -> float:
    if field.vocabulary is not None:
        known = VALUES[field.vocabulary]
        return known.index(value) + 2 if value in known else 1
    assert field.transform is not None
    if value is None or np.isnan(value):
        return 0.0
    x = np.sign(value) * np.log1p(abs(value)) if field.transform.kind == "log" else value
    return float((x - field.transform.mean) / field.transform.std)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return train(tmp_path / "samples")


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """For tests that leave the samples as they are."""
    return train(tmp_path_factory.mktemp("trained") / "samples")


def train(samples: Path) -> Trained:
    contract = make_contract(*FIELDS, vocabularies=write_vocabularies(samples, VALUES), length=HISTORY)
    write_contract(samples, contract)
    model = make_model(contract, options=OPTIONS)
    model.set_calibration(1.3, -0.4)
    return Trained(model, contract, str(samples), OPTIONS)


@pytest.fixture
def raw() -> pd.DataFrame:
    """Everything known; all unknown; all missing; a history too long; one entry with a missing value; an empty history."""
    rows: list[dict[str, Any]] = [
        {
            "candidate_item_id": "i3",
            "candidate_category": "toys",
            "candidate_price": 12.5,
            "behavior_item_id": ["i1", "i2"],
            "behavior_category": ["books", "7"],
            "behavior_gap": [1.0, 30.0],
            "user_age": "20s",
            "context_hour": "9",
        },
        {
            "candidate_item_id": "new",
            "candidate_category": "new",
            "candidate_price": -3.0,
            "behavior_item_id": ["newer"],
            "behavior_category": ["newer"],
            "behavior_gap": [0.0],
            "user_age": "90s",
            "context_hour": "25",
        },
        dict.fromkeys(
            ["candidate_item_id", "candidate_category", "behavior_item_id", "behavior_category", "behavior_gap", "user_age"]
        )
        | {"candidate_price": float("nan"), "context_hour": None},
        {
            "candidate_item_id": "i0",
            "candidate_category": "books",
            "candidate_price": 1e6,
            "behavior_item_id": [f"i{n}" for n in range(9)],
            "behavior_category": ["toys"] * 9,
            "behavior_gap": [float(n) for n in range(9)],
            "user_age": "30s",
            "context_hour": "17",
        },
        {
            "candidate_item_id": "i39",
            "candidate_category": None,
            "candidate_price": 0.0,
            "behavior_item_id": ["i5", None, "i6"],
            "behavior_category": ["toys", "toys", None],
            "behavior_gap": [3.0, None, 5.0],
            "user_age": None,
            "context_hour": "17",
        },
        {
            "candidate_item_id": "i1",
            "candidate_category": "7",
            "candidate_price": 4.0,
            "behavior_item_id": [],
            "behavior_category": None,
            "behavior_gap": [],
            "user_age": "20s",
            "context_hour": "9",
        },
    ]
    return pd.DataFrame(rows, index=[10, 20, 30, 40, 50, 60])
