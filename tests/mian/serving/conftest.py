import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from mian.contract import (
    CONTRACT_FILE,
    Contract,
    Field,
    History,
    Label,
    NumericTransform,
    Vocabulary,
    vocabulary_to_parquet,
)
from mian.models import ClickModel, build
from mian.serving import read_vocabularies, save_servable

VALUES = {"item": [f"i{n}" for n in range(40)], "category": ["books", "toys", "7"], "age": ["20s", "30s"], "hour": ["9", "17"]}
PRICE = NumericTransform(kind="log", mean=2.0, std=1.5)
GAP = NumericTransform(kind="identity", mean=10.0, std=4.0)
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
        vocabularies = read_vocabularies(self.contract, self.samples)
        save_servable(folder, self.model, "mian", {**self.options, **options}, self.contract, vocabularies)

    def with_other_weights(self) -> "Trained":
        torch.manual_seed(1)
        return replace(self, model=build("mian", self.contract, self.options))

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
    (samples / "vocabularies" / "v1").mkdir(parents=True)
    vocabularies = []
    for name, values in VALUES.items():
        vocabulary_to_parquet(pa.array(values), pa.array(range(len(values), 0, -1)), content := io.BytesIO())
        path = f"vocabularies/v1/{name}.parquet"
        (samples / path).write_bytes(content.getvalue())
        sha256 = hashlib.sha256(content.getvalue()).hexdigest()
        vocabularies.append(Vocabulary(name=name, size=len(values) + 2, path=path, sha256=sha256))
    contract = Contract(
        name="small",
        fields=(
            Field(group="candidate", name="item_id", vocabulary="item"),
            Field(group="candidate", name="category", vocabulary="category"),
            Field(group="candidate", name="price", transform=PRICE),
            Field(group="behaviors", name="item_id", vocabulary="item"),
            Field(group="behaviors", name="category", vocabulary="category"),
            Field(group="behaviors", name="gap", transform=GAP),
            Field(group="user", name="age", vocabulary="age"),
            Field(group="context", name="hour", vocabulary="hour"),
        ),
        vocabularies=tuple(vocabularies),
        vocabulary_fingerprint="v1",
        history=History(length=HISTORY, days=30),
        label=Label(kind="labeled"),
        splits={},
        config_fingerprint="",
        code_fingerprint="",
        days=(),
    )
    (samples / CONTRACT_FILE).write_text(contract.to_json())
    torch.manual_seed(0)
    return Trained(build("mian", contract, OPTIONS), contract, str(samples), OPTIONS)


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
