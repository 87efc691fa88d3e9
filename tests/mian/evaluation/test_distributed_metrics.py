"""Metrics of rows that memory has no room for, on one to four real ranks, against those of all rows at once."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import ScoredRows
from mian.evaluation.external_sort import SpillError
from mian.metrics import MetricError, evaluate, reliability
from tests.launcher import ROOT
from tests.support import scored_memory
from tests.support.launches import Launches
from tests.support.scored_work import CASES, WRONG, made_up

pytestmark = pytest.mark.ranks

WORLDS = [1, pytest.param(2, marks=pytest.mark.long), 3, pytest.param(4, marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=WORLDS, ids=lambda ranks: f"{ranks} ranks")
def rank_results(request: pytest.FixtureRequest, launches: Launches) -> list[dict[str, Any]]:
    """What each rank leaves, see ``scored_work``."""
    return launches.of(request.param, "scored rows")


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_those_of_all_rows_on_every_rank(rank_results: list[dict[str, Any]], case: str) -> None:
    rows = CASES[case].rows
    first = rank_results[0]["cases"][case]
    expected = evaluate(rows.labels, rows.probabilities, rows.users)
    assert first["metrics"] == pytest.approx(expected, rel=1e-12, nan_ok=True)
    if 0 < expected["positives"] < expected["rows"]:
        assert first["metrics"]["auc"] == pytest.approx(roc_auc_score(rows.labels, rows.probabilities), rel=1e-12)
    if case == "spilled":
        loss = log_loss(rows.labels, rows.probabilities.astype(np.float64))
        assert first["metrics"]["logloss"] == pytest.approx(loss, rel=1e-12)
    for other in rank_results[1:]:
        found = other["cases"][case]
        np.testing.assert_equal((found["metrics"], found["table"]), (first["metrics"], first["table"]))


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"no rows", "one row", "no clicks", "clicks alone"}))
def test_auc_is_the_same_to_the_last_bit_on_any_number_of_ranks(rank_results: list[dict[str, Any]], case: str) -> None:
    rows = CASES[case].rows
    clicks, others = (np.sort(rows.probabilities[rows.labels == label]) for label in (1, 0))
    won = sum(int(np.searchsorted(others, clicks, side).sum()) for side in ("left", "right"))  # ties once, others twice
    assert rank_results[0]["cases"][case]["metrics"]["auc"] == won / (2 * len(clicks) * len(others))


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"no rows"}))
def test_the_reliability_table_is_that_of_all_rows(rank_results: list[dict[str, Any]], case: str) -> None:
    rows = CASES[case].rows
    expected = reliability(rows.labels, rows.probabilities)
    found = pd.DataFrame(rank_results[0]["cases"][case]["table"])
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-12)
    assert found["count"].tolist() == expected["count"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_no_more_rows_travel_at_a_time_than_a_rank_may_hold(rank_results: list[dict[str, Any]], case: str) -> None:
    """Those of one score and label, or of one user, score and label, are one from each rank, however many they are."""
    assert max(rank["cases"][case]["most"] for rank in rank_results) <= CASES[case].capacity + 2 * len(rank_results)


@pytest.mark.parametrize("what", WRONG)
def test_wrong_rows_of_one_rank_are_an_error_on_all(rank_results: list[dict[str, Any]], what: str) -> None:
    rows = 2 * len(rank_results) + 1
    said = {
        "NaN": f"NotANumberError: scores hold NaN in 1 of {rows} rows",
        "label": f"MetricError: labels must be 0 or 1: 1 of {rows} rows have others",
        "no probability": f"MetricError: probabilities must be in [0, 1]: 1 of {rows} rows have others",
    }
    assert [rank["errors"][what] for rank in rank_results] == [said[what]] * len(rank_results)


def test_what_is_spilled_has_no_name_and_small_splits_spill_nothing(tmp_path: Path) -> None:
    rows = made_up(100)
    for capacity in (10, 101):
        with ScoredRows(Ranks(), tmp_path / str(capacity), capacity) as scored:
            scored.add(rows.labels, rows.probabilities, rows.users)
            assert (tmp_path / str(capacity)).exists() == (capacity == 10)
            assert list(tmp_path.rglob("*/*")) == []


def test_a_disk_without_room_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    rows = made_up(10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the system writes no more into a file
    try:
        with (
            pytest.raises(SpillError, match="make room, 16 bytes for each row") as raised,
            ScoredRows(Ranks(), tmp_path, 1000) as scored,
        ):
            scored.add(rows.labels, rows.probabilities, rows.users)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(raised.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_such_an_error(tmp_path: Path) -> None:
    rows = made_up(100)
    (tmp_path / "file").touch()
    with pytest.raises(SpillError, match="file"), ScoredRows(Ranks(), tmp_path / "file", 10) as scored:
        scored.add(rows.labels, rows.probabilities, rows.users)


@pytest.mark.parametrize(
    ("labels", "probabilities", "users"),
    [
        (np.zeros(2), np.zeros(1, np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 1)), np.zeros((2, 1), np.float32), np.zeros((2, 1), np.int64)),
        (np.zeros(2), np.zeros(2), np.zeros(2, np.int64)),
        (np.zeros(2), np.zeros(2, np.float32), np.zeros(2, np.float64)),
    ],
)
def test_other_shapes_and_types_are_refused(labels: Any, probabilities: Any, users: Any, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"rows must be|probabilities must be"), ScoredRows(Ranks(), tmp_path) as scored:
        scored.add(labels, probabilities, users)


def test_memory_does_not_grow_with_the_rows() -> None:
    """Two million rows, 16 bytes each, where memory may hold 32,768; and where it may hold all, which shows that growth is seen."""

    def growth(capacity: int) -> int:
        command = [sys.executable, scored_memory.__file__, "2000000", str(capacity)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)

    assert growth(1 << 15) < 16 * 2_000_000 // 2
    assert growth(2_000_001) > 16 * 2_000_000
