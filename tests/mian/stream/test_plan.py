import datetime as dt
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mian.stream.plan import RowGroup, Window, plan_reads, shuffled_windows, window_seed, windows_in_order
from mian.stream.shares import Leg, Share, remaining_spans, within

DAY = dt.date(2026, 1, 1)


def groups_of(sizes):
    return [RowGroup(f"day=2026-01-01/part-{number:05d}.parquet", 0, rows, DAY) for number, rows in enumerate(sizes)]


def windows_of(sizes):
    """Windows of up to three groups."""
    return shuffled_windows(groups_of(sizes), 3, seed=0, epoch=0)


def rows_of(reads):
    """The rows that reads take, in order: (the window's first group, position in the window)."""
    return [(read.window.groups[0].path, row) for read in reads for start, stop in read.spans for row in range(start, stop)]


def slow_share(sequence, share):
    """A rank's rows of the sequence, by the definition, row by row."""
    rank, ranks, size = share.rank, share.world_size, share.batch_size
    global_batch = size * ranks
    steps = len(sequence) // global_batch
    if share.order == "global":
        mine = [row for step in range(steps) for row in sequence[step * global_batch :][rank * size : (rank + 1) * size]]
        rest = [] if share.drop_last else sequence[steps * global_batch :]
        return mine + rest[rank * len(rest) // ranks : (rank + 1) * len(rest) // ranks]
    if share.drop_last:
        return sequence[rank * steps * size : (rank + 1) * steps * size]
    return sequence[rank * len(sequence) // ranks : (rank + 1) * len(sequence) // ranks]


epochs = {
    "sizes": st.lists(st.integers(1, 40), min_size=1, max_size=12),
    "batch_size": st.integers(1, 9),
    "world_size": st.integers(1, 6),
    "drop_last": st.booleans(),
    "order": st.sampled_from(["sharded", "global"]),
}


@given(**epochs)
def test_all_ranks_together_use_every_row_once_but_for_the_tail(sizes, batch_size, world_size, drop_last, order):
    windows = windows_of(sizes)
    shares = [Share(sum(sizes), batch_size, rank, world_size, drop_last, order) for rank in range(world_size)]
    used = Counter(row for share in shares for row in rows_of(plan_reads(windows, share.spans())))

    assert set(used.values()) <= {1}
    assert len(used) == sum(sizes) - shares[0].rows_left_over
    if drop_last:
        assert shares[0].rows_left_over < world_size * batch_size
        assert {share.steps for share in shares} == {sum(sizes) // (world_size * batch_size)}
    else:
        assert shares[0].rows_left_over == 0


@given(**epochs)
def test_each_rank_takes_the_rows_of_the_definition(sizes, batch_size, world_size, drop_last, order):
    windows = windows_of(sizes)
    sequence = [(window.groups[0].path, row) for window in windows for row in range(window.rows)]
    for rank in range(world_size):
        share = Share(sum(sizes), batch_size, rank, world_size, drop_last, order)
        reads = plan_reads(windows, share.spans())
        expected = slow_share(sequence, share)

        assert rows_of(reads) == expected
        assert sum(read.rows for read in reads) == len(expected)
        assert share.steps == -(-len(expected) // batch_size)
        assert len({read.window for read in reads}) == len(reads)


@given(**epochs, skip=st.integers(0, 20))
def test_a_later_first_step_takes_what_the_earlier_steps_leave(sizes, batch_size, world_size, drop_last, order, skip):
    windows = windows_of(sizes)
    share = Share(sum(sizes), batch_size, world_size - 1, world_size, drop_last, order)
    first_step = min(skip, share.steps)

    whole = rows_of(plan_reads(windows, share.spans()))
    assert rows_of(plan_reads(windows, share.spans(first_step))) == whole[first_step * batch_size :]


def order_of(windows):
    return [group for window in windows for group in window.groups]


@given(count=st.integers(1, 30), size=st.integers(1, 12))
def test_windows_hold_every_group_once_and_are_alike_in_size(count, size):
    groups = groups_of([1] * count)
    windows = shuffled_windows(groups, size, seed=5, epoch=2)
    assert sorted(order_of(windows), key=groups.index) == groups
    sizes = {len(window.groups) for window in windows}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(windows) == -(-count // size)


def test_the_order_is_drawn_anew_by_seed_and_by_epoch():
    groups = groups_of([1] * 30)
    orders = [tuple(order_of(shuffled_windows(groups, 4, seed, epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order, key=groups.index) == groups for order in orders)


def test_groups_dealt_once_make_the_same_windows_in_each_epoch_with_rows_permuted_anew():
    groups = groups_of([1] * 30)
    first, second = (shuffled_windows(groups, 4, 1, epoch, dealt_once=True) for epoch in (0, 1))
    assert [window.groups for window in first] == [window.groups for window in second]
    assert not {window.seed for window in first} & {window.seed for window in second}
    assert order_of(first) != order_of(shuffled_windows(groups, 4, 2, 0, dealt_once=True))


def test_the_order_does_not_depend_on_how_the_groups_are_listed():
    groups = groups_of([1] * 30)
    assert shuffled_windows(groups, 4, 7, 3) == shuffled_windows(groups[::-1], 4, 7, 3)


def test_without_shuffling_each_group_is_a_window_as_it_lies():
    groups = groups_of([3, 4])
    assert windows_in_order(groups) == [Window((groups[0],), None), Window((groups[1],), None)]


def test_the_draw_is_the_same_in_every_process_and_release():
    # Were these figures to change, a run could not be gone on with in the same order after an upgrade.
    group = RowGroup("day=2026-01-01/part-00000.parquet", 2, 100, DAY)
    assert window_seed(1, 2, [group]) == 4444651472000790201
    windows = shuffled_windows(groups_of([1] * 5), 3, 1, 2)
    assert [[int(each.path[-13:-8]) for each in window.groups] for window in windows] == [[0, 4], [3, 1, 2]]


@pytest.mark.parametrize("other", [(0, 1, "a", 0), (1, 0, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)])
def test_a_windows_seed_depends_on_seed_epoch_paths_and_groups(other):
    seed, epoch, path, index = other
    last = RowGroup("z", 0, 10, DAY)
    assert window_seed(seed, epoch, [RowGroup(path, index, 10, DAY), last]) != window_seed(
        0, 0, [RowGroup("a", 0, 10, DAY), last]
    )


@given(
    rows=st.integers(1, 300),
    worlds=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7), st.floats(0, 1)), min_size=1, max_size=4),
    order=st.sampled_from(["sharded", "global"]),
)
def test_what_is_left_of_an_epoch_after_any_worlds_is_what_none_of_them_used(rows, worlds, order):
    sequence = list(range(rows))
    legs = []
    for ranks, size, part in worlds:
        shares = [Share(len(sequence), size, rank, ranks, True, order) for rank in range(ranks)]
        steps = int(part * shares[0].steps)
        used = {row for share in shares for row in slow_share(sequence, share)[: steps * size]}
        assert len(used) == steps * size * ranks
        sequence = [row for row in sequence if row not in used]
        legs.append(Leg(ranks, size, steps))
        left = remaining_spans(rows, legs, order)
        assert [row for start, stop in left for row in range(start, stop)] == sequence
        assert all(start < stop for start, stop in left)


def test_spans_within_spans():
    assert within([(10, 13), (20, 30)], [(0, 1), (2, 5), (12, 13)]) == [(10, 11), (12, 13), (20, 22), (29, 30)]
    assert within([(10, 13)], []) == []
