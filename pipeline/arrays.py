"""Arrays of integers, and codes: integers that stand for the values of a column."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def codes(values: pa.ChunkedArray | pa.Array) -> tuple[IntArray, pa.Array]:
    """Replace values by codes; equal values have the same code.

    Args:
        values: N values of a type that Arrow can dictionary-encode, such as text.

    Returns:
        The codes, int64 ``(N,)``, from 0, and -1 for null. The value of each code, in the order of the codes.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def ranks(numbers: IntArray, values: pa.Array) -> IntArray:
    """Renumber codes in the ascending order of their values.

    Args:
        numbers: Codes of :func:`codes`, int64 ``(N,)``.
        values: The value of each code, of a type that Arrow can sort.

    Returns:
        The place of each value among the distinct values that occur, int64 ``(N,)``, from 0. Null keeps -1, so it comes first.
    """
    used, place = np.unique(numbers, return_inverse=True)
    known = used[used >= 0]
    order = pc.sort_indices(values.take(pa.array(known))).to_numpy()
    rank = np.full(len(used), -1, np.int64)
    rank[len(used) - len(known) + order.astype(np.int64)] = np.arange(len(known))
    ranked: IntArray = rank[place.reshape(-1)]
    return ranked


def pairs(first: IntArray, second: IntArray) -> IntArray:
    """Combine two arrays of codes into one; two rows have the same number if both of their codes are the same.

    The numbers of two calls cannot be compared.

    Args:
        first: int64 ``(N,)``, not less than -1.
        second: int64 ``(N,)``, not less than -1. ``(first.max() + 2) * (second.max() + 2)`` has to be less than 2^63; larger
            products overflow without an error.

    Returns:
        int64 ``(N,)``, not negative.
    """
    return (first + 1) * (int(second.max(initial=0)) + 2) + second + 1


def firsts(keys: IntArray, *order: IntArray) -> BoolArray:
    """Mark one row of each key: the first one in ascending order.

    Args:
        keys: int64 ``(N,)``.
        order: What the rows of a key are sorted by, the most important array first, each int64 ``(N,)``. Of rows that are equal in
            all of them, the one with the lowest position is the first.

    Returns:
        bool ``(N,)``; true for exactly one row of each key.
    """
    if len(np.unique(keys)) == len(keys):
        return np.ones(len(keys), np.bool_)
    places = np.lexsort((*reversed(order), keys))
    sorted_keys = keys[places]
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    kept = np.zeros(len(keys), np.bool_)
    kept[places[is_first]] = True
    return kept
