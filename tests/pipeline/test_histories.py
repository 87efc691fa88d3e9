from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.histories import find_histories, padded_lists, raw_lists

MICROS = 1_000_000
event = st.tuples(st.sampled_from(["u", "v", "w"]), st.integers(0, 12), st.sampled_from(["a", "b"]), st.sampled_from(["p", "q"]))


def tables(shown: list[tuple[str, int]], clicked: list[tuple[str, int, str, str]]) -> tuple[pa.Table, pa.Table]:
    impressions = pa.table(
        {
            "user_id": pa.array([u for u, _ in shown], pa.string()),
            "time": pa.array([t * MICROS for _, t in shown], pa.int64()),
        }
    )
    behaviors = pa.table(
        {
            "user_id": pa.array([c[0] for c in clicked], pa.string()),
            "time": pa.array([c[1] * MICROS for c in clicked], pa.int64()),
            "item_id": pa.array([c[2] for c in clicked], pa.string()),
            "impression_id": pa.array([c[3] for c in clicked], pa.string()),
        }
    )
    return impressions, behaviors


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["u", "v", "x"]), st.integers(0, 12)), max_size=12),
    st.lists(event, max_size=20, unique=True),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_histories_equal_a_loop(
    shown: list[tuple[str, int]], clicked: list[tuple[str, int, str, str]], length: int, window: int
) -> None:
    impressions, behaviors = tables(shown, clicked)
    histories = find_histories(impressions, behaviors, length, dt.timedelta(seconds=window))
    found = raw_lists(behaviors.column("item_id").combine_chunks(), histories).to_pylist()
    expected = [
        [
            c[2]
            for c in sorted(
                (c for c in clicked if c[0] == user and time - window <= c[1] < time), key=lambda c: c[1:], reverse=True
            )
        ]
        for user, time in shown
    ]
    assert found == [items[:length] for items in expected]
    places, real = histories.padded(length)
    assert real.sum(axis=1).tolist() == [len(items) for items in found]
    ids = np.arange(len(clicked), dtype=np.int32) + 2
    assert all(len(row) == length for row in padded_lists(ids, real, places).to_pylist())


def test_padding_stands_behind_the_oldest_behavior() -> None:
    impressions, behaviors = tables([("u", 5)], [("u", 1, "a", "p"), ("u", 3, "b", "q")])
    places, real = find_histories(impressions, behaviors, 4, dt.timedelta(days=1)).padded(4)
    assert padded_lists(np.array([7, 8], np.int32), real, places).to_pylist() == [[8, 7, 0, 0]]
