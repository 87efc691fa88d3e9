import hashlib
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mian.contract import ContractError
from mian.stream import SampleStream, StreamError

SIZES = [20, 20, 20]


def stream_of(samples, **settings):
    return SampleStream(samples.folder, samples.contract, "train", settings.pop("batch_size", 5), **settings)


def replaced(name, values):
    """A change of a table: one column gets other values."""
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


def with_file(samples, number, **changes):
    """The contract with another entry for a file."""
    days = list(samples.contract.days)
    days[number] = days[number].model_copy(update={"files": (samples.files[number].model_copy(update=changes),)})
    return type(samples)(samples.folder, samples.contract.model_copy(update={"days": tuple(days)}))


def says(*parts):
    return "(?s)" + ".*".join(re.escape(str(part)) for part in parts)


# Found before the first batch


def test_a_missing_file(write_samples):
    samples = write_samples(SIZES)
    samples.path(1).unlink()
    with pytest.raises(StreamError, match=says(samples.path(1), "no such file", "rebuild day 2026-01-02")):
        stream_of(samples)


def test_a_truncated_file(write_samples):
    samples = write_samples(SIZES)
    os.truncate(samples.path(2), samples.files[2].bytes // 2)
    with pytest.raises(StreamError, match=says(samples.path(2), "cut off or was changed", "rebuild day 2026-01-03")):
        stream_of(samples)


def test_a_file_that_is_no_parquet_though_of_the_right_size(write_samples):
    samples = write_samples(SIZES)
    samples.path(1).write_bytes(b"x" * samples.files[1].bytes)
    with pytest.raises(StreamError, match=says(samples.path(1), "not a readable Parquet file", "rebuild day 2026-01-02")):
        stream_of(samples)


def test_another_number_of_rows_than_the_contract_says(write_samples):
    samples = with_file(write_samples(SIZES), 0, rows=21)
    with pytest.raises(StreamError, match=says(samples.path(0), "20 rows, the contract says 21", "rebuild day 2026-01-01")):
        stream_of(samples)


def test_a_missing_column(write_samples):
    samples = write_samples(SIZES, changes={1: lambda table: table.drop(["user_age"])})
    with pytest.raises(StreamError, match=says(samples.path(1), "'user_age' is missing", "rebuild day 2026-01-02")):
        stream_of(samples)
    assert list(next(stream_of(samples, columns=["label"]).epoch(0))) == ["label"]


@pytest.mark.parametrize(
    ("name", "values", "found", "wanted"),
    [
        ("label", pa.array(np.zeros(20), pa.int64()), "int64", "int32"),
        ("candidate_price", pa.array(np.zeros(20), pa.float64()), "double", "float"),
        ("user_age", pa.array(["1"] * 20), "string", "int32"),
        ("behavior_item_id", pa.array(np.zeros(20), pa.int32()), "int32", "list<item: int32>"),
        ("behavior_item_id", pa.array([[1, 2, 3]] * 20, pa.list_(pa.int64())), "list<element: int64>", "list<item: int32>"),
        ("user_age", pa.array([[1]] * 20, pa.list_(pa.int32())), "list<element: int32>", "int32"),
    ],
)
def test_a_column_of_another_kind(write_samples, name, values, found, wanted):
    samples = write_samples(SIZES, changes={2: replaced(name, values)})
    message = says(samples.path(2), f"column '{name}' is {found}, the contract says {wanted}", "rebuild day 2026-01-03")
    with pytest.raises(StreamError, match=message):
        stream_of(samples)


def test_the_first_bad_file_in_the_contracts_order_is_named_on_every_rank(write_samples):
    samples = write_samples([20] * 12)
    for number in (3, 5, 11):
        samples.path(number).unlink()
    messages = set()
    for rank in range(3):
        with pytest.raises(StreamError) as caught:
            stream_of(samples, rank=rank, world_size=3)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert "day=2026-01-04" in messages.pop()


def test_fewer_rows_than_one_batch_a_rank(write_samples):
    samples = write_samples(SIZES)
    with pytest.raises(StreamError, match=says("60 rows", "batch of 31 rows on each of 2 ranks", "a smaller batch size")):
        stream_of(samples, batch_size=31, world_size=2)
    assert stream_of(samples, batch_size=31, world_size=2, drop_last=False).steps == 1


def test_no_rows_at_all(write_samples):
    with pytest.raises(StreamError, match="split 'train' has no rows"):
        stream_of(write_samples([0]), drop_last=False)


def test_an_unknown_split(write_samples):
    samples = write_samples(SIZES)
    with pytest.raises(ContractError, match="no split 'tset'"):
        SampleStream(samples.folder, samples.contract, "tset", 5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["label", "impression_id"], "'impression_id' holds strings"),
        (["user_aeg"], "no column 'user_aeg'; did you mean 'user_age'?"),
        (["label", "user_.*"], "no column 'user_.*'"),
        (["label", "label"], "'label' is asked for twice"),
        ([], "no column is asked for"),
    ],
)
def test_columns_that_cannot_be_read(write_samples, columns, message):
    with pytest.raises(StreamError, match=re.escape(message)):
        stream_of(write_samples(SIZES), columns=columns)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"workers": 0},
        {"world_size": 0},
        {"shuffle_window": 0},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"order": "random"},
        {"verify": "always"},
        {"order": "global", "resident": True},
    ],
)
def test_arguments_out_of_range(write_samples, settings):
    with pytest.raises(ValueError, match=re.escape(str(next(iter(settings.values()))))):
        stream_of(write_samples(SIZES), **settings)


@pytest.mark.parametrize("arguments", [(-1,), (0, -1), (0, 13)])
def test_epochs_and_steps_out_of_range(write_samples, arguments):
    stream = stream_of(write_samples(SIZES))
    with pytest.raises(ValueError, match=str(arguments[-1])):
        stream.epoch(*arguments)


def test_a_url_that_nothing_opens(write_samples):
    samples = write_samples(SIZES)
    with pytest.raises(StreamError, match="nosuch://bucket/samples"):
        SampleStream("nosuch://bucket/samples", samples.contract, "train", 5)


# Found while reading; each names the file, the row group and the column, and leaves no thread (conftest.py)

LISTS = [[1, 2, 3]] * 20


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("label", pa.array([None] + [1] * 19, pa.int32()), "holds a null in row 0"),
        ("candidate_price", pa.array([0.5] * 18 + [None] * 2, pa.float32()), "holds a null in row 18"),
        ("behavior_item_id", pa.array([*LISTS[1:], None], pa.list_(pa.int32())), "holds a null in row 19"),
        ("behavior_item_id", pa.array([*LISTS[1:], [1, None, 3]], pa.list_(pa.int32())), "holds a null in the list of row 19"),
        ("behavior_item_id", pa.array([[1, 2, 3, 4], [1, 2], *LISTS[2:]], pa.list_(pa.int32())), "list of 4 entries in row 0"),
        (
            "behavior_item_id",
            pa.array([[1, 2]] * 20, pa.list_(pa.int32())),
            "list of 2 entries in row 0, the contract's history has 3",
        ),
        ("behavior_price", pa.array([[]] * 20, pa.list_(pa.float32())), "list of 0 entries in row 0"),
    ],
)
def test_values_that_make_no_tensor(write_samples, name, values, message, shuffle):
    samples = write_samples(SIZES, changes={1: replaced(name, values)})
    stream = stream_of(samples, shuffle=shuffle)
    wanted = says(samples.path(1), "row group 0: column", name, message, "rebuild day 2026-01-02")
    with pytest.raises(StreamError, match=wanted):
        list(stream.epoch(0))


def test_the_row_group_that_is_bad_is_named_and_those_before_it_are_read(write_samples):
    ages = pa.array([1] * 15 + [None] * 5, pa.int32())
    samples = write_samples([20, 20], rows_per_group=4, changes={0: replaced("user_age", ages)})
    batches = stream_of(samples, shuffle=False, batch_size=4).epoch(0)
    read = [next(batches)["user_key"].tolist() for _ in range(3)]
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(StreamError, match=r"row group 3: column 'user_age' holds a null in row 3"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("row", [3, 25, 39])
def test_a_bad_piece_of_a_row_group_ends_the_epoch_and_leaves_no_thread_waiting(write_samples, row):
    ages = pa.array([1] * row + [None] * (40 - row), pa.int32())
    samples = write_samples([40] * 6, changes={2: replaced("user_age", ages)})
    stream = stream_of(samples, batch_size=10, shuffle_window=1, mixed_row_groups=6, workers=4)
    with pytest.raises(StreamError, match=f"row group 0: column 'user_age' holds a null in row {row}: rebuild day"):
        list(stream.epoch(0))


def test_a_bad_value_far_down_in_a_row_group(write_samples):
    ages = pa.array([1] * 50_000 + [None] * 5, pa.int32())
    samples = write_samples([50_005], changes={0: replaced("user_age", ages)})
    with pytest.raises(StreamError, match=r"row group 0: column 'user_age' holds a null in row 50000: rebuild day"):
        list(stream_of(samples).epoch(0))


def test_damage_inside_a_file(write_samples):
    samples = write_samples([2000] * 3)
    data = bytearray(samples.path(1).read_bytes())
    start = pq.read_metadata(samples.path(1)).row_group(0).column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40
    samples.path(1).write_bytes(bytes(data))
    with pytest.raises(StreamError, match=says(samples.path(1), "row group 0", "rebuild day 2026-01-02")):
        list(stream_of(samples).epoch(0))


def flipped(samples, number):
    """Flip one bit of a file's values, where they lie plain: the pages stay whole, a number becomes another."""
    path = samples.path(number)
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=10)
    data = bytearray(path.read_bytes())
    samples = with_file(samples, number, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    first = np.array(table.column("candidate_price").to_numpy()[:4]).tobytes()
    data[data.index(first)] ^= 1
    path.write_bytes(bytes(data))
    return samples


def test_a_flipped_bit_is_read_as_another_number_unless_files_are_verified(write_samples):
    samples = flipped(write_samples(SIZES), 1)
    read = list(stream_of(samples, shuffle=False).epoch(0))
    assert any((batch["candidate_price"] != batch["user_key"] / 2).any() for batch in read)
    wanted = says(
        samples.path(1), "row group", "SHA-256", samples.files[1].sha256, "damaged or was changed", "rebuild day 2026-01-02"
    )
    with pytest.raises(StreamError, match=wanted):
        list(stream_of(samples, verify="epoch").epoch(0))


@pytest.mark.parametrize("resident", [True, False])
def test_verified_files_are_compared_in_each_epoch_that_reads_them(write_samples, resident):
    samples = write_samples(SIZES, rows_per_group=5)
    stream = stream_of(samples, verify="epoch", resident=resident)
    unverified = stream_of(samples, resident=resident)
    for epoch in range(2):
        for batch, same in zip(stream.epoch(epoch), unverified.epoch(epoch), strict=True):
            assert torch.equal(batch["user_key"], same["user_key"])
    damaged = bytearray(samples.path(1).read_bytes())
    damaged[4:8] = bytes(byte ^ 255 for byte in damaged[4:8])
    samples.path(1).write_bytes(damaged)
    if resident:
        list(stream.epoch(2))
    else:
        with pytest.raises(StreamError, match=says(samples.path(1), "SHA-256", "rebuild day 2026-01-02")):
            list(stream.epoch(2))


def test_only_the_files_that_a_rank_reads_are_verified(write_samples):
    samples = write_samples(SIZES, rows_per_group=5)
    samples = with_file(samples, 2, sha256="0" * 64)
    first, last = (stream_of(samples, verify="epoch", shuffle=False, rank=rank, world_size=3) for rank in (0, 2))
    list(first.epoch(0))
    with pytest.raises(StreamError, match=says(samples.path(2), "SHA-256")):
        list(last.epoch(0))


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 100)])
def test_a_file_that_is_removed_or_cut_off_between_two_epochs(write_samples, damage):
    samples = write_samples(SIZES)
    stream = stream_of(samples)
    list(stream.epoch(0))
    damage(samples.path(1))
    with pytest.raises(StreamError, match=says(samples.path(1), "rebuild day 2026-01-02")):
        list(stream.epoch(1))


@pytest.mark.parametrize("rows_per_group", [5, 30])
def test_a_file_that_is_rewritten_between_two_epochs(write_samples, rows_per_group):
    samples = write_samples([40, 40], rows_per_group=10)
    stream = stream_of(samples)
    list(stream.epoch(0))
    table = pq.read_table(samples.path(1), partitioning=None)
    pq.write_table(table, samples.path(1), row_group_size=rows_per_group)
    with pytest.raises(StreamError, match=says(samples.path(1), "file was changed: rebuild day 2026-01-02")):
        list(stream.epoch(1))
