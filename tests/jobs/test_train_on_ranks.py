"""The training job on two real ranks: one run, one error, and nobody left behind."""

import re
import shutil
from collections.abc import Callable

import pytest

from mian.contract import CONTRACT_FILE
from tests.factories import spoil
from tests.jobs.conftest import Workplace, assert_trace
from tests.launcher import TRAIN, Launch, on_ranks, processes_with

pytestmark = pytest.mark.ranks


def train_on_two(place: Workplace, *overrides: str) -> Launch:
    launched = on_ranks(2, TRAIN, "--config", place.config, "batch_size=16", *overrides, folder=place.folder)
    assert processes_with(place.folder) == []
    return launched


def statuses(place: Workplace) -> list[str]:
    client = place.store()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [run.info.status for run in runs]


def test_two_ranks_make_one_run_one_model_and_a_trace_each(workplace: Workplace) -> None:
    launched = train_on_two(workplace, "max_steps=25", "log_every=5", "profile=true")
    assert launched.code == 0, launched.output
    assert statuses(workplace) == ["FINISHED"]
    client = workplace.store()
    version = client.get_model_version("mian", "1")
    run = client.get_run(version.run_id)
    assert (str(version.version), run.data.params["ranks"]) == ("1", "2")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train_logloss")] == [5, 10, 15, 20, 25]
    assert run.data.metrics["test_rows"] == sum(day.rows for day in workplace.contract.split("test"))
    assert len(list(workplace.folder.glob("models/mian-*"))) == 1
    assert [line for line in launched.lines_of(1) if not line.startswith("USDT:")] == []  # the profiler's
    exchanging = [point.value for point in client.get_metric_history(run.info.run_id, "time_exchanging_share")]
    assert len(exchanging) == 5
    assert all(0 < share < 1 for share in exchanging)

    traces = sorted(workplace.folder.glob("models/profiles/*/*"))
    assert [path.name for path in traces] == ["rank-0.json", "rank-1.json"]
    for path in traces:
        assert_trace(path, steps=5, exchanges=True)
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id, "profiles")] == [
        "profiles/rank-0.json",
        "profiles/rank-1.json",
    ]


def garbled(content: bytearray) -> None:
    content[4 : len(content) // 2] = b"\x55" * (len(content) // 2 - 4)


def with_a_bit_flipped(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


@pytest.mark.parametrize(
    ("damage", "option", "message"),
    [
        pytest.param(garbled, "stream.workers=2", "cannot be read", marks=pytest.mark.long),
        (with_a_bit_flipped, "stream.verify=epoch", "the file's SHA-256 is"),
    ],
)
def test_an_error_on_one_rank_ends_all_and_is_told(
    workplace: Workplace, damage: Callable[[bytearray], None], option: str, message: str
) -> None:
    """Samples that lie on each machine by themselves; on that of rank 1, a file is damaged where no check but reading sees it."""
    copies = {rank: workplace.folder / f"samples-{rank}" for rank in (0, 1)}
    for copy in copies.values():
        shutil.copytree(workplace.samples, copy)
    for file in workplace.contract.split("train")[2].files:
        path = copies[1] / file.path
        content = bytearray(path.read_bytes())
        damage(content)
        path.write_bytes(content)

    samples = f"samples={workplace.folder}/samples-${{oc.env:HOROVOD_RANK}}"
    launched = train_on_two(workplace, samples, option, "epochs=3", "patience=100")
    assert launched.code != 0
    (error,) = launched.errors()
    assert re.search(rf"{re.escape(str(copies[1]))}/day=\S+, row group 0: {message}.*: rebuild day 2026-03-03", error)
    assert any(error in line for line in launched.lines_of(1))
    assert not [line for line in launched.lines_of(0) if "Traceback" in line], launched.output
    assert [line for line in launched.lines_of(0) if "rank 0 ends: rank 1 ended before this one, or hangs" in line]
    assert statuses(workplace) == ["FAILED"]
    assert workplace.models == []


def test_a_loss_that_is_no_number_is_told_by_the_rank_that_has_it(workplace: Workplace) -> None:
    """The second rank's copy of the samples holds a value that is none, so that nobody but that rank can know."""
    copies = {rank: workplace.folder / f"samples-{rank}" for rank in (0, 1)}
    for copy in copies.values():
        shutil.copytree(workplace.samples, copy)
    for rank, value in ((0, 1.5), (1, float("nan"))):
        contract = workplace.contract
        for file in (file for day in contract.split("train") for file in day.files):
            contract = spoil(copies[rank], contract, file.path, "candidate_price", [7], value)
    shutil.copy(copies[0] / CONTRACT_FILE, copies[1] / CONTRACT_FILE)

    samples = f"samples={workplace.folder}/samples-${{oc.env:HOROVOD_RANK}}"
    launched = train_on_two(workplace, samples, "epochs=3", "patience=100")
    assert launched.code == 1
    (error,) = launched.errors()
    assert re.search(
        r"error: rank 1: step \d+ cannot be done, .*; batch \d+ of epoch 0 on this rank: 1 of the batch's 16 rows hold a value that is "
        r"no number: row \d+ \(impression 2026-03-0\d-\d-7, row 7 of day=2026-03-0\d/part-0000\d.parquet\): candidate_price is nan",
        error,
    ), error
    assert any(error in line for line in launched.lines_of(1))
    assert [line for line in launched.lines_of(0) if "rank 0 ends: rank 1 could not go on" in line]
    assert "Traceback" not in "".join(launched.lines_of(0) + launched.lines_of(1)), launched.output
    assert statuses(workplace) == ["FAILED"]
    assert workplace.models == []


def test_an_error_of_the_configuration_is_told_once(workplace: Workplace) -> None:
    launched = train_on_two(workplace, "batchsize=3")
    assert launched.code != 0
    (error,) = launched.errors()
    assert "unknown key 'batchsize'; did you mean 'batch_size'?" in error
    assert "step" not in launched.output
    assert statuses(workplace) == []
