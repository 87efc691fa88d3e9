"""Shards that stay in memory."""

import pytest

from mian.stream import EpochSegment, SampleStream, StreamError
from tests.support.streams import batches_of, numbers, ranks_of


def test_later_epochs_of_a_resident_shard_need_no_file(write_samples):
    samples = write_samples([20] * 6, rows_per_group=7)
    ranks = ranks_of(samples, 3, 4, "resident")
    undisturbed = ranks_of(samples, 3, 4, "resident")
    first = [numbers(rank.epoch(0)) for rank in ranks]
    later = [[batches_of(rank, epoch) for epoch in (1, 2)] for rank in undisturbed]
    for file in range(6):
        samples.path(file).unlink()
    assert [[batches_of(rank, epoch) for epoch in (1, 2)] for rank in ranks] == later
    seen = {number for rank in later for batch in rank[0] for number in batch["user_key"]}
    assert len(seen) == 120
    assert [[number for batch in rank[0] for number in batch["user_key"]] for rank in later] != first


def test_a_resident_shard_holds_what_its_own_epochs_need_and_no_more(write_samples):
    samples = write_samples([20] * 12)
    rank = ranks_of(samples, 3, 4, "resident", shuffle_window=2)[1]
    rank_files = {number // 20 for epoch in range(4) for number in numbers(rank.epoch(epoch))}
    assert rank_files == {number // 20 for number in numbers(rank.epoch(0))}
    assert len(rank_files) == 4
    other_segments = [EpochSegment(1, 4, 15)]
    numbers(rank.epoch(1, 0, other_segments))  # reads what other ranks would have, and does not hold it
    for file in set(range(12)) - rank_files:
        samples.path(file).unlink()
    numbers(rank.epoch(1))
    with pytest.raises(StreamError, match="no such file"):
        numbers(rank.epoch(1, 0, other_segments))


def test_a_resident_epoch_that_was_entered_half_way_holds_the_rest_in_the_next(write_samples):
    samples = write_samples([20] * 6)
    whole = batches_of(SampleStream(samples.folder, samples.contract, "train", 5, resident=True, shuffle_window=2), 1)
    stream = SampleStream(samples.folder, samples.contract, "train", 5, resident=True, shuffle_window=2)
    numbers(stream.epoch(0, first_step=20))
    assert batches_of(stream, 1) == whole
    for file in range(6):
        samples.path(file).unlink()
    assert batches_of(stream, 1) == whole
