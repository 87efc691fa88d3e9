"""A servable MIAN over the demo's fields with drawn weights, and requests for it; no samples and no training are needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from torch import nn

from mian.contract import Contract, Field, History, Label, NumericTransform, Vocabulary, vocabulary_to_parquet
from mian.contract.document import fingerprint
from mian.models import build
from mian.scoring.stand_ins import serving_stand_ins
from mian.serving import load_servable, save_servable
from mian.serving.onnx_export import export_onnx

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ROOT / "conf" / "train" / "mian.yaml"
HISTORY = 30
#: Values of each vocabulary of the demo, padding and unknown ids left out.
ITEMS = 2_124
TABLES = {"category": 24, "brand": 110, "gender": 3, "age": 6, "occupation": 12, "membership": 3, "city": 12, "household": 4} | {
    "position": 6, "device": 4, "weather": 5, "page": 4, "hour": 24, "weekday": 7, "month": 2}  # fmt: skip
GROUPS: dict[str, tuple[str, ...]] = {
    "candidate": ("item_id", "category", "brand"),
    "behaviors": ("item_id", "category", "brand"),
    "user": ("gender", "age", "occupation", "membership", "home_city", "household"),
    "context": ("position", "device", "city", "weather", "page", "hour", "weekday", "month"),
}
VOCABULARIES = {"home_city": "city"}
GAP_SECONDS = tuple(60.0 * 2**power for power in range(15))


def write_servable(folder: Path, items: int = ITEMS, seed: int = 0) -> Path:
    """Write the model with its graph.

    Args:
        folder: where to.
        items: values of the largest vocabulary.
        seed: of the weights.
    """
    contract, files = _contract(items)
    options = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))["model"]["options"]
    torch.manual_seed(seed)
    model = build("mian", contract, options)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    save_servable(folder, model, "mian", options, contract, files, serving_stand_ins(contract, {"position": None}, files))
    export_onnx(load_servable(folder), folder)
    return folder


def requests(count: int, candidates: int, items: int = ITEMS, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Users with full histories; items are drawn by a power law, and one in fifty is unknown.

    Args:
        count: how many requests.
        candidates: of each.
        items: values of the largest vocabulary.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)

    def values(name: str, size: int) -> list[str]:
        known = items if name == "item_id" else TABLES[VOCABULARIES.get(name, name)]
        places = (known * random.random(size) ** (3 if name == "item_id" else 1)).astype(int)
        return [
            f"{name}-new" if unknown else _value(name, place)
            for unknown, place in zip(random.random(size) < 0.02, places, strict=True)
        ]

    for _ in range(count):
        request: dict[str, Any] = {
            "user": {name: values(name, 1)[0] for name in GROUPS["user"]},
            "context": {name: values(name, 1)[0] for name in GROUPS["context"] if name != "position"},
            "behaviors": {name: values(name, HISTORY) for name in GROUPS["behaviors"]},
            "candidates": {name: values(name, candidates) for name in GROUPS["candidate"]},
        }
        request["behaviors"]["gap"] = np.cumsum(random.exponential(3_600, HISTORY)).round().tolist()
        request["candidates"]["price"] = random.lognormal(3, 1, candidates).round(2).tolist()
        yield request


def rows(request: dict[str, Any]) -> list[dict[str, Any]]:
    """A request as whole rows, by column, as the registered model takes them; the position is the most frequent one."""
    shared = {f"user_{name}": value for name, value in request["user"].items()}
    shared |= {f"context_{name}": value for name, value in request["context"].items()} | {
        "context_position": _value("position", 0)
    }
    shared |= {f"behavior_{name}": values for name, values in request["behaviors"].items()}
    candidates = request["candidates"]
    count = len(candidates["price"])
    return [shared | {f"candidate_{name}": values[place] for name, values in candidates.items()} for place in range(count)]


def _value(name: str, place: int) -> str:
    return f"{VOCABULARIES.get(name, name)}-{place}"


def _contract(items: int) -> tuple[Contract, dict[str, bytes]]:
    vocabularies, files = [], {}
    for name, size in {"item_id": items, **TABLES}.items():
        content = io.BytesIO()
        vocabulary_to_parquet(pa.array([f"{name}-{place}" for place in range(size)]), pa.array(np.arange(size, 0, -1)), content)
        files[name] = content.getvalue()
        vocabularies.append(Vocabulary(name=name, size=size + 2, path=f"{name}.parquet", sha256=fingerprint([name, size])))
    vocabularies.append(Vocabulary(name="gap", size=len(GAP_SECONDS) + 3, kind="buckets", edges=GAP_SECONDS))
    fields = [
        Field(group=group, name=name, vocabulary=VOCABULARIES.get(name, name))
        for group, names in GROUPS.items()
        for name in names
    ]
    fields.append(Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=3.0, std=1.0)))
    fields.append(Field(group="behaviors", name="gap", vocabulary="gap", kind="time_gap"))
    contract = Contract(
        name="ranking",
        fields=tuple(fields),
        vocabularies=tuple(_checked(vocabulary, files) for vocabulary in vocabularies),
        vocabulary_fingerprint="0",
        history=History(length=HISTORY, days=29),
        label=Label(kind="labeled"),
        splits={},
        config_fingerprint="0",
        code_fingerprint="0",
        days=(),
    )
    return contract, files


def _checked(vocabulary: Vocabulary, files: dict[str, bytes]) -> Vocabulary:
    import hashlib

    if vocabulary.name not in files:
        return vocabulary
    return vocabulary.model_copy(update={"sha256": hashlib.sha256(files[vocabulary.name]).hexdigest()})
