"""Arrays of integers, and the numbers that stand for values in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]


BoolArray = npt.NDArray[np.bool_]


def codes(values: pa.ChunkedArray | pa.Array) -> tuple[IntArray, pa.Array]:
    """Numbers for values, equal for equal ones, -1 for null; and the value of each number."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def ranks(numbers: IntArray, values: pa.Array) -> IntArray:
    """The numbers of :func:`codes` replaced so that they are in the order of their values; null first."""
    used, place = np.unique(numbers, return_inverse=True)
    known = used[used >= 0]
    order = pc.sort_indices(values.take(pa.array(known))).to_numpy()
    rank = np.full(len(used), -1, np.int64)
    rank[len(used) - len(known) + order.astype(np.int64)] = np.arange(len(known))
    ranked: IntArray = rank[place.reshape(-1)]
    return ranked


def pairs(first: IntArray, second: IntArray) -> IntArray:
    """One number for each pair of numbers of :func:`codes`, equal for equal pairs, not negative."""
    return (first + 1) * (int(second.max(initial=0)) + 2) + second + 1


def firsts(keys: IntArray, *order: IntArray) -> BoolArray:
    """Of the rows of each key the one that comes first in an order, the most important part of it first; shape ``(N,)``."""
    if len(np.unique(keys)) == len(keys):
        return np.ones(len(keys), np.bool_)
    places = np.lexsort((*reversed(order), keys))
    sorted_keys = keys[places]
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    kept = np.zeros(len(keys), np.bool_)
    kept[places[is_first]] = True
    return kept
