"""Small samples on disk: every row knows its number, so that each can be told from all others wherever it turns up."""

import datetime as dt
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mian.contract import Contract, Day, Field, History, Label, NumericTransform, SampleFile, Split, Vocabulary

T = 3
FIRST_DAY = dt.date(2026, 1, 1)
FIELDS = (
    Field(group="candidate", name="item_id", vocabulary="item_id"),
    Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=0.0, std=1.0)),
    Field(group="behaviors", name="item_id", vocabulary="item_id"),
    Field(group="behaviors", name="price", transform=NumericTransform(kind="log", mean=0.0, std=1.0)),
    Field(group="user", name="age", vocabulary="age"),
)


@dataclass(frozen=True)
class Samples:
    folder: str
    contract: Contract

    def path(self, file: int) -> Path:
        return Path(self.folder) / self.files[file].path

    @property
    def files(self) -> list[SampleFile]:
        return [file for day in self.contract.days for file in day.files]


def sample_table(first: int, rows: int) -> pa.Table:
    """Rows number ``first`` to ``first + rows - 1``; the number is the ``user_key``, every other column follows from it."""
    numbers = np.arange(first, first + rows)
    behaviors = (numbers[:, None] * 10 + np.arange(T)).reshape(-1)
    offsets = pa.array(np.arange(0, rows * T + 1, T), pa.int32())
    return pa.table(
        {
            "candidate_item_id": pa.array(numbers * 2, pa.int32()),
            "candidate_price": pa.array(numbers / 2, pa.float32()),
            "behavior_item_id": pa.ListArray.from_arrays(offsets, pa.array(behaviors, pa.int32())),
            "behavior_price": pa.ListArray.from_arrays(offsets, pa.array(behaviors / 2, pa.float32())),
            "user_age": pa.array(numbers % 7, pa.int32()),
            "behavior_length": pa.array(numbers % (T + 1), pa.int32()),
            "label": pa.array(numbers % 2, pa.int32()),
            "user_key": pa.array(numbers, pa.int64()),
            "impression_id": pa.array([f"i{number}" for number in numbers]),
            "time": pa.array(numbers * 1_000_000, pa.int64()),
        }
    )


@pytest.fixture
def write_samples(tmp_path: Path) -> Callable[..., Samples]:
    """Writes files of the given numbers of rows, each on a day of its own.

    ``changes`` maps a file's number to a function of its table. ``rows_per_group`` cuts every file into groups of at most that.
    """

    def write(
        rows_per_file: Sequence[int],
        rows_per_group: int | None = None,
        changes: dict[int, Callable[[pa.Table], pa.Table]] | None = None,
    ) -> Samples:
        folder = tmp_path / "samples with a # and a ? in their path"
        days = []
        first = 0
        for number, rows in enumerate(rows_per_file):
            day = FIRST_DAY + dt.timedelta(days=number)
            path = folder / f"day={day}" / "part-00000.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = (changes or {}).get(number, lambda unchanged: unchanged)(sample_table(first, rows))
            pq.write_table(table, path, row_group_size=rows_per_group or max(rows, 1))
            file = SampleFile(
                path=str(path.relative_to(folder)),
                rows=table.num_rows,
                bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            days.append(Day(day=day, rows=rows, positives=0, fingerprint="", files=(file,)))
            first += rows
        contract = Contract(
            name="numbers",
            fields=FIELDS,
            vocabularies=tuple(Vocabulary(name=name, size=10_000, path="", sha256="") for name in ("item_id", "age")),
            vocabulary_fingerprint="",
            history=History(length=T, days=30),
            label=Label(kind="labeled"),
            splits={"train": Split(first=days[0].day, last=days[-1].day)},
            config_fingerprint="",
            code_fingerprint="",
            days=tuple(days),
        )
        return Samples(str(folder), contract)

    return write


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """Whatever a test does with a stream, all of its threads have ended."""
    before = set(threading.enumerate())
    yield
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(timeout=5)
    assert not {thread.name for thread in started if thread.is_alive()}
