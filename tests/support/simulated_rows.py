"""The rows of simulated worlds without Spark, chunk by chunk."""

from __future__ import annotations

import datetime as dt
import hashlib

import numpy as np
import pyarrow as pa

from pipeline.config.simulation import SimulateConfig
from pipeline.simulate.clicks import simulate_clicks
from pipeline.simulate.log_rows import batches
from pipeline.simulate.sessions import draw_sessions
from pipeline.simulate.users import draw_users, snapshots
from pipeline.simulate.world import world_of

GOLDEN = SimulateConfig(
    output="unused", impressions=6_000, users=700, first_day=dt.date(2025, 12, 20), last_day=dt.date(2026, 1, 23)
)
"""A world of two chunks, whose fingerprint ``tests/golden/recorded.json`` has."""


def simulated_events(config: SimulateConfig) -> pa.Table:
    """Impressions and clicks, in the columns of ``pipeline.simulate.log_rows.SCHEMA``, in the order in which they are simulated."""
    world = world_of(config)
    rows: list[pa.RecordBatch] = []
    for chunk in range(world.chunks):
        users = draw_users(world, chunk)
        sessions = draw_sessions(world, chunk, users)
        rows += batches(world, chunk, users, sessions, simulate_clicks(world, chunk, users, sessions))
    return pa.Table.from_batches(rows)


def world_fingerprint(config: SimulateConfig) -> str:
    """SHA-256 of all rows of all logs; probabilities count to the ninth digit, as processors differ in the last ones."""
    world = world_of(config)
    profiles = [batch for chunk in range(world.chunks) for batch in snapshots(world, draw_users(world, chunk))]
    digest = hashlib.sha256(str(world.items.table().to_pylist()).encode())
    for table in (pa.Table.from_batches(profiles), simulated_events(config)):
        for name in table.column_names:
            values = table[name].to_pylist()
            if pa.types.is_floating(table[name].type):
                values = np.round(table[name].to_numpy(), 9).tolist()
            digest.update(str(values).encode())
    return digest.hexdigest()
