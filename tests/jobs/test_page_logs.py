"""From a user's configuration to a trained model, for logs of pages and for logs that bring their histories along."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import train
from jobs.configuration import ConfigError, load_config
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.factories import SMALL_MODEL
from tests.jobs.conftest import working_in
from tests.support.stores import new_store

ROOT = Path(__file__).parents[2]
FIRST = dt.date(2019, 11, 9)
DAYS = [FIRST + dt.timedelta(days=n) for n in range(7)]
PAGES = 1_000
NEWS = [f"N{n}" for n in range(120)]
CATEGORIES = {news: f"category{n % 6}" for n, news in enumerate(NEWS)}


def write_pages(folder: Path, written_later: bool = False) -> tuple[int, int]:
    """Pages and news in the layout of MIND, of two sets; how many news were shown, and how many clicked.

    A user clicks news of the categories of the history more often than others. Ids begin anew in each set, as they do there. A history
    that is written later has the page's own clicks.
    """
    draw = random.Random(0)
    shown = clicked = 0
    taste = {f"U{n}": draw.sample(NEWS, draw.randint(0, 8)) for n in range(60)}
    for part, days in (("train", DAYS[:-1]), ("dev", DAYS[-1:])):
        target = folder / part
        target.mkdir(parents=True)
        lines = []
        for number in range(PAGES * len(days) // len(DAYS) + 1):
            user, day = draw.choice(list(taste)), days[number % len(days)]
            time = dt.datetime.combine(day, dt.time()) + dt.timedelta(seconds=draw.randint(0, 86_399))
            liked = {CATEGORIES[news] for news in taste[user]}
            page = []
            for news in draw.sample(NEWS, draw.randint(2, 8)):
                label = int(draw.random() < (0.6 if CATEGORIES[news] in liked else 0.1))
                page.append(f"{news}-{label}")
                shown, clicked = shown + 1, clicked + label
            history = [*taste[user], *(entry[:-2] for entry in page if entry.endswith("-1") and written_later)]
            # as the published files say it: 11/9/2019 8:05:01 AM
            text = f"{time.month}/{time.day}/{time.year} {time.hour % 12 or 12}:{time:%M:%S} {'AM' if time.hour < 12 else 'PM'}"
            lines.append("\t".join([str(number + 1), user, text, " ".join(history), " ".join(page)]))
        (target / "behaviors.tsv").write_text("\n".join(lines) + "\n")
        news = [
            "\t".join([n, c, f"{c}-sub", f'"{n}", a title', "", "https://example.com", "[]", '[{"a": "b"}]'])
            for n, c in CATEGORIES.items()
        ]
        (target / "news.tsv").write_text("\n".join(news) + "\n")
    return shown, clicked


def trained(folder: Path, samples: Path) -> int:
    values = {
        "samples": str(samples),
        "output": str(folder / "models"),
        "model": {"name": "mian", "options": dict(SMALL_MODEL)},
        "batch_size": 64,
        "epochs": 1,
        "threads": 1,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(values))
    new_store(folder / "mlflow.db")
    with working_in(folder):
        return train.main(["--config", str(folder / "train.yaml")])


def rows_of(small: DataConfig, contract: Any) -> list[dict[str, Any]]:
    files = [file for day in contract.days for file in day.files]
    return [row for file in files for row in pq.read_table(Path(small.samples) / file.path, partitioning=None).to_pylist()]


def test_pages_in_the_layout_of_mind_from_configuration_to_a_trained_model(spark: SparkSession, tmp_path: Path) -> None:
    shown, clicked = write_pages(tmp_path / "logs")
    overrides = [f"logs={tmp_path}/logs", f"samples={tmp_path}/samples"]
    small = load_config(DataConfig, str(ROOT / "conf" / "data" / "mind.yaml"), overrides)
    contract = build_samples(spark, small, DAYS[0], DAYS[-1]).contract
    assert (sum(day.rows for day in contract.days), sum(day.positives for day in contract.days)) == (shown, clicked)
    assert all(day.quality is not None and day.quality.quarantined == {} for day in contract.days)
    rows = rows_of(small, contract)
    assert {row["behavior_length"] for row in rows} > {0, 8}
    path = contract.vocabulary("category").path
    assert path is not None
    assert sorted(pq.read_table(tmp_path / "samples" / path)["value"].to_pylist()) == sorted(set(CATEGORIES.values()))
    assert audit(spark, small, rows=60).findings == []
    assert trained(tmp_path, tmp_path / "samples") == 0
    assert list((tmp_path / "models").glob("*"))


def test_the_audit_finds_a_recorded_history_that_was_written_after_the_click(spark: SparkSession, tmp_path: Path) -> None:
    write_pages(tmp_path / "logs", written_later=True)
    overrides = [f"logs={tmp_path}/logs", f"samples={tmp_path}/samples"]
    small = load_config(DataConfig, str(ROOT / "conf" / "data" / "mind.yaml"), overrides)
    build_samples(spark, small, DAYS[0], DAYS[-1])
    found = audit(spark, small, rows=10).found("leak")
    assert {finding.column for finding in found} >= {"candidate_item_id"}
    assert any("one of behavior_item_id in " in finding.samples for finding in found)


def write_recorded_log(path: Path) -> list[dict[str, Any]]:
    """Write a log whose rows hold what each user did before; its rows."""
    draw = random.Random(1)
    rows = []
    for number in range(1_500):
        time = dt.datetime.combine(DAYS[number % 7], dt.time(), dt.timezone.utc) + dt.timedelta(seconds=draw.randint(0, 86_399))
        length = draw.randint(0, 6)
        seconds = sorted(draw.sample(range(1, 500_000), length))  # ago, the most recent first
        rows.append(
            {
                "request": f"r{number}",
                "user": f"u{draw.randint(0, 50)}",
                "item": draw.randint(0, 90),
                "at": time,
                "bought": draw.random() < 0.3,
                "past": [draw.randint(0, 90) for _ in range(length)],
                "past_at": [time - dt.timedelta(seconds=ago) for ago in seconds],
                "what": [draw.choice(["view", "cart"]) for _ in range(length)],
            }
        )
    moment = pa.timestamp("us", tz="UTC")
    schema = pa.schema(
        [
            ("request", pa.string()),
            ("user", pa.string()),
            ("item", pa.int64()),
            ("at", moment),
            ("bought", pa.bool_()),
            ("past", pa.list_(pa.int64())),
            ("past_at", pa.list_(moment)),
            ("what", pa.list_(pa.string())),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return rows


def test_a_labeled_log_with_histories_of_its_own_from_configuration_to_a_trained_model(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = write_recorded_log(tmp_path / "log.parquet")
    text = f"""
name: recorded
samples: {tmp_path}/samples
log:
  kind: labeled
  impressions:
    path: {tmp_path}/log.parquet
    columns: {{impression_id: request, user_id: user, item_id: item, time: at, label: bought}}
  behaviors:
    from: impressions
    items: past
    times: past_at
    most_recent: first
    columns: {{action: what}}
fields:
  candidate: {{item_id: {{}}}}
  behaviors: {{item_id: {{}}, action: {{}}, gap: {{kind: time_gap}}}}
  context: {{hour: {{expression: hour(time)}}}}
history: {{length: 4, days: 5}}
splits:
  train: {{first: 2019-11-09, last: 2019-11-13}}
  validation: {{first: 2019-11-14, last: 2019-11-14}}
  test: {{first: 2019-11-15, last: 2019-11-15}}
"""
    (tmp_path / "data.yaml").write_text(text)
    small = load_config(DataConfig, str(tmp_path / "data.yaml"), [])
    contract = build_samples(spark, small, DAYS[0], DAYS[-1]).contract
    assert contract.history.recorded == "dated"
    path = contract.vocabulary("item_id").path
    assert path is not None
    words = ["padding", "unknown", *pq.read_table(tmp_path / "samples" / path)["value"].to_pylist()]
    wanted = {}
    for row in rows:
        young = [item for item, at in zip(row["past"], row["past_at"], strict=True) if row["at"] - at <= dt.timedelta(days=5)]
        wanted[row["request"]] = [str(item) for item in young[:4]]
    for sample in rows_of(small, contract):
        held = [words[n] for n in sample["behavior_item_id"][: sample["behavior_length"]]]
        assert [a if b != "unknown" else b for a, b in zip(wanted[sample["impression_id"]], held, strict=True)] == held
    assert audit(spark, small, rows=60).findings == []
    assert trained(tmp_path, tmp_path / "samples") == 0


def test_the_configuration_of_mind_is_whole() -> None:
    small = load_config(DataConfig, str(ROOT / "conf" / "data" / "mind.yaml"), [])
    assert small.log.recorded_history is not None
    assert small.log.behaviors == {}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"log.behaviors.items": None}, "log.recorded_history.items"),
        ({"log.behaviors.from": "clicks"}, "histories can only be taken from the impressions"),
        ({"fields.behaviors.gap": {"kind": "time_gap"}}, "fields.behaviors.gap: a time_gap needs log.behaviors.times"),
        ({"history.cutoff": "previous_day"}, "history.cutoff and history.lag_hours are of behaviors that are joined"),
    ],
)
def test_what_a_recorded_history_cannot_be_is_refused(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    document = yaml.safe_load((ROOT / "conf" / "data" / "mind.yaml").read_text())
    for place, value in values.items():
        *parents, name = place.split(".")
        inner = document
        for parent in parents:
            inner = inner[parent]
        inner[name] = value
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=says):
        load_config(DataConfig, str(tmp_path / "data.yaml"), [])
