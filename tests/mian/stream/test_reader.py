import pytest

from mian.stream.file_checks import check_files
from mian.stream.filesystem import Storage
from mian.stream.read_plan import plan_slices, shuffled_windows
from mian.stream.reader import RowGroupReader
from mian.stream.schema import columns_of


@pytest.mark.parametrize(("size", "mixed", "ahead"), [(1, 1, 4), (4, 4, 4), (6, 6, 6), (2, 12, 12), (1, 24, 24)])
def test_beside_the_window_that_is_consumed_no_more_is_begun_than_the_next(write_samples, size, mixed, ahead):
    """Which bounds the memory: windows of one row group have one a thread and two more."""
    samples = write_samples([24] * 24)
    storage, columns = Storage.at(samples.folder), columns_of(samples.contract, ["label"])
    groups = check_files(samples.contract.days, storage, columns)
    reads = plan_slices(shuffled_windows(groups, size, mixed, seed=0, epoch=0), [(0, 24 * 24)])
    with RowGroupReader(storage, reads, columns, workers=2) as reader:
        for _ in range(2):
            assert len(next(reader)["label"]) == 24 * size
            assert reader.diagnostics == {"output_queue_size": ahead}
