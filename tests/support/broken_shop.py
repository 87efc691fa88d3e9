"""A small shop's log to break, and what a build made of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs import build_samples as job
from mian.contract import Contract
from pipeline.config import DataConfig

Row = dict[str, Any]

DAYS = (dt.date(2026, 3, 1), dt.date(2026, 3, 2))
MINUTE = dt.timedelta(minutes=1)
TIMESTAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {"impression_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(), "ts": TIMESTAMP}
    | {"device": pa.string(), "clicked": pa.int32()}
)
COLUMNS = {name: name for name in ("impression_id", "user_id", "item_id", "device")} | {"time": "ts", "label": "clicked"}
DDL = "impression_id STRING, user_id STRING, item_id STRING, ts STRING, device STRING, clicked INT"
CSV = {"format": "csv", "options": {"header": True}, "columns": {**COLUMNS, "time": "to_timestamp(ts)"}}
JSON = {"format": "json", "columns": {**COLUMNS, "time": "to_timestamp(ts)"}}


def midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.timezone.utc)


def good_rows(day: dt.date) -> list[Row]:
    return [
        {
            "impression_id": f"{day}-{n}",
            "user_id": f"u{n % 4}",
            "item_id": f"i{n % 5}",
            "ts": midnight(day) + (60 + n) * MINUTE,
            "device": ("phone", "desktop")[n % 2],
            "clicked": int(n % 3 == 0),
        }
        for n in range(12)
    ]


def with_first(day: dt.date, **values: Any) -> list[Row]:
    """A day's rows, with some values of the first of them replaced."""
    first, *others = good_rows(day)
    return [first | values, *others]


def csv(rows: list[Row], names: list[str] = SCHEMA.names) -> str:
    texts = [{**row, "ts": row["ts"].isoformat()} for row in rows]
    return "".join(f"{line}\n" for line in [",".join(names), *(",".join(str(text[name]) for name in names) for text in texts)])


def objects(rows: list[Row]) -> list[Row]:
    return [{**row, "ts": row["ts"].isoformat()} for row in rows]


def json_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects(rows))


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for those that say who built last."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "_locks"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Shop:
    """A labeled log of two days, a folder a day: the first to train on, the second to test."""

    folder: Path

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def partition(self, day: dt.date | str) -> Path:
        path = self.folder / "log" / f"day={day}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, content: Callable[[list[Row]], str | bytes]) -> None:
        """The same kind of file in both days' folders."""
        for day in DAYS:
            made = content(good_rows(day))
            (self.partition(day) / name).write_bytes(made if isinstance(made, bytes) else made.encode())

    def parquet(self, day: dt.date | str, rows: list[Row] | None = None, schema: pa.Schema = SCHEMA) -> Path:
        path = self.partition(day) / "part-0.parquet"
        made = rows if rows is not None else good_rows(dt.date.fromisoformat(str(day)))
        pq.write_table(pa.Table.from_pylist(made, schema), path)
        return path

    def both(self, schema: pa.Schema = SCHEMA, **values: Any) -> None:
        """Parquet on both days; the first row of each has the values."""
        for day in DAYS:
            self.parquet(day, with_first(day, **values), schema)

    def config(self, *, changes: Row | None = None, **source: Any) -> DataConfig:
        """``source`` replaces keys of ``log.impressions``, ``changes`` keys of the top level."""
        impressions = {"path": str(self.folder / "log"), "columns": COLUMNS, "day_column": "day", **source}
        values = {
            "name": "shop",
            "samples": str(self.samples),
            "log": {"kind": "labeled", "impressions": impressions, "label_delay_hours": 0},
            "fields": {
                "candidate": {"item_id": {}},
                "behaviors": {"item_id": {}},
                "user": {"user_id": {}},
                "context": {"device": {}},
            },
            "history": {"length": 3, "days": 1},
            "splits": {"train": {"first": DAYS[0], "last": DAYS[0]}, "test": {"first": DAYS[1], "last": DAYS[1]}},
        }
        return DataConfig.model_validate(values | (changes or {}))


@dataclass(frozen=True)
class Refusals(Shop):
    """A shop whose builds are to be refused."""

    capsys: pytest.CaptureFixture[str]

    def refused(self, *words: str, changes: Row | None = None, **source: Any) -> None:
        self.refused_with(self.config(changes=changes, **source), *words)

    def refused_with(self, config: DataConfig, *words: str, first: dt.date = DAYS[0]) -> None:
        before = files(self.samples)
        sentence = self.sentence(config, first)
        for word in words:
            assert word in sentence
        assert files(self.samples) == before

    def sentence(self, config: DataConfig, first: dt.date = DAYS[0]) -> str:
        """What the job says of a build that fails, and nothing else."""
        path = self.folder / "data.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True, exclude_unset=True)))
        code = job.main(["--config", str(path), "--from", str(first)])
        said = self.capsys.readouterr()
        assert (code, said.out) == (1, "")
        assert "Traceback" not in said.err
        assert "\tat " not in said.err
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return sentence


@dataclass(frozen=True)
class Built:
    """A build with rows in quarantine."""

    samples: Path
    contract: Contract

    def ids(self, day: dt.date) -> list[str]:
        """The impressions that were published."""
        (found,) = [found for found in self.contract.days if found.day == day]
        return sorted(name for f in found.files for name in pq.read_table(self.samples / f.path)["impression_id"].to_pylist())

    def reasons(self, day: dt.date) -> dict[str, str]:
        """The rows in quarantine by their impression, and why they are there; the counts are those that the contract says."""
        (found,) = [found for found in self.contract.days if found.day == day]
        assert found.quality is not None
        if found.quarantine is None:
            assert not found.quality.quarantined
            return {}
        rows = pq.read_table(self.samples / found.quarantine.path).to_pylist()
        counted: dict[str, int] = {}
        for row in rows:
            counted[row["reason"]] = counted.get(row["reason"], 0) + 1
        assert found.quality.quarantined == counted
        return {str(json.loads(row["row"]).get("impression_id")): row["reason"] for row in rows}

    def words(self, vocabulary: str) -> set[str]:
        path = self.contract.vocabulary(vocabulary).path
        assert path is not None
        return set(pq.read_table(self.samples / path)["value"].to_pylist())

    def column(self, day: dt.date, name: str) -> dict[str, Any]:
        (found,) = [found for found in self.contract.days if found.day == day]
        tables = [pq.read_table(self.samples / f.path, columns=["impression_id", name]) for f in found.files]
        return {row["impression_id"]: row[name] for table in tables for row in table.to_pylist()}
