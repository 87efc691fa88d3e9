import numpy as np
import pyarrow as pa
import pytest
import torch

from mian.stream.columns import Column
from mian.stream.row_groups import column_to_tensor

IDS = Column("behavior_item_id", torch.int32, length=3)
PRICE = Column("candidate_price", torch.float32)


def lists(values):
    return pa.array(values, pa.list_(pa.int32()))


def test_lists_become_a_matrix():
    tensor = column_to_tensor(pa.chunked_array([lists([[1, 2, 3], [4, 5, 6]])]), IDS)
    assert tensor.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensor.dtype == torch.int32


@pytest.mark.parametrize("column", [IDS, PRICE])
def test_a_column_of_no_rows(column):
    tensor = column_to_tensor(pa.chunked_array([pa.array([], column.arrow_type)]), column)
    assert tensor.shape == ((0, 3) if column.length else (0,))
    assert tensor.dtype == column.dtype


def test_several_chunks_and_slices():
    whole = lists([[row, row, row] for row in range(10)])
    tensor = column_to_tensor(pa.chunked_array([whole.slice(2, 3), whole.slice(7, 2)]), IDS)
    assert tensor[:, 0].tolist() == [2, 3, 4, 7, 8]
    assert column_to_tensor(pa.chunked_array([whole.slice(4, 2)]), IDS).tolist() == [[4, 4, 4], [5, 5, 5]]
    prices = pa.array(np.arange(6), pa.float32()).slice(2)
    assert column_to_tensor(pa.chunked_array([prices]), PRICE).tolist() == [2, 3, 4, 5]


def test_writing_to_the_tensor_of_a_read_only_buffer_does_not_change_the_column():
    values = np.arange(4, dtype=np.float32)
    values.flags.writeable = False
    array = pa.array(values)
    tensor = column_to_tensor(pa.chunked_array([array]), PRICE)
    tensor += 1
    assert values.tolist() == [0, 1, 2, 3]
