import numpy as np
import pyarrow as pa
import pytest
import torch

from mian.stream import StreamError
from mian.stream.row_groups import column_values
from mian.stream.schema import Column

IDS = Column("behavior_item_id", torch.int32, length=3)
PRICE = Column("candidate_price", torch.float32)


def lists(values):
    return pa.array(values, pa.list_(pa.int32()))


def test_lists_become_a_matrix():
    values = column_values(lists([[1, 2, 3], [4, 5, 6]]), IDS)
    assert values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert values.dtype == np.int32


@pytest.mark.parametrize("column", [IDS, PRICE])
def test_a_column_of_no_rows(column):
    values = column_values(pa.array([], column.arrow_type), column)
    assert values.shape == ((0, 3) if column.length else (0,))


def test_slices():
    whole = lists([[row, row, row] for row in range(10)])
    assert column_values(whole.slice(4, 2), IDS).tolist() == [[4, 4, 4], [5, 5, 5]]
    prices = pa.array(np.arange(6), pa.float32()).slice(2)
    assert column_values(prices, PRICE).tolist() == [2, 3, 4, 5]


def test_values_are_not_copied():
    prices = np.arange(6, dtype=np.float32)
    assert np.shares_memory(column_values(pa.array(prices), PRICE), prices)


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        (pa.array([1.0, None], pa.float32()), PRICE, "holds a null in row 101"),
        (lists([[1, 2, 3], None]), IDS, "holds a null in row 101"),
        (lists([[1, 2, 3], [1, 2, 3], [None, 2, 3]]).slice(1), IDS, "holds a null in the list of row 101"),
        (lists([[1, 2, 3], [1, 2]]), IDS, "holds a list of 2 entries in row 101, the contract's history has 3"),
    ],
)
def test_an_error_counts_rows_from_the_row_groups_begin(values, column, message):
    with pytest.raises(StreamError, match=message):
        column_values(values, column, first=100)
