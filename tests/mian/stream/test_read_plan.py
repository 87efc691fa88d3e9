import datetime as dt
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mian.stream.read_plan import Piece, RowGroup, Window, plan_slices, shuffled_windows, window_seed, windows_in_order
from mian.stream.sharding import EpochSegment, RankShard, remaining_spans, within

DAY = dt.date(2026, 1, 1)


def groups_of(sizes):
    return [RowGroup(f"day=2026-01-01/part-{number:05d}.parquet", 0, rows, DAY) for number, rows in enumerate(sizes)]


def windows_of(sizes, borders=()):
    """Windows of the rows of up to three groups, with pieces of up to five."""
    return shuffled_windows(groups_of(sizes), 3, 5, seed=0, epoch=0, borders=borders)


def rows_of(reads):
    """The rows that reads take, in order: (the window's seed, position in the window)."""
    return [(read.window.seed, row) for read in reads for start, stop in read.spans for row in range(start, stop)]


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
    shares = [RankShard(sum(sizes), batch_size, rank, world_size, drop_last, order) for rank in range(world_size)]
    windows = windows_of(sizes, shares[0].borders)
    used = Counter(row for share in shares for row in rows_of(plan_slices(windows, share.spans())))

    assert set(used.values()) <= {1}
    assert len(used) == sum(sizes) - shares[0].rows_left_over
    if drop_last:
        assert shares[0].rows_left_over < world_size * batch_size
        assert {share.steps for share in shares} == {sum(sizes) // (world_size * batch_size)}
    else:
        assert shares[0].rows_left_over == 0


@given(**epochs)
def test_each_rank_takes_the_rows_of_the_definition(sizes, batch_size, world_size, drop_last, order):
    windows = windows_of(sizes, RankShard(sum(sizes), batch_size, 0, world_size, drop_last, order).borders)
    sequence = [(window.seed, row) for window in windows for row in range(window.rows)]
    for rank in range(world_size):
        share = RankShard(sum(sizes), batch_size, rank, world_size, drop_last, order)
        reads = plan_slices(windows, share.spans())
        expected = slow_share(sequence, share)

        assert rows_of(reads) == expected
        assert sum(read.rows for read in reads) == len(expected)
        assert share.steps == -(-len(expected) // batch_size)
        assert len({read.window for read in reads}) == len(reads)


@given(**epochs, skip=st.integers(0, 20))
def test_a_later_first_step_takes_what_the_earlier_steps_leave(sizes, batch_size, world_size, drop_last, order, skip):
    share = RankShard(sum(sizes), batch_size, world_size - 1, world_size, drop_last, order)
    windows = windows_of(sizes, share.borders)
    first_step = min(skip, share.steps)

    whole = rows_of(plan_slices(windows, share.spans()))
    assert rows_of(plan_slices(windows, share.spans(first_step))) == whole[first_step * batch_size :]


def order_of(windows):
    return list(dict.fromkeys(piece.group for window in windows for piece in window.pieces))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    size=st.integers(1, 12),
    mixed=st.integers(1, 12),
    borders=st.lists(st.integers(0, 200), max_size=4),
)
def test_windows_hold_every_row_once_and_those_of_few_groups(sizes, size, mixed, borders):
    groups = groups_of(sizes)
    windows = shuffled_windows(groups, size, mixed, seed=5, epoch=2, borders=sorted(borders))
    rows = Counter(
        (piece.group.path, row) for window in windows for piece in window.pieces for row in range(piece.start, piece.stop)
    )
    assert rows == Counter((group.path, row) for group in groups for row in range(group.rows))
    for window in windows:
        assert window.rows > 0
        assert len(window.pieces) == len({piece.group for piece in window.pieces}) <= max(size, mixed)
        assert all(piece.rows > 0 for piece in window.pieces)
        assert window.rows <= size * max(piece.group.rows for piece in window.pieces) + len(window.pieces)


@given(count=st.integers(1, 60), size=st.integers(1, 6), mixed=st.integers(6, 20))
def test_each_window_has_a_piece_of_every_group_of_its_block_and_blocks_are_alike(count, size, mixed):
    windows = shuffled_windows(groups_of([60] * count), size, mixed, seed=1, epoch=0)
    blocks = Counter(tuple(piece.group for piece in window.pieces) for window in windows)
    assert sum(map(len, blocks)) == count
    assert len(blocks) == -(-count // mixed)
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert all(number == -(-len(block) // size) for block, number in blocks.items())
    assert all(
        abs(piece.rows - 60 // blocks[block]) <= 1 for block in blocks for piece in windows[0].pieces if piece.group in block
    )


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), batch_size=st.integers(1, 9), world_size=st.integers(1, 6))
def test_a_block_begins_where_each_rank_does_or_within_a_row_group_before(sizes, batch_size, world_size):
    """Else a rank would decode the beginnings of another rank's row groups to come to its own rows."""
    borders = RankShard(sum(sizes), batch_size, 0, world_size, True, "sharded").borders
    windows = shuffled_windows(groups_of(sizes), 2, 8, seed=0, epoch=0, borders=borders)
    seen, begins, row = set(), [], 0
    for window in windows:
        if not seen & {piece.group for piece in window.pieces}:
            begins.append(row)
        seen |= {piece.group for piece in window.pieces}
        row += window.rows
    assert all(any(0 <= border - begin < max(sizes) for begin in begins) for border in borders)


def test_the_order_is_drawn_anew_by_seed_and_by_epoch():
    groups = groups_of([1] * 30)
    orders = [tuple(order_of(shuffled_windows(groups, 4, 4, seed, epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order, key=groups.index) == groups for order in orders)


def test_groups_dealt_once_make_the_same_windows_in_each_epoch_with_rows_permuted_anew():
    groups = groups_of([3] * 30)
    first, second = (shuffled_windows(groups, 4, 9, 1, epoch, dealt_once=True) for epoch in (0, 1))
    assert [window.pieces for window in first] == [window.pieces for window in second]
    assert not {window.seed for window in first} & {window.seed for window in second}
    assert order_of(first) != order_of(shuffled_windows(groups, 4, 9, 2, 0, dealt_once=True))


def test_the_order_does_not_depend_on_how_the_groups_are_listed():
    groups = groups_of([1] * 30)
    assert shuffled_windows(groups, 4, 9, 7, 3) == shuffled_windows(groups[::-1], 4, 9, 7, 3)


def test_without_shuffling_each_group_is_a_window_as_it_lies():
    groups = groups_of([3, 4])
    assert windows_in_order(groups) == [Window((Piece(group, 0, group.rows),), None) for group in groups]


def test_the_draw_is_the_same_in_every_process_and_release():
    # Were these figures to change, a run could not be gone on with in the same order after an upgrade.
    group = RowGroup("day=2026-01-01/part-00000.parquet", 2, 100, DAY)
    assert window_seed(1, 2, [Piece(group, 0, 50)]) == 7650706110049775848
    windows = shuffled_windows(groups_of([2] * 5), 3, 3, 1, 2)
    assert [[int(each.group.path[-13:-8]) for each in window.pieces] for window in windows] == [[0, 4], [3, 1, 2]]
    mixed = shuffled_windows(groups_of([2] * 5), 3, 5, 1, 2)
    assert [[(int(each.group.path[-13:-8]), each.start) for each in window.pieces] for window in mixed] == [
        [(0, 0), (4, 0), (3, 0), (1, 0), (2, 0)],
        [(0, 1), (4, 1), (3, 1), (1, 1), (2, 1)],
    ]


@pytest.mark.parametrize("other", [(0, 1, "a", 0, 0), (1, 0, "a", 0, 0), (0, 0, "b", 0, 0), (0, 0, "a", 1, 0), (0, 0, "a", 0, 5)])
def test_a_windows_seed_depends_on_seed_epoch_paths_groups_and_first_rows(other):
    seed, epoch, path, index, start = other
    last = Piece(RowGroup("z", 0, 10, DAY), 0, 10)
    drawn = window_seed(seed, epoch, [Piece(RowGroup(path, index, 10, DAY), start, 10), last])
    assert drawn != window_seed(0, 0, [Piece(RowGroup("a", 0, 10, DAY), 0, 10), last])


@given(
    rows=st.integers(1, 300),
    worlds=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7), st.floats(0, 1)), min_size=1, max_size=4),
    order=st.sampled_from(["sharded", "global"]),
)
def test_what_is_left_of_an_epoch_after_any_worlds_is_what_none_of_them_used(rows, worlds, order):
    sequence = list(range(rows))
    segments = []
    for ranks, size, part in worlds:
        shares = [RankShard(len(sequence), size, rank, ranks, True, order) for rank in range(ranks)]
        steps = int(part * shares[0].steps)
        used = {row for share in shares for row in slow_share(sequence, share)[: steps * size]}
        assert len(used) == steps * size * ranks
        sequence = [row for row in sequence if row not in used]
        segments.append(EpochSegment(ranks, size, steps))
        left = remaining_spans(rows, segments, order)
        assert [row for start, stop in left for row in range(start, stop)] == sequence
        assert all(start < stop for start, stop in left)


def test_spans_within_spans():
    assert within([(10, 13), (20, 30)], [(0, 1), (2, 5), (12, 13)]) == [(10, 11), (12, 13), (20, 22), (29, 30)]
    assert within([(10, 13)], []) == []
