"""The rows of a chunk's impressions and clicks, with the dirt of real logs, as Arrow batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.simulate import coefficients
from pipeline.simulate.attainable import attainable_probability, held_by_samples
from pipeline.simulate.clicks import SimulatedClicks
from pipeline.simulate.memory import NO_CLICK
from pipeline.simulate.sessions import Sessions
from pipeline.simulate.streams import Stream, generator
from pipeline.simulate.users import Users
from pipeline.simulate.world import World

Ints = NDArray[np.int64]

SCHEMA = pa.schema(
    [
        ("log", pa.string()),  # impressions or clicks
        ("day", pa.date32()),  # UTC, of event_time
        ("impression_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        # the rest is null for clicks
        ("position", pa.int32()),
        ("device", pa.string()),
        ("city", pa.string()),
        ("weather", pa.string()),
        ("page", pa.string()),
        # null also for the second row of a duplicated impression
        ("probability", pa.float64()),
        ("attainable", pa.float64()),
        ("label", pa.int32()),
    ]
)

_SESSIONS_A_BATCH = 8_000
_FIRST_ORPHAN = 1 << 40  # numbers of orphans' impressions; the world has none so high


def batches(
    world: World, chunk: int, users: Users, sessions: Sessions, simulated_clicks: SimulatedClicks
) -> Iterator[pa.RecordBatch]:
    """The rows of a chunk's sessions. Clicks after the day that follows the last one are not in the log."""
    rng = generator(world.config.seed, Stream.DIRT, chunk)
    happened = np.arange(coefficients.SLATE) < sessions.shown[:, None]
    twice_shown = happened & (rng.random(happened.shape) < coefficients.DUPLICATE_IMPRESSION_SHARE)
    log_end_us = world.end_us + coefficients.DAY_US
    clicked = (simulated_clicks.click_us != NO_CLICK) & (simulated_clicks.click_us < log_end_us)
    orphaned = (simulated_clicks.orphan_us != NO_CLICK) & (simulated_clicks.orphan_us < log_end_us)
    twice_clicked = clicked & (rng.random(happened.shape) < coefficients.DUPLICATE_CLICK_SHARE)

    number = sessions.first_impression[:, None] + np.arange(coefficients.SLATE)
    rows = _Rows(world, users, sessions, simulated_clicks)
    for start in range(0, len(happened), _SESSIONS_A_BATCH):
        part = slice(start, start + _SESSIONS_A_BATCH)
        yield rows.impressions(*_cells(happened, part), number, first=True)
        yield rows.impressions(*_cells(twice_shown, part), number, first=False)
        for cells in (clicked, twice_clicked):
            yield rows.clicks(*_cells(cells, part), number, simulated_clicks.item, simulated_clicks.click_us)
        yield rows.clicks(
            *_cells(orphaned, part), number + _FIRST_ORPHAN, simulated_clicks.orphan_item, simulated_clicks.orphan_us
        )


class _Rows:
    def __init__(self, world: World, users: Users, sessions: Sessions, simulated_clicks: SimulatedClicks) -> None:
        self.sessions, self.simulated_clicks = sessions, simulated_clicks
        self.attainable = attainable_probability(world, held_by_samples(world, users, sessions, simulated_clicks))
        self.user_ids, self.item_ids = users.ids(), world.items.ids()
        self.key = np.random.SeedSequence(world.config.seed).generate_state(1, np.uint64)[0]

    def impressions(self, session: Ints, slot: Ints, number: Ints, *, first: bool) -> pa.RecordBatch:
        sessions, simulated_clicks = self.sessions, self.simulated_clicks
        columns = self._common(
            "impressions", session, number[session, slot], simulated_clicks.item[session, slot], sessions.time_us[session]
        )
        columns["position"] = pa.array(slot + 1, pa.int32())
        for name, values, names in (
            ("device", sessions.device, coefficients.DEVICES),
            ("city", sessions.city, coefficients.CITIES),
            ("weather", sessions.weather, coefficients.WEATHER),
            ("page", sessions.page, coefficients.PAGES),
        ):
            columns[name] = pa.array(list(names)).take(pa.array(values[session]))
        if first:
            click_us = simulated_clicks.click_us[session, slot]
            window_us = int(coefficients.ATTRIBUTION_HOURS * coefficients.HOUR_US)
            in_time = (click_us != NO_CLICK) & (click_us - sessions.time_us[session] <= window_us)
            columns["probability"] = pa.array(simulated_clicks.probability[session, slot])
            columns["attainable"] = pa.array(self.attainable[session, slot])
            columns["label"] = pa.array(in_time.astype(np.int32))
        return _batch(columns, len(session))

    def clicks(self, session: Ints, slot: Ints, number: Ints, item: Ints, click_us: Ints) -> pa.RecordBatch:
        columns = self._common("clicks", session, number[session, slot], item[session, slot], click_us[session, slot])
        return _batch(columns, len(session))

    def _common(self, log: str, session: Ints, number: Ints, item: Ints, time_us: Ints) -> dict[str, pa.Array]:
        return {
            "log": pa.array(np.full(len(session), log), pa.string()),
            "day": pa.array((time_us // coefficients.DAY_US).astype(np.int32)).cast(pa.date32()),
            "impression_id": opaque_ids(number, self.key),
            "user_id": self.user_ids.take(pa.array(self.sessions.user[session])),
            "item_id": self.item_ids.take(pa.array(item)),
            "event_time": pa.array(time_us, pa.timestamp("us", tz="UTC")),
        }


def opaque_ids(number: Ints, key: np.uint64) -> pa.Array:
    """16 hexadecimal digits for each number; different numbers give different ids (SplitMix64's finalizer is a bijection)."""
    z = number.astype(np.uint64) ^ key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    digits = z.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 16 * len(z) + 1, 16, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(z), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(digits)])


def _cells(happened: NDArray[np.bool_], part: slice) -> tuple[Ints, Ints]:
    session, slot = np.nonzero(happened[part])
    return session + part.start, slot


def _batch(columns: dict[str, pa.Array], rows: int) -> pa.RecordBatch:
    missing = {field.name: pa.nulls(rows, field.type) for field in SCHEMA if field.name not in columns}
    both = columns | missing
    return pa.RecordBatch.from_arrays([both[name] for name in SCHEMA.names], schema=SCHEMA)
