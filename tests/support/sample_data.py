"""A finished data set, small and made without Spark: four groups of fields, held-out days with examples, clicks that can be learned."""

import datetime as dt
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mian.contract import (
    CONTRACT_FILE,
    Contract,
    Day,
    Encoder,
    Field,
    History,
    Label,
    NumericTransform,
    SampleFile,
    Split,
    Vocabulary,
    vocabulary_to_parquet,
)
from mian.stream import SampleStream

T = 6
FIRST_DAY = dt.date(2026, 3, 1)
#: Rows of each file of each day; no two days are alike, so that ranks never share a split evenly.
TRAIN_DAYS = ((320, 211), (250, 263), (301, 199), (287, 205))
VALIDATION_DAYS = ((120, 101, 93),)
TEST_DAYS = ((170, 101, 62),)
EXAMPLES = 40

VALUES: Mapping[str, Sequence[str]] = {
    "item": [f"i{n}" for n in range(40)],
    "category": [f"c{n}" for n in range(5)],
    "age": ["20s", "30s", "40s"],
    "hour": [str(hour) for hour in range(24)],
}
FIELDS = (
    Field(group="candidate", name="item_id", vocabulary="item"),
    Field(group="candidate", name="category", vocabulary="category"),
    Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=2.0, std=0.8)),
    Field(group="behaviors", name="item_id", vocabulary="item"),
    Field(group="behaviors", name="category", vocabulary="category"),
    Field(group="behaviors", name="hours_ago", transform=NumericTransform(kind="log", mean=3.0, std=1.0)),
    Field(group="user", name="age", vocabulary="age"),
    Field(group="user", name="visits", transform=NumericTransform(kind="identity", mean=10.0, std=5.0)),
    Field(group="context", name="hour", vocabulary="hour"),
    Field(group="context", name="slot", transform=NumericTransform(kind="identity", mean=4.5, std=3.0)),
)
#: Options of a MIAN that learns these samples in seconds.
SMALL_MODEL: Mapping[str, Any] = {
    "embedding_dim": 8,
    "heads": 2,
    "mlp": [16, 8],
    "global_dim": 16,
    "dropout": 0.0,
    "init_std": 0.1,
}

ChangeLabels = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def write_samples(
    folder: Path,
    train: Sequence[Sequence[int]] = TRAIN_DAYS,
    validation: Sequence[Sequence[int]] = VALIDATION_DAYS,
    test: Sequence[Sequence[int]] = TEST_DAYS,
    *,
    seed: int = 0,
    change_labels: ChangeLabels = lambda labels, rng: labels,
) -> Contract:
    """Write a data set as ``build_samples`` does.

    Args:
        folder: where to; it is made.
        train: rows of each file of each training day; likewise ``validation`` and ``test``, the days after.
        seed: of all that is drawn.
        change_labels: makes a file's labels of those that the world drew.
    """
    rng = np.random.default_rng(seed)
    vocabularies = tuple(_write_vocabulary(folder, name, values) for name, values in VALUES.items())
    encoder = Encoder(vocabularies, {name: pa.array(values) for name, values in VALUES.items()})
    rows_of_days = [*train, *validation, *test]
    days = []
    for number, rows_of_files in enumerate(rows_of_days):
        day = FIRST_DAY + dt.timedelta(days=number)
        raws = [_draw(day, f"{day}-{part}", rows, rng) for part, rows in enumerate(rows_of_files)]
        for raw in raws:
            raw["label"] = change_labels(raw["label"].to_numpy(), rng)
        paths = [f"day={day}/part-{part:05}.parquet" for part in range(len(raws))]
        files = tuple(_write(folder, path, _encoded(raw, encoder)) for path, raw in zip(paths, raws, strict=True))
        held_out = number >= len(train)
        examples = pa.Table.from_pandas(raws[0].head(EXAMPLES), _raw_schema(), preserve_index=False)
        days.append(
            Day(
                day=day,
                rows=sum(rows_of_files),
                positives=sum(int(raw["label"].sum()) for raw in raws),
                fingerprint=f"fingerprint of {day}",
                files=files,
                examples=_write(folder, f"examples/day={day}/part-00000.parquet", examples) if held_out else None,
            )
        )
    last = np.cumsum([len(train), len(validation), len(test)])
    splits = {
        name: Split(first=days[stop - len(split_days)].day, last=days[stop - 1].day)
        for name, split_days, stop in zip(("train", "validation", "test"), (train, validation, test), last, strict=True)
        if split_days
    }
    contract = Contract(
        name="small world",
        fields=FIELDS,
        vocabularies=vocabularies,
        vocabulary_fingerprint="fingerprint of the vocabularies",
        history=History(length=T, days=30),
        label=Label(kind="labeled"),
        splits=splits,
        config_fingerprint="fingerprint of the configuration",
        code_fingerprint="fingerprint of the code",
        days=tuple(days),
    )
    (folder / CONTRACT_FILE).write_text(contract.to_json())
    return contract


def read_examples(folder: Path, contract: Contract, split: str) -> pd.DataFrame:
    """The raw rows that a split's days kept, as one would send them to a served model."""
    kept = [pq.read_table(folder / day.examples.path) for day in contract.split(split) if day.examples is not None]
    table = pa.concat_tables(kept)
    return pd.DataFrame({name: pd.Series(table[name].to_pylist()) for name in table.column_names})


def whole_split(folder: Path, contract: Contract, split: str) -> dict[str, torch.Tensor]:
    """All rows of a split in one batch."""
    rows = sum(day.rows for day in contract.split(split))
    (batch,) = SampleStream(str(folder), contract, split, rows, shuffle=False, drop_last=False).epoch(0)
    return batch


def _draw(day: dt.date, name: str, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Raw rows. A click is likely for some items, and for a candidate of a category that the history has; and less far down."""
    items = rng.integers(0, len(VALUES["item"]), rows)
    lengths = rng.integers(0, T + 4, rows)  # some histories are empty, some longer than what is kept
    histories = [rng.integers(0, len(VALUES["item"]), length) for length in lengths]
    slots = rng.integers(0, 10, rows)
    users = rng.integers(0, 60, rows)
    alike = np.array(
        [np.mean(_category(h[:T]) == _category(i)) if len(h) else 0.0 for h, i in zip(histories, items, strict=True)]
    )
    logits = 2.0 * np.sin(2.4 * items) + 2.0 * alike - 0.15 * slots - 0.6
    unknown = rng.random(rows) < 0.05
    midnight = dt.datetime.combine(day, dt.time(), dt.timezone.utc)
    columns: dict[str, Any] = {
        "impression_id": [f"{name}-{row}" for row in range(rows)],
        "time": int(midnight.timestamp()) * 1_000_000 + np.sort(rng.integers(0, 86_400_000_000, rows)),
        "label": (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int32),
        "user_key": users * 7_919 - 3,
        "candidate_item_id": [f"i{i}" for i in items],
        "candidate_category": [f"c{c}" for c in _category(items)],
        "candidate_price": np.where(unknown, np.nan, np.round(np.exp(rng.normal(2, 0.8, rows)), 2)),
        "behavior_item_id": [[f"i{i}" for i in history] for history in histories],
        "behavior_category": [[f"c{c}" for c in _category(history)] for history in histories],
        "behavior_hours_ago": [np.cumsum(rng.exponential(20, length)).round(1).tolist() for length in lengths],
        "user_age": np.where(unknown, "90s", np.array(VALUES["age"])[users % 3]),
        "user_visits": (users % 17).astype(float),
        "context_hour": [str(hour) for hour in rng.integers(0, 24, rows)],
        "context_slot": slots.astype(float),
    }
    return pd.DataFrame(columns)


def _category(items: Any) -> Any:
    return items % len(VALUES["category"])


def _encoded(raw: pd.DataFrame, encoder: Encoder) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for field in FIELDS:
        if field.group == "behaviors":
            columns[field.column] = _padded_lists(field, raw[field.column], encoder)
        else:
            columns[field.column] = pa.array(encoder.encode(field, pa.array(raw[field.column], from_pandas=True)))
    lengths = raw["behavior_item_id"].map(len).clip(upper=T)
    return pa.table(
        columns
        | {
            "behavior_length": pa.array(lengths, pa.int32()),
            "label": pa.array(raw["label"], pa.int32()),
            "user_key": pa.array(raw["user_key"], pa.int64()),
            "impression_id": pa.array(raw["impression_id"]),
            "time": pa.array(raw["time"], pa.int64()),
        }
    )


def _padded_lists(field: Field, lists: pd.Series, encoder: Encoder) -> pa.Array:
    kind = pa.string() if field.is_categorical else pa.float64()
    rows = [encoder.encode(field, pa.array(values[:T], kind)).tolist() for values in lists]
    entry = pa.int32() if field.is_categorical else pa.float32()
    return pa.array([row + [0] * (T - len(row)) for row in rows], pa.list_(entry))


def _raw_schema() -> pa.Schema:
    kinds = [("impression_id", pa.string()), ("time", pa.int64()), ("label", pa.int32()), ("user_key", pa.int64())]
    for field in FIELDS:
        kind = pa.string() if field.is_categorical else pa.float64()
        kinds.append((field.column, pa.list_(kind) if field.group == "behaviors" else kind))
    return pa.schema(kinds)


def _write_vocabulary(folder: Path, name: str, values: Sequence[str]) -> Vocabulary:
    vocabulary_to_parquet(pa.array(values), pa.array(range(len(values), 0, -1)), content := io.BytesIO())
    path = folder / "vocabularies" / "v1" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    return Vocabulary(name=name, size=len(values) + 2, path=str(path.relative_to(folder)), sha256=sha256)


def _write(folder: Path, path: str, table: pa.Table) -> SampleFile:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, compression="zstd")
    content = target.read_bytes()
    return SampleFile(path=path, rows=table.num_rows, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
