from contextlib import closing
from itertools import islice

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mian.stream import EpochSegment, SampleStream
from tests.support.streams import batches_of, numbers, ranks_of

UNEVEN = [23, 8, 41, 5, 17, 30, 1]
DEFAULT_COLUMNS = [
    "candidate_item_id",
    "candidate_price",
    "behavior_item_id",
    "behavior_price",
    "user_age",
    "behavior_length",
    "label",
    "user_key",
    "time",
]


@pytest.mark.parametrize("order", ["sharded", "global"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_row_once_an_epoch_but_for_the_counted_tail(write_samples, world_size, order):
    samples = write_samples(UNEVEN)
    left_over = set()
    for epoch in range(3):
        seen = []
        for rank in range(world_size):
            stream = SampleStream(
                samples.folder, samples.contract, "train", 4, rank=rank, world_size=world_size, seed=9, order=order
            )
            batches = list(stream.epoch(epoch))
            assert len(batches) == stream.steps == 125 // (4 * world_size)
            assert all(len(tensor) == 4 for batch in batches for tensor in batch.values())
            seen += numbers(batches)
        assert stream.rows == sum(UNEVEN) == 125
        assert stream.rows_left_over == 125 - len(seen) == 125 % (4 * world_size)
        assert len(set(seen)) == len(seen)
        left_over.add(frozenset(range(125)) - set(seen))
    assert len(left_over) == 3


@pytest.mark.parametrize("order", ["sharded", "global"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_row_once_without_drop_last(write_samples, world_size, shuffle, order):
    samples = write_samples(UNEVEN)
    seen = []
    for rank in range(world_size):
        stream = SampleStream(
            samples.folder,
            samples.contract,
            "train",
            4,
            rank=rank,
            world_size=world_size,
            shuffle=shuffle,
            drop_last=False,
            order=order,
        )
        batches = list(stream.epoch(0))
        assert len(batches) == stream.steps
        assert stream.rows_left_over == 0
        seen += numbers(batches)
    assert sorted(seen) == list(range(125))


def test_several_row_groups_a_file_and_batches_over_several_groups(write_samples):
    samples = write_samples(UNEVEN, rows_per_group=7)
    stream = SampleStream(samples.folder, samples.contract, "train", 50, drop_last=False)
    assert [len(batch["label"]) for batch in stream.epoch(0)] == [50, 50, 25]
    assert sorted(numbers(stream.epoch(0))) == list(range(125))


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"resident": True}])
def test_row_groups_of_many_rows(write_samples, settings):
    samples = write_samples([60_000, 17_000])
    seen = []
    for rank in range(2):
        stream = SampleStream(
            samples.folder, samples.contract, "train", 5000, rank=rank, world_size=2, drop_last=False, **settings
        )
        for batch in stream.epoch(1):
            seen += batch["user_key"].tolist()
            assert torch.equal(batch["behavior_item_id"], (batch["user_key"][:, None] * 10 + torch.arange(3)).int())
    assert len(seen) == 77_000
    assert set(seen) == set(range(77_000))
    assert (seen == sorted(seen)) == ("shuffle" in settings)


def test_without_shuffling_rows_come_as_they_lie_in_the_files(write_samples):
    samples = write_samples(UNEVEN, rows_per_group=10)
    stream = SampleStream(samples.folder, samples.contract, "train", 8, shuffle=False, drop_last=False)
    assert numbers(stream.epoch(0)) == numbers(stream.epoch(1)) == list(range(125))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_columns_of_a_row_stay_together(write_samples, shuffle):
    samples = write_samples(UNEVEN)
    stream = SampleStream(samples.folder, samples.contract, "train", 6, shuffle=shuffle)
    for batch in stream.epoch(0):
        number = batch["user_key"]
        behaviors = number[:, None] * 10 + torch.arange(3)
        torch.testing.assert_close(batch["candidate_item_id"], (number * 2).int())
        torch.testing.assert_close(batch["candidate_price"], number / 2)
        torch.testing.assert_close(batch["behavior_item_id"], behaviors.int())
        torch.testing.assert_close(batch["behavior_price"], behaviors / 2)
        torch.testing.assert_close(batch["behavior_length"], (number % 4).int())
        torch.testing.assert_close(batch["label"], (number % 2).int())
        torch.testing.assert_close(batch["time"], number * 1_000_000)


def test_tensors_have_the_contracts_kinds_and_shapes(write_samples):
    samples = write_samples(UNEVEN)
    batch = next(SampleStream(samples.folder, samples.contract, "train", 6).epoch(0))
    assert list(batch) == DEFAULT_COLUMNS
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        **dict.fromkeys(DEFAULT_COLUMNS, torch.int32),
        **dict.fromkeys(["candidate_price", "behavior_price"], torch.float32),
        **dict.fromkeys(["user_key", "time"], torch.int64),
    }
    assert {name: tensor.shape for name, tensor in batch.items()} == {
        name: (6, 3) if name in ("behavior_item_id", "behavior_price") else (6,) for name in DEFAULT_COLUMNS
    }


def test_only_the_columns_asked_for_in_that_order(write_samples):
    samples = write_samples(UNEVEN)
    stream = SampleStream(samples.folder, samples.contract, "train", 6, columns=["label", "behavior_item_id", "user_key"])
    assert list(next(stream.epoch(0))) == ["label", "behavior_item_id", "user_key"]
    whole = SampleStream(samples.folder, samples.contract, "train", 6)
    assert numbers(stream.epoch(4)) == numbers(whole.epoch(4))


@pytest.mark.parametrize("order", ["sharded", "global"])
def test_the_same_seed_gives_the_same_batches_whatever_the_workers(write_samples, order):
    samples = write_samples(UNEVEN, rows_per_group=9)
    one, four, again = (
        SampleStream(samples.folder, samples.contract, "train", 7, rank=1, world_size=2, seed=3, order=order, workers=workers)
        for workers in (1, 4, 4)
    )
    for epoch in range(2):
        assert batches_of(one, epoch) == batches_of(four, epoch) == batches_of(again, epoch)


def test_another_seed_or_epoch_gives_another_order_of_groups_and_of_rows(write_samples):
    samples = write_samples([40, 40, 40, 40])
    orders = []
    for seed in (0, 1):
        stream = SampleStream(samples.folder, samples.contract, "train", 10, seed=seed)
        orders += [numbers(stream.epoch(epoch)) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    within = [tuple(number for number in order if number < 40) for order in orders]
    assert len(set(within)) == 4


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_in_global_order_the_ranks_batches_make_up_those_of_a_single_rank(write_samples, world_size, drop_last):
    samples = write_samples(UNEVEN)
    alone = SampleStream(samples.folder, samples.contract, "train", 4 * world_size, seed=5, drop_last=drop_last)
    ranks = [
        SampleStream(
            samples.folder,
            samples.contract,
            "train",
            4,
            rank=rank,
            world_size=world_size,
            seed=5,
            drop_last=drop_last,
            order="global",
        )
        for rank in range(world_size)
    ]
    together = [list(rank.epoch(2)) for rank in ranks]
    for step, batch in enumerate(alone.epoch(2)):
        for name, tensor in batch.items():
            parts = [steps[step][name] for steps in together if step < len(steps)]
            assert torch.equal(torch.cat(parts), tensor)
    assert step + 1 == alone.steps == max(rank.steps for rank in ranks)


def test_the_order_does_not_depend_on_where_the_samples_lie(write_samples, tmp_path):
    samples = write_samples(UNEVEN)
    before = batches_of(SampleStream(samples.folder, samples.contract, "train", 6))
    moved = (tmp_path / "samples with a # and a ? in their path").rename(tmp_path / "moved")
    assert batches_of(SampleStream(str(moved) + "/", samples.contract, "train", 6)) == before
    assert batches_of(SampleStream(f"file://{moved}", samples.contract, "train", 6)) == before


def test_samples_on_a_remote_filesystem(write_samples):
    samples = write_samples(UNEVEN)
    remote = fsspec.filesystem("memory")
    remote.put(samples.folder, "/bucket/samples", recursive=True)
    try:
        there = SampleStream("memory://bucket/samples", samples.contract, "train", 6)
        here = SampleStream(samples.folder, samples.contract, "train", 6)
        assert batches_of(there, 1) == batches_of(here, 1)
    finally:
        remote.rm("/bucket", recursive=True)


def test_files_that_the_contract_does_not_name_are_not_read(write_samples):
    samples = write_samples(UNEVEN)
    folder = samples.path(0).parent
    (folder / "part-99999.parquet").write_bytes(samples.path(1).read_bytes())
    (folder / "half-written").write_bytes(b"PAR1")
    stream = SampleStream(samples.folder, samples.contract, "train", 6, drop_last=False)
    assert sorted(numbers(stream.epoch(0))) == list(range(125))


def test_only_the_days_of_the_split_are_read(write_samples):
    samples = write_samples([20, 20, 20])
    days = samples.contract.days
    split = samples.contract.splits["train"].model_copy(update={"first": days[1].day, "last": days[1].day})
    contract = samples.contract.model_copy(update={"splits": {"middle": split}})
    stream = SampleStream(samples.folder, contract, "middle", 6, drop_last=False)
    assert stream.rows == 20
    assert sorted(numbers(stream.epoch(0))) == list(range(20, 40))


def test_a_file_without_rows_is_passed_over(write_samples):
    samples = write_samples([20, 0, 20])
    stream = SampleStream(samples.folder, samples.contract, "train", 6, drop_last=False)
    assert sorted(numbers(stream.epoch(0))) == list(range(40))


@pytest.mark.parametrize("order", ["sharded", "global"])
def test_an_epoch_goes_on_where_it_was_stopped(write_samples, order):
    samples = write_samples(UNEVEN)
    stream = SampleStream(samples.folder, samples.contract, "train", 4, rank=1, world_size=2, order=order)
    whole = batches_of(stream, 3)
    for first_step in (1, 7, stream.steps):
        rest = [{name: tensor.tolist() for name, tensor in batch.items()} for batch in stream.epoch(3, first_step)]
        assert rest == whole[first_step:]


def test_an_epoch_left_half_way_can_be_read_again(write_samples):
    samples = write_samples([10] * 20)
    stream = SampleStream(samples.folder, samples.contract, "train", 5)
    for _ in islice(stream.epoch(0), 3):
        pass
    for _ in stream.epoch(0):
        break
    with closing(stream.epoch(0)) as batches:
        first = next(batches)["user_key"].tolist()
    assert next(stream.epoch(0))["user_key"].tolist() == first  # no thread stays: see conftest.py


def test_an_epoch_that_is_never_begun_opens_nothing(write_samples):
    samples = write_samples([10])
    batches = SampleStream(samples.folder, samples.contract, "train", 5).epoch(0)
    samples.path(0).unlink()
    batches.close()


def test_a_batch_inside_a_window_is_a_view_of_it(write_samples):
    samples = write_samples([20, 20])
    stream = SampleStream(samples.folder, samples.contract, "train", 5)
    first, second = islice(stream.epoch(0), 2)
    for name in first:
        assert first[name].untyped_storage().data_ptr() == second[name].untyped_storage().data_ptr()


# Windows of several row groups


def test_rows_of_a_windows_groups_mix(write_samples):
    samples = write_samples([50] * 8)
    stream = SampleStream(samples.folder, samples.contract, "train", 100, shuffle_window=4, mixed_row_groups=4)
    for batch in stream.epoch(0):
        counts = torch.bincount(batch["user_key"] // 50, minlength=8)
        assert (counts > 0).sum() == 4  # each of the window's groups gives 25 of 100 on average
        assert counts.max() < 50


def test_a_window_of_one_group_keeps_groups_apart(write_samples):
    samples = write_samples([50] * 8)
    stream = SampleStream(samples.folder, samples.contract, "train", 50, shuffle_window=1, mixed_row_groups=1)
    files = [set((batch["user_key"] // 50).tolist()) for batch in stream.epoch(0)]
    assert all(len(batch_files) == 1 for batch_files in files)
    assert set.union(*files) == set(range(8))
    assert files != sorted(files, key=min)
    assert any(number != sorted(number) for number in (batch["user_key"].tolist() for batch in stream.epoch(0)))


def test_a_window_mixes_pieces_of_many_groups(write_samples):
    samples = write_samples([160] * 8)
    stream = SampleStream(samples.folder, samples.contract, "train", 160, shuffle_window=2, mixed_row_groups=8)
    for epoch in range(2):
        for batch in stream.epoch(epoch):
            counts = torch.bincount(batch["user_key"] // 160, minlength=8)
            assert counts.min() > 5, "20 are expected, and 4 is the deviation"


def test_each_row_group_is_decoded_once_however_many_windows_have_a_piece_of_it(write_samples, monkeypatch):
    decoded, decode = [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *a, **how: (decoded.append(how["row_groups"]), decode(*a, **how))[1]
    )
    samples = write_samples([40] * 6)
    stream = SampleStream(samples.folder, samples.contract, "train", 10, shuffle_window=1, mixed_row_groups=6, workers=3)
    assert len(numbers(stream.epoch(0))) == 240
    assert len(decoded) == 6


def test_a_window_of_all_groups_puts_every_row_anywhere(write_samples):
    samples = write_samples([100] * 5)
    stream = SampleStream(samples.folder, samples.contract, "train", 100, shuffle_window=5)
    for epoch in range(2):
        for batch in stream.epoch(epoch):
            counts = torch.bincount(batch["user_key"] // 100, minlength=5)
            assert counts.min() > 5, "20 are expected, and 4 is the deviation"


streams = {
    "sizes": st.lists(st.integers(1, 20), min_size=1, max_size=8),
    "rows_per_group": st.integers(1, 12),
    "batch_size": st.integers(1, 9),
    "world_size": st.integers(1, 4),
    "order": st.sampled_from(["sharded", "global", "resident"]),
    "shuffle_window": st.integers(1, 7),
    "mixed_row_groups": st.integers(1, 9),
    "epoch": st.integers(0, 2),
}
any_stream = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_stream
@given(**streams)
def test_any_files_ranks_and_windows_use_every_row_once(
    write_samples, sizes, rows_per_group, batch_size, world_size, order, shuffle_window, mixed_row_groups, epoch
):
    samples = write_samples(sizes, rows_per_group)
    ranks = ranks_of(
        samples, world_size, batch_size, order, shuffle_window=shuffle_window, mixed_row_groups=mixed_row_groups, drop_last=False
    )
    seen = []
    for rank in ranks:
        for batch in rank.epoch(epoch):
            seen += batch["user_key"].tolist()
            assert torch.equal(batch["behavior_item_id"], (batch["user_key"][:, None] * 10 + torch.arange(3)).int())
    assert sorted(seen) == list(range(sum(sizes)))


@any_stream
@given(**streams, workers=st.integers(1, 5), part=st.floats(0, 1), seed=st.integers(0, 3))
def test_from_any_step_on_come_the_batches_of_the_undisturbed_epoch_whatever_the_threads(
    write_samples,
    sizes,
    rows_per_group,
    batch_size,
    world_size,
    order,
    shuffle_window,
    mixed_row_groups,
    epoch,
    workers,
    part,
    seed,
):
    samples = write_samples(sizes, rows_per_group)
    assume(sum(sizes) >= batch_size * world_size)
    one, many = (
        ranks_of(
            samples,
            world_size,
            batch_size,
            order,
            shuffle_window=shuffle_window,
            mixed_row_groups=mixed_row_groups,
            seed=seed,
            workers=threads,
        )[-1]
        for threads in (2, workers)
    )
    first_step = int(part * one.steps)
    whole = batches_of(one, epoch)
    assert len(whole) == one.steps
    assert batches_of(many, epoch, first_step) == whole[first_step:]


@any_stream
@given(
    **{name: strategy for name, strategy in streams.items() if name not in ("batch_size", "world_size")},
    worlds=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.floats(0, 1)), min_size=2, max_size=3),
)
def test_other_numbers_of_ranks_use_each_row_that_was_left_once(
    write_samples, sizes, rows_per_group, order, shuffle_window, mixed_row_groups, epoch, worlds
):
    samples = write_samples(sizes, rows_per_group)
    assume(sum(sizes) >= 16)
    seen, segments = [], []
    for world_size, batch_size, part in worlds:
        ranks = ranks_of(samples, world_size, batch_size, order, shuffle_window=shuffle_window, mixed_row_groups=mixed_row_groups)
        steps = {rank.steps_after(segments) for rank in ranks}
        assert len(steps) == 1
        (left,) = steps
        done = int(part * left)
        for rank in ranks:
            seen += numbers(islice(rank.epoch(epoch, 0, segments), done))
        segments.append(EpochSegment(world_size, batch_size, done))
    ranks = ranks_of(samples, 1, 1, order, shuffle_window=shuffle_window, mixed_row_groups=mixed_row_groups)
    seen += numbers(ranks[0].epoch(epoch, 0, segments))
    assert sorted(seen) == list(range(sum(sizes)))


def test_only_the_windows_that_are_needed_are_read(write_samples):
    samples = write_samples([20] * 6)
    stream = SampleStream(samples.folder, samples.contract, "train", 10, shuffle_window=2, mixed_row_groups=2)
    last = {number // 20 for number in numbers(stream.epoch(0, first_step=8))}
    for file in set(range(6)) - last:
        samples.path(file).unlink()
    assert len(last) == 2
    assert len(numbers(stream.epoch(0, first_step=9))) == 30


def test_there_may_be_more_ranks_than_row_groups(write_samples):
    samples = write_samples([9, 8])
    for order in ("sharded", "global", "resident"):
        ranks = ranks_of(samples, 5, 3, order)
        seen = [numbers(rank.epoch(1)) for rank in ranks]
        assert [len(rank_files) for rank_files in seen] == [3] * 5
        assert len({number for rank_files in seen for number in rank_files}) == 15
    held_out = ranks_of(write_samples([1, 1]), 5, 3, "sharded", shuffle=False, drop_last=False)
    assert sorted(len(numbers(rank.epoch(0))) for rank in held_out) == [0, 0, 0, 1, 1]
