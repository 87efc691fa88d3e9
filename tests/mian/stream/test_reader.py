import pytest

from mian.stream.checks import check_files
from mian.stream.columns import columns_of
from mian.stream.plan import plan_reads, shuffled_windows
from mian.stream.reader import RowGroupReader
from mian.stream.storage import Storage


@pytest.mark.parametrize(("size", "ahead"), [(1, 4), (4, 4), (6, 6)])
def test_beside_the_window_that_is_consumed_no_more_is_begun_than_the_next(write_samples, size, ahead):
    """Which bounds the memory: windows of one row group have one a thread and two more."""
    samples = write_samples([5] * 24)
    storage, columns = Storage.at(samples.folder), columns_of(samples.contract, ["label"])
    groups = check_files(samples.contract.days, storage, columns)
    reads = plan_reads(shuffled_windows(groups, size, seed=0, epoch=0), [(0, 120)])
    with RowGroupReader(storage, reads, columns, workers=2) as reader:
        for _ in range(2):
            assert len(next(reader)["label"]) == 5 * size
            assert reader.diagnostics == {"output_queue_size": ahead}
