"""The behaviors before each impression: an as-of join in NumPy, one pass over partitions by user.

Users share partitions and a partition is worked on whole, so that a user with a tenth of all clicks costs no more than the same
clicks of many users; a window function or a self-join would be quadratic in the heavy user.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]

DAY_MICROSECONDS = 86_400 * 1_000_000


@dataclass(frozen=True)
class Histories:
    """For each impression its behaviors, as positions in the table of behaviors.

    ``order`` sorts the behaviors by user and time; impression ``i`` has those at ``order[low[i]:high[i]]``, the last the most recent.
    All of shape ``(impressions,)``, but ``order``: ``(behaviors,)``.
    """

    order: IntArray
    low: IntArray
    high: IntArray

    def padded(self, length: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Positions of the behaviors, the most recent first, shape ``(impressions, length)``, and which of them are real."""
        places = self.high[:, None] - 1 - np.arange(length)[None, :]
        real = places >= self.low[:, None]
        if len(self.order) == 0:
            return np.zeros_like(places), np.zeros_like(real)
        return self.order[np.where(real, places, 0)], real


def find_histories(impressions: pa.Table, behaviors: pa.Table, length: int, window: dt.timedelta) -> Histories:
    """Find the behaviors of each impression: same user, ``impression time - window <= time < impression time``, the last ``length``.

    Ties in time are ordered by item id, then by impression id.

    Args:
        impressions: columns ``user_id`` (string), ``time`` (int64, microseconds).
        behaviors: columns ``user_id``, ``time``, ``item_id``, ``impression_id``.
        length: how many behaviors to keep.
        window: how far back they reach.
    """
    users = pa.chunked_array(impressions.column("user_id").chunks + behaviors.column("user_id").chunks, pa.string())
    codes: IntArray = users.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    impression_users, behavior_users = codes[: impressions.num_rows], codes[impressions.num_rows :]
    keys = behaviors.select(["time", "item_id", "impression_id"]).append_column("user", pa.array(behavior_users))
    by = [("user", "ascending"), ("time", "ascending"), ("item_id", "ascending"), ("impression_id", "ascending")]
    order: IntArray = pc.sort_indices(keys, sort_keys=by).to_numpy().astype(np.int64)

    # user and time in one sortable number: times become ranks, so that it cannot overflow
    times = behaviors.column("time").to_numpy()
    distinct = np.unique(times)
    span = len(distinct) + 1
    behavior_keys = (behavior_users * span + np.searchsorted(distinct, times))[order]
    now = impressions.column("time").to_numpy()
    start = now - round(window.total_seconds() * 1_000_000)
    high = np.searchsorted(behavior_keys, impression_users * span + np.searchsorted(distinct, now))
    low = np.searchsorted(behavior_keys, impression_users * span + np.searchsorted(distinct, start))
    return Histories(order, np.maximum(low, high - length), high)


def padded_lists(values: npt.NDArray[Any], real: npt.NDArray[np.bool_], places: IntArray) -> pa.ListArray:
    """Gather encoded behaviors into a list column of equal lengths, 0 where there is none.

    Args:
        values: encoded values of all behaviors, shape ``(behaviors,)``.
        real: which places hold a behavior, shape ``(impressions, length)``.
        places: positions of behaviors, same shape.
    """
    rows, length = places.shape
    gathered = values[places] if len(values) else np.zeros(places.shape, values.dtype)
    flat = np.where(real, gathered, values.dtype.type(0)).reshape(-1)
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(length)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def raw_lists(values: pa.Array, histories: Histories) -> pa.ListArray:
    """Gather raw behaviors into lists of their own lengths, the most recent first."""
    lengths = histories.high - histories.low
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1].astype(np.int64), lengths)
    places = histories.order[np.repeat(histories.high, lengths) - 1 - within]
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(places)))
