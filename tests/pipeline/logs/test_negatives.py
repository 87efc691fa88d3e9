from __future__ import annotations

import datetime as dt
import functools
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

from pipeline.audit.recompute import Shown, negative_allowed
from pipeline.build import build_samples
from pipeline.config import DataConfig, Negatives
from pipeline.config.dataset import Quality
from pipeline.days import Calendar
from pipeline.join.rows import all_rows
from pipeline.logs.errors import LogError
from pipeline.logs.events import EventLogs
from pipeline.logs.negatives import draw_negatives
from tests.support.small_logs import EVENT, TIMESTAMP

pytestmark = pytest.mark.spark

FIRST = dt.date(2026, 3, 1)
DAYS = 24
WINDOW = 10
HOUR = 3_600_000_000
START = int(dt.datetime.combine(FIRST, dt.time(), dt.timezone.utc).timestamp()) * 1_000_000
UNIFORM, POPULARITY = 3, 3


def purchases() -> list[dict[str, object]]:
    """A popular item has half of all purchases of its day; some items are sold for some days only."""
    draw = random.Random(0)
    rows = []
    for day in range(DAYS):
        on_sale = [n for n in range(40) if n % 4 == 0 or (day // 8) == n % 3]
        for n in range(60):
            item = 0 if draw.random() < 0.3 else draw.choice(on_sale)
            moment = dt.datetime.combine(FIRST, dt.time(), dt.timezone.utc) + dt.timedelta(
                days=day, seconds=draw.randint(0, 86_399)
            )
            rows.append(
                {"impression_id": f"{day}-{n}", "user_id": f"u{draw.randint(0, 300)}", "item_id": f"i{item}", "ts": moment}
            )
    return rows


def config(folder: Path, seed: int = 0) -> DataConfig:
    return DataConfig.model_validate(
        {
            "name": "shop",
            "samples": str(folder / "samples"),
            "log": {
                "kind": "positives_only",
                "impressions": {"path": str(folder / "purchases.parquet"), "columns": EVENT},
                "negatives": {"uniform": UNIFORM, "popularity": POPULARITY},
            },
            "fields": {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}}},
            "history": {"length": 30, "days": WINDOW},
            "splits": {"train": {"first": FIRST, "last": FIRST}},
            "seed": seed,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    schema = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])
    pq.write_table(pa.Table.from_pylist(purchases(), schema), folder / "purchases.parquet")
    return folder


def drawn(spark: SparkSession, settings: DataConfig, first: int = 0, last: int = DAYS - 1) -> list[Row]:
    events = EventLogs(spark, settings).read(FIRST + dt.timedelta(days=first), FIRST + dt.timedelta(days=last))
    return events.impressions.orderBy("impression_id").collect()


@pytest.fixture(scope="module")
def rows(spark: SparkSession, folder: Path) -> list[Row]:
    return drawn(spark, config(folder))


def test_every_purchase_is_a_positive_and_has_its_negatives(rows: list[Row]) -> None:
    positives = {row["impression_id"]: row for row in rows if row["label"] == 1}
    assert len(positives) == len(purchases())
    counts = Counter(row["impression_id"].split("#")[0] for row in rows if row["label"] == 0)
    assert set(counts.values()) == {UNIFORM + POPULARITY}
    assert set(counts) == set(positives)
    assert {row["time"].date() for row in rows if row["item_id"] is None} == {FIRST}, "the log begins there"
    for row in rows:
        positive = positives[row["impression_id"].split("#")[0]]
        assert (row["user_id"], row["time"], row["time"].date()) == (
            positive["user_id"],
            positive["time"],
            positive["time"].date(),
        )


def test_no_negative_is_an_item_that_the_user_bought_in_the_window(rows: list[Row]) -> None:
    bought = [(p["user_id"], p["item_id"], p["ts"].replace(tzinfo=None)) for p in purchases()]
    for row in rows:
        if row["label"] == 0:
            begin = row["time"] - dt.timedelta(days=WINDOW)
            assert not any(u == row["user_id"] and i == row["item_id"] and begin <= t <= row["time"] for u, i, t in bought)


def test_negatives_of_a_positive_differ_and_were_sold_in_the_week_before_it(rows: list[Row]) -> None:
    sold: dict[str, set[dt.datetime]] = {}
    for purchase in purchases():
        sold.setdefault(purchase["item_id"], set()).add(purchase["ts"].replace(tzinfo=None))
    chosen: dict[str, list[str]] = {}
    for row in rows:
        if row["label"] == 0 and row["item_id"] is not None:
            assert any(row["time"] - dt.timedelta(days=7) <= moment < row["time"] for moment in sold[row["item_id"]])
            chosen.setdefault(row["impression_id"].split("#")[0], []).append(row["item_id"])
    assert all(len(items) == len(set(items)) for items in chosen.values())


def test_popularity_draws_the_popular_and_uniform_does_not(rows: list[Row]) -> None:
    def share(slots: range) -> float:
        kind = [r for r in rows if r["label"] == 0 and int(r["impression_id"].split("#")[1]) in slots]
        return sum(r["item_id"] == "i0" for r in kind) / len(kind)

    # a third of the purchases, one of some twenty items; buyers of it in the window do not get it
    assert share(range(1, UNIFORM + 1)) < 0.06
    assert share(range(UNIFORM + 1, UNIFORM + POPULARITY + 1)) > 0.08


def test_draws_do_not_depend_on_which_days_are_built_together(spark: SparkSession, folder: Path, rows: list[Row]) -> None:
    alone = drawn(spark, config(folder), 15, 15)
    assert alone == [row for row in rows if row["time"].date() == FIRST + dt.timedelta(days=15)]


def test_another_seed_draws_others(spark: SparkSession, folder: Path, rows: list[Row]) -> None:
    other = drawn(spark, config(folder, seed=1), 15, 15)
    assert [r["item_id"] for r in other] != [r["item_id"] for r in rows if r["time"].date() == FIRST + dt.timedelta(days=15)]


def test_where_the_pool_is_too_small_there_are_fewer(spark: SparkSession, tmp_path: Path) -> None:
    moment = dt.datetime(2026, 3, 1, 12, tzinfo=dt.timezone.utc)
    rows = [{"impression_id": f"p{n}", "user_id": f"u{n}", "item_id": f"i{n}", "ts": moment} for n in range(3)]
    schema = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "purchases.parquet")
    rows.append({"impression_id": "p3", "user_id": "u3", "item_id": "i3", "ts": moment + dt.timedelta(microseconds=1)})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "purchases.parquet")
    found = drawn(spark, config(tmp_path), 0, 0)
    assert Counter(row["label"] for row in found) == {1: 4, 0: 24}
    items = {name: {row["item_id"] for row in found if row["impression_id"].startswith(f"{name}#")} for name in ("p0", "p3")}
    assert items == {"p0": {None}, "p3": {"i0", "i1", "i2", None}}, "what is bought at the same moment is in no pool yet"
    assert sum(row["item_id"] is not None for row in found if row["label"] == 0) == 3


def test_negatives_that_could_not_be_drawn_are_counted_and_too_many_stop_the_build(spark: SparkSession, folder: Path) -> None:
    settings = config(folder)
    contract = build_samples(spark, settings.model_copy(update={"samples": str(folder / "counted")}), FIRST, FIRST).contract
    (day,) = contract.days
    assert day.quality is not None and day.quality.undrawn is not None and day.quarantine is not None
    assert 0 < day.quality.undrawn == 60 * (UNIFORM + POPULARITY) - (day.rows - day.positives) == day.quarantine.rows
    assert day.quality.quarantined == {}
    strict = {"samples": str(folder / "strict"), "quality": Quality(max_undrawn=0.01)}
    with pytest.raises(LogError, match="of 360 negatives could not be drawn: too few items had an event in the 168 hours before"):
        build_samples(spark, settings.model_copy(update=strict), FIRST, FIRST)


@pytest.mark.parametrize("expression", ["category", "upper(category)"])
def test_what_a_log_says_of_the_item_is_no_field_of_a_drawn_one(spark: SparkSession, folder: Path, expression: str) -> None:
    plain = config(folder).model_dump(mode="json", by_alias=True, exclude_unset=True)
    plain["log"]["impressions"]["columns"] = {**EVENT, "category": "right(item_id, 1)"}
    plain["fields"]["candidate"] = {"item_id": {}, "category": {"expression": expression}}
    with pytest.raises(LogError, match=r"fields\.candidate\.category: .* a drawn negative is another item.* field of context"):
        build_samples(spark, DataConfig.model_validate(plain | {"samples": str(folder / "borrowed")}), FIRST, FIRST)
    plain["fields"] |= {"candidate": {"item_id": {}, "last": {"expression": "right(item_id, 1)"}}, "context": {"category": {}}}
    rows = EventLogs(spark, DataConfig.model_validate(plain)).read(FIRST, FIRST)
    assert all_rows(spark, DataConfig.model_validate(plain), rows).places


def test_an_item_that_comes_at_noon_is_no_negative_of_the_morning(spark: SparkSession, tmp_path: Path) -> None:
    """Each day an item is listed at noon and bought first at one; its brand is unknown to nobody who could have bought it."""
    draw = random.Random(0)
    rows, items = [], [{"item_id": f"i{n}", "brand": f"b{n % 3}", "listed": moment(-9, 0)} for n in range(20)]
    for day in range(6):
        items.append({"item_id": f"new{day}", "brand": "b0", "listed": moment(day, 12)})
        rows += [(f"{day}-{n}", f"u{n % 10}", f"i{draw.randrange(20)}", moment(day, 10, n)) for n in range(40)]
        rows += [(f"{day}-new{n}", f"w{n}", f"new{day}", moment(day, 13, n)) for n in range(12)]
    names = ("impression_id", "user_id", "item_id", "ts")
    schema = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])
    pq.write_table(
        pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema), tmp_path / "purchases.parquet"
    )
    kinds = pa.schema([("item_id", pa.string()), ("brand", pa.string()), ("listed", TIMESTAMP)])
    pq.write_table(pa.Table.from_pylist(items, kinds), tmp_path / "items.parquet")
    last = FIRST + dt.timedelta(days=5)
    values = config(tmp_path).model_dump(mode="json", by_alias=True, exclude_unset=True)
    values["items"] = {
        "path": str(tmp_path / "items.parquet"),
        "columns": {"item_id": "item_id", "brand": "brand", "valid_from": "listed"},
    }
    values["fields"]["candidate"]["brand"] = {}
    values["splits"] = {"train": {"first": str(FIRST), "last": str(last)}}
    contract = build_samples(spark, DataConfig.model_validate(values), FIRST, last).contract
    files = [tmp_path / "samples" / file.path for day in contract.days for file in day.files]
    samples = pa.concat_tables(pq.read_table(file, partitioning=None) for file in files).to_pylist()
    unknown = Counter(row["label"] for row in samples if row["candidate_brand"] == 1)
    assert Counter(row["label"] for row in samples)[0] > 1_000
    assert unknown == {}, "known to all, positives and negatives alike"


def moment(day: int, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(FIRST, dt.time(hour, minute), dt.timezone.utc) + dt.timedelta(days=day)


@dataclass(frozen=True)
class World:
    """Some purchases, what a table of items says from when to when, and how long an item counts as alive. Times are microseconds."""

    events: list[tuple[str, str, int]]
    """User, item, time."""
    spans: dict[str, list[tuple[int, int]]]
    window: int

    @classmethod
    def generated(cls, seed: int) -> World:
        draw = random.Random(seed)
        grain = draw.choice([1, 900_000_000, HOUR])  # coarse times fall on the same moments, and on the edges of hours
        span = draw.randint(2, 60) * HOUR

        def time() -> int:
            return START + draw.randrange(span) // grain * grain

        events = [(f"u{draw.randrange(12)}", f"i{draw.randrange(25)}", time()) for _ in range(draw.randint(1, 250))]
        spans = {}
        for item in range(25):
            if draw.random() < 0.7:
                marks = sorted({time() for _ in range(draw.randint(1, 4))} | {START - HOUR})
                spans[f"i{item}"] = [span for span in itertools.pairwise(marks) if draw.random() < 0.7]
        return cls(events, spans, round(draw.choice([1, 1.3, 6, 24]) * HOUR))

    def knows(self, item: str, time: int) -> bool:
        return any(begin < time <= end for begin, end in self.spans.get(item, []))

    def pool(self, time: int) -> set[str]:
        """The rule, event by event."""
        alive = set()
        for item in {item for _, item, _ in self.events}:
            sold = [moment for _, other, moment in self.events if other == item]
            before = [moment for moment in sold if time - self.window <= moment < time]
            if before:
                hour = max(before) // HOUR
                seen = min(moment for moment in sold if moment // HOUR == hour)
                if self.knows(item, time) or not self.knows(item, seen):
                    alive.add(item)
        return alive

    def draw(self, spark: SparkSession, counts: Negatives, partitions: int = 2) -> list[Row]:
        rows = [(f"p{n}", user, item, time) for n, (user, item, time) in enumerate(self.events)]
        events = spark.createDataFrame(rows, "impression_id string, user_id string, item_id string, micros long")
        events = events.selectExpr("impression_id", "user_id", "item_id", "timestamp_micros(micros) AS time").repartition(
            partitions
        )
        spans = [(item, begin, end) for item, spans in self.spans.items() for begin, end in spans]
        known = spark.createDataFrame(spans, "item_id string, begin long, end long")
        spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
        try:
            found = draw_negatives(events, events, known, counts, START, dt.timedelta(hours=30), 0, Calendar())
            return found.selectExpr("impression_id", "user_id", "item_id", "unix_micros(time) AS time", "label").collect()
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "4")


@pytest.mark.parametrize("seed", range(3))
def test_negatives_are_of_the_pool_that_brute_force_finds(spark: SparkSession, seed: int) -> None:
    world = World.generated(seed)
    hours = world.window / HOUR
    rows = world.draw(spark, Negatives(uniform=3, popularity=2, window_hours=hours))
    assert len(rows) == 6 * len(world.events)
    for row in rows:
        if row["label"]:
            continue
        begin = row["time"] - 30 * HOUR
        had = {item for user, item, time in world.events if user == row["user_id"] and begin <= time <= row["time"]}
        allowed = world.pool(row["time"]) - had
        if row["item_id"] is not None:
            assert row["item_id"] in allowed
        else:
            assert len(allowed) < 5, "one that is missing could have been drawn"


def test_the_audit_allows_the_items_of_the_pool_and_no_other() -> None:
    for seed in range(10):
        world = World.generated(seed)
        for _, _, time in world.events[::5]:
            pool = world.pool(time)
            for item in sorted({item for _, item, _ in world.events}):
                sold = [moment for _, other, moment in world.events if other == item]
                known = functools.partial(world.knows, item)
                refused = negative_allowed(item, time, sold, [], 30 * HOUR, world.window, "UTC", known)
                assert (refused is None) == (item in pool), refused
    shown = [Shown(0, "p0", "i0", START + HOUR, "2026-03-01", 1)]
    arguments = ([START], shown, 30 * HOUR, 24 * HOUR, "UTC", lambda time: False)
    assert "the user has an event with 'i0'" in str(negative_allowed("i0", START + 2 * HOUR, *arguments))
    assert "no event with 'i1' in the 1 hours before the positive, one 2.0 hours after it" in str(
        negative_allowed("i1", START, [START + 2 * HOUR], [], HOUR, HOUR, "UTC", lambda time: False)
    )


def test_each_item_of_the_pool_has_its_chance(spark: SparkSession) -> None:
    """One item has nine events an hour, nine have one; uniform draws give each a tenth, popularity the first a half."""
    sold = [("shop", f"i{n}", START + hour * HOUR + n) for hour in range(6) for n in range(10)]
    sold += [("shop", "i0", START + hour * HOUR + 100 + n) for hour in range(6) for n in range(8)]
    asked = [(f"u{n}", f"x{n}", START + 6 * HOUR + 1_000_000 * n) for n in range(2000)]
    world = World(sold + asked, {}, 7 * HOUR)
    for counts, share in ((Negatives(uniform=1, window_hours=7), 0.1), (Negatives(popularity=1, window_hours=7), 0.5)):
        rows = [r for r in world.draw(spark, counts) if r["label"] == 0 and r["user_id"] != "shop" and r["item_id"]]
        items = Counter(row["item_id"] for row in rows if row["item_id"].startswith("i"))
        first = items["i0"] / sum(items.values())
        assert abs(first - share) < 4 * (share * (1 - share) / sum(items.values())) ** 0.5
        assert len(items) == 10


def test_draws_do_not_depend_on_how_the_log_is_cut(spark: SparkSession) -> None:
    world = World.generated(3)
    counts = Negatives(uniform=2, popularity=2, window_hours=world.window / HOUR)
    one, many = (sorted(map(str, world.draw(spark, counts, partitions))) for partitions in (1, 7))
    assert one == many


def test_an_item_lives_for_an_hour_at_least() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Negatives.model_validate({"uniform": 1, "window_hours": 0.5})


def test_at_least_one_negative_is_asked_for() -> None:
    with pytest.raises(ValueError, match="say how many"):
        Negatives.model_validate({})
