"""What most tests need first: contracts, samples on disk, batches in memory, and servable models. All are small, and made without Spark.

Contracts: :func:`make_contract`, and ``CONTRACTS`` with groups of every kind. Samples: :func:`write_samples` writes clicks that a model can
learn, :func:`write_numbered_samples` rows that can be told from one another; both are put together from :func:`write_vocabularies`,
:func:`write_day` and :func:`write_contract`, as are sets that one test needs alone. Batches: :func:`make_batch`, :func:`whole_split`.
Servables: :func:`make_servable`, :func:`write_servable`.
"""

import datetime as dt
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
    vocabulary_values,
)
from mian.models import ClickModel, build
from mian.scoring.stand_ins import serving_stand_ins
from mian.serving import Servable, read_vocabularies, save_servable
from mian.stream import SampleStream

# Contracts


def categorical(group: str, name: str, vocabulary: str) -> Field:
    """A field of ids."""
    return Field(group=group, name=name, vocabulary=vocabulary)  # type: ignore[arg-type]


def numeric(group: str, name: str, kind: str = "identity", mean: float = 0.0, std: float = 1.0) -> Field:
    """A field of numbers."""
    transform = NumericTransform(kind=kind, mean=mean, std=std)  # type: ignore[arg-type]
    return Field(group=group, name=name, transform=transform)  # type: ignore[arg-type]


#: Vocabularies, one of a name that a torch module may not have.
SIZES = {"items": 40, "shop.category": 9, "age": 7, "hour": 26}
CANDIDATE = (
    categorical("candidate", "item_id", "items"),
    numeric("candidate", "price"),
    categorical("candidate", "category", "shop.category"),
)
BEHAVIORS = (
    categorical("behaviors", "item_id", "items"),
    categorical("behaviors", "category", "shop.category"),
    numeric("behaviors", "hours_ago"),
)
USER = (categorical("user", "age", "age"), numeric("user", "tenure"), categorical("user", "favorite", "items"))
CONTEXT = (categorical("context", "hour", "hour"), numeric("context", "rank"))


def make_contract(
    *fields: Field, vocabularies: Mapping[str, int] | Iterable[Vocabulary] = SIZES, length: int = 6, **values: Any
) -> Contract:
    """A contract of fields.

    Args:
        fields: Of the samples, in order.
        vocabularies: The sizes of tables by name, or any vocabularies.
        length: How many behaviors a sample has.
        values: All else that a contract says, by name; what is missing here has no days, splits or fingerprints.
    """
    if isinstance(vocabularies, Mapping):
        vocabularies = (Vocabulary(name=n, size=size, path=f"{n}.parquet", sha256="0") for n, size in vocabularies.items())
    defaults: dict[str, Any] = {
        "name": "small",
        "vocabulary_fingerprint": "0",
        "history": History(length=length, days=30),
        "label": Label(kind="labeled"),
        "splits": {},
        "config_fingerprint": "0",
        "code_fingerprint": "0",
        "days": (),
    }
    return Contract(**{"fields": fields, "vocabularies": tuple(vocabularies), **defaults, **values})


CONTRACTS = {
    "all groups": make_contract(*CANDIDATE, *BEHAVIORS, *USER, *CONTEXT),
    "groups interleaved": make_contract(*CONTEXT, *BEHAVIORS[::-1], *USER[::-1], *CANDIDATE[::-1]),
    "no user fields": make_contract(*CANDIDATE, *BEHAVIORS, *CONTEXT),
    "no context fields": make_contract(*CANDIDATE, *BEHAVIORS, *USER),
    "no behaviors": make_contract(*CANDIDATE, *USER, *CONTEXT),
    "candidate alone": make_contract(*CANDIDATE),
    "one field a group": make_contract(CANDIDATE[0], BEHAVIORS[0], USER[0], CONTEXT[0]),
    "numbers alone": make_contract(CANDIDATE[1], BEHAVIORS[2], USER[1], CONTEXT[1]),
}

# Files of a data set


def write_file(folder: Path, path: str, content: bytes | pa.Table, rows: int = 1, **options: Any) -> SampleFile:
    """Write a file of a data set.

    Args:
        folder: Of the data set.
        path: Of the file, below the folder.
        content: A table, written as Parquet, or what it is.
        rows: Of a content that is no table.
        options: Of ``pyarrow.parquet.write_table``.
    """
    if isinstance(content, pa.Table):
        rows, file = content.num_rows, io.BytesIO()
        pq.write_table(content, file, **options)
        content = file.getvalue()
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return SampleFile(path=path, rows=rows, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_vocabularies(folder: Path, values: Mapping[str, Sequence[str]]) -> tuple[Vocabulary, ...]:
    """Write vocabularies that are tables; ``values`` by name, in the order of their ids."""
    found = []
    for name, known in values.items():
        vocabulary_to_parquet(pa.array(known), pa.array(range(len(known), 0, -1)), content := io.BytesIO())
        file = write_file(folder, f"vocabularies/{name}.parquet", content.getvalue())
        found.append(Vocabulary(name=name, size=len(known) + 2, path=file.path, sha256=file.sha256))
    return tuple(found)


def write_day(
    folder: Path,
    day: dt.date,
    tables: Sequence[pa.Table],
    examples: pa.Table | None = None,
    options: Mapping[str, Any] | None = None,
    **values: Any,
) -> Day:
    """Write the files of a day.

    Args:
        folder: Of the data set.
        day: Whose samples they are.
        tables: The samples of each file.
        examples: Raw rows to keep, as of days that no model is trained on.
        options: Of ``pyarrow.parquet.write_table``, for the samples.
        values: All else that a contract says of a day, by name; positives are counted where they are missing here.
    """
    files = [
        write_file(folder, f"day={day}/part-{part:05}.parquet", table, **(options or {})) for part, table in enumerate(tables)
    ]
    if examples is not None:
        values["examples"] = write_file(folder, f"examples/day={day}/part-00000.parquet", examples, compression="zstd")
    if "positives" not in values:
        values["positives"] = sum(pc.sum(table["label"]).as_py() for table in tables)
    defaults = {"rows": sum(table.num_rows for table in tables), "fingerprint": f"fingerprint of {day}"}
    return Day(day=day, files=tuple(files), **{**defaults, **values})


def spans(days: Sequence[Day], **lengths: int) -> dict[str, Split]:
    """Splits of so many days each, one after the other; those of none are left out."""
    found, first = {}, 0
    for name, length in lengths.items():
        if length:
            found[name] = Split(first=days[first].day, last=days[first + length - 1].day)
        first += length
    return found


def write_contract(folder: Path, contract: Contract) -> Contract:
    """Write the contract of a data set, or another one in its place; the same contract."""
    (folder / CONTRACT_FILE).write_text(contract.to_json())
    return contract


# Samples that a model can learn

LENGTH = 6
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
    categorical("candidate", "item_id", "item"),
    categorical("candidate", "category", "category"),
    numeric("candidate", "price", "log", mean=2.0, std=0.8),
    categorical("behaviors", "item_id", "item"),
    categorical("behaviors", "category", "category"),
    numeric("behaviors", "hours_ago", "log", mean=3.0),
    categorical("user", "age", "age"),
    numeric("user", "visits", mean=10.0, std=5.0),
    categorical("context", "hour", "hour"),
    numeric("context", "slot", mean=4.5, std=3.0),
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
    """Write a data set as ``jobs/build_samples.py`` does: four groups of fields, held-out days with examples, clicks that can be learned.

    Args:
        folder: Where to; it is made.
        train: Rows of each file of each training day; likewise ``validation`` and ``test``, the days after.
        seed: Of all that is drawn.
        change_labels: Makes a file's labels of those that were drawn.
    """
    rng = np.random.default_rng(seed)
    vocabularies = write_vocabularies(folder, VALUES)
    encoder = Encoder(vocabularies, {name: pa.array(values) for name, values in VALUES.items()})
    days = []
    for number, rows_of_files in enumerate([*train, *validation, *test]):
        day = FIRST_DAY + dt.timedelta(days=number)
        raws = [_draw(day, f"{day}-{part}", rows, rng) for part, rows in enumerate(rows_of_files)]
        for raw in raws:
            raw["label"] = change_labels(raw["label"].to_numpy(), rng)
        examples = None
        if number >= len(train):
            examples = pa.Table.from_pandas(raws[0].head(EXAMPLES), _raw_schema(), preserve_index=False)
        tables = [_encoded(raw, encoder) for raw in raws]
        days.append(write_day(folder, day, tables, examples, options={"compression": "zstd"}))
    contract = make_contract(
        *FIELDS,
        vocabularies=vocabularies,
        length=LENGTH,
        name="small world",
        splits=spans(days, train=len(train), validation=len(validation), test=len(test)),
        days=tuple(days),
    )
    return write_contract(folder, contract)


def _draw(day: dt.date, name: str, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Raw rows. A click is likely for some items, and for a candidate of a category that the history has; and less far down."""
    items = rng.integers(0, len(VALUES["item"]), rows)
    lengths = rng.integers(0, LENGTH + 4, rows)  # some histories are empty, some longer than what is kept
    histories = [rng.integers(0, len(VALUES["item"]), length) for length in lengths]
    slots = rng.integers(0, 10, rows)
    users = rng.integers(0, 60, rows)
    alike = np.array(
        [np.mean(_category(h[:LENGTH]) == _category(i)) if len(h) else 0.0 for h, i in zip(histories, items, strict=True)]
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
    lengths = raw["behavior_item_id"].map(len).clip(upper=LENGTH)
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
    rows = [encoder.encode(field, pa.array(values[:LENGTH], kind)).tolist() for values in lists]
    entry = pa.int32() if field.is_categorical else pa.float32()
    return pa.array([row + [0] * (LENGTH - len(row)) for row in rows], pa.list_(entry))


def _raw_schema() -> pa.Schema:
    kinds = [("impression_id", pa.string()), ("time", pa.int64()), ("label", pa.int32()), ("user_key", pa.int64())]
    for field in FIELDS:
        kind = pa.string() if field.is_categorical else pa.float64()
        kinds.append((field.column, pa.list_(kind) if field.group == "behaviors" else kind))
    return pa.schema(kinds)


def read_examples(folder: Path, contract: Contract, split: str) -> pd.DataFrame:
    """The raw rows that a split's days kept, as one would send them to a served model."""
    kept = [pq.read_table(folder / day.examples.path) for day in contract.split(split) if day.examples is not None]
    table = pa.concat_tables(kept)
    return pd.DataFrame({name: pd.Series(table[name].to_pylist()) for name in table.column_names})


def rewrite(folder: Path, contract: Contract, path: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> Contract:
    """Change a file of samples; the contract, which is written too and returned, vouches for what it became.

    Args:
        folder: Of the data set.
        contract: Of the data set.
        path: Of the file, as the contract has it.
        change: Makes the new rows of the old ones.
        options: Of ``pyarrow.parquet.write_table``.
    """
    file = write_file(folder, path, change(pq.read_table(folder / path, partitioning=None)), **options)
    days = [
        day.model_copy(update={"files": tuple(file if old.path == path else old for old in day.files)}) for day in contract.days
    ]
    return write_contract(folder, contract.model_copy(update={"days": tuple(days)}))


def spoil(folder: Path, contract: Contract, path: str, column: str, rows: Sequence[int], value: float) -> Contract:
    """Put a value into rows of a file of samples, in lists into the first entry; see :func:`rewrite`."""

    def spoiled(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        for row in rows:
            values[row] = [value, *values[row][1:]] if isinstance(values[row], list) else value
        return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))

    # as many bytes whatever the value is
    return rewrite(folder, contract, path, spoiled, compression="none", use_dictionary=False, write_statistics=False)


# Samples that can be told from one another

NUMBERED_FIELDS = (
    categorical("candidate", "item_id", "item_id"),
    numeric("candidate", "price", "log"),
    categorical("behaviors", "item_id", "item_id"),
    numeric("behaviors", "price", "log"),
    categorical("user", "age", "age"),
)
NUMBERED_LENGTH = 3


def write_numbered_samples(
    folder: Path,
    rows_per_file: Sequence[int],
    rows_per_group: int | None = None,
    changes: Mapping[int, Callable[[pa.Table], pa.Table]] | None = None,
) -> Contract:
    """Write samples that know their numbers: the number is the ``user_key``, every other column follows from it.

    Args:
        folder: Where to; it is made. It gets no file of the contract.
        rows_per_file: Of each file; each is of a day of its own, from 2026-01-01 on.
        rows_per_group: The largest number of rows of a row group; None makes one of each file.
        changes: By a file's number a function of its table.
    """
    days, first = [], 0
    for number, rows in enumerate(rows_per_file):
        change = (changes or {}).get(number, lambda unchanged: unchanged)
        options = {"row_group_size": rows_per_group or max(rows, 1)}
        day = dt.date(2026, 1, 1) + dt.timedelta(days=number)
        days.append(write_day(folder, day, [change(_numbered(first, rows))], options=options, positives=0))
        first += rows
    sizes = {"item_id": 10_000, "age": 10_000}
    splits = spans(days, train=len(days))
    return make_contract(*NUMBERED_FIELDS, vocabularies=sizes, length=NUMBERED_LENGTH, splits=splits, days=tuple(days))


def _numbered(first: int, rows: int) -> pa.Table:
    numbers = np.arange(first, first + rows)
    behaviors = (numbers[:, None] * 10 + np.arange(NUMBERED_LENGTH)).reshape(-1)
    offsets = pa.array(np.arange(0, rows * NUMBERED_LENGTH + 1, NUMBERED_LENGTH), pa.int32())
    return pa.table(
        {
            "candidate_item_id": pa.array(numbers * 2, pa.int32()),
            "candidate_price": pa.array(numbers / 2, pa.float32()),
            "behavior_item_id": pa.ListArray.from_arrays(offsets, pa.array(behaviors, pa.int32())),
            "behavior_price": pa.ListArray.from_arrays(offsets, pa.array(behaviors / 2, pa.float32())),
            "user_age": pa.array(numbers % 7, pa.int32()),
            "behavior_length": pa.array(numbers % (NUMBERED_LENGTH + 1), pa.int32()),
            "label": pa.array(numbers % 2, pa.int32()),
            "user_key": pa.array(numbers, pa.int64()),
            "impression_id": pa.array([f"i{number}" for number in numbers]),
            "time": pa.array(numbers * 1_000_000, pa.int64()),
        }
    )


# Batches


def make_batch(contract: Contract, rows: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows of a contract, lengths of history from empty to full, padded with 0."""
    rng = np.random.default_rng(seed)
    steps = contract.history.length
    lengths = np.resize(rng.permutation(steps + 1), rows)
    batch = {"behavior_length": torch.tensor(lengths, dtype=torch.int32), "label": torch.tensor(rng.integers(0, 2, rows))}
    for field in contract.fields:
        shape = (rows, steps) if field.group == "behaviors" else (rows,)
        ids = field.vocabulary is not None
        values = rng.integers(1, contract.vocabulary(field.vocabulary).size, shape) if ids else rng.normal(size=shape)
        if field.group == "behaviors":
            values = values * (np.arange(steps) < lengths[:, None])
        batch[field.column] = torch.tensor(values, dtype=torch.int32 if ids else torch.float32)
    return batch


def whole_split(folder: Path, contract: Contract, split: str) -> dict[str, torch.Tensor]:
    """All rows of a split in one batch."""
    rows = sum(day.rows for day in contract.split(split))
    (batch,) = SampleStream(str(folder), contract, split, rows, shuffle=False, drop_last=False).epoch(0)
    return batch


# Servables


def make_model(contract: Contract, name: str = "mian", options: Mapping[str, Any] = SMALL_MODEL, seed: int = 0) -> ClickModel:
    """A model as training begins with it."""
    torch.manual_seed(seed)
    return build(name, contract, dict(options))


def make_servable(
    contract: Contract, samples: Path | str, name: str = "mian", options: Mapping[str, Any] = SMALL_MODEL, seed: int = 0
) -> Servable:
    """Such a model with the vocabularies of its samples, in memory."""
    contents = read_vocabularies(contract, str(samples))
    tables = {vocabulary: vocabulary_values(io.BytesIO(content)) for vocabulary, content in contents.items()}
    return Servable(contract, make_model(contract, name, options, seed), tables)


def write_servable(
    folder: Path,
    model: ClickModel,
    contract: Contract,
    samples: Path | str,
    name: str = "mian",
    options: Mapping[str, Any] = SMALL_MODEL,
    position_fields: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model with the vocabularies of its samples as a servable folder; the folder.

    Args:
        folder: Where to.
        model: Of that name in the registry, and with these options.
        contract: What it was trained on.
        samples: The folder that the contract is of.
        name: See ``model``; likewise ``options``.
        position_fields: Of the context, known only after ranking, with what stands for them.
    """
    vocabularies = read_vocabularies(contract, str(samples))
    stand_ins = serving_stand_ins(contract, position_fields or {}, vocabularies)
    save_servable(folder, model, name, options, contract, vocabularies, stand_ins)
    return folder
