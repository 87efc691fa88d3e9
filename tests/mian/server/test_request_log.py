"""The log of requests: what is in it, what a crash and a full disk leave, and that it can be replayed."""

from __future__ import annotations

import datetime as dt
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mian.server import request_log
from mian.server.metrics import ServerMetrics
from mian.server.replay import read_log, replay
from mian.server.request_log import SCHEMA, RequestLog
from mian.server.score_request import ScoreRequest
from mian.server.settings import LogSettings
from mian.serving import OneUser, load_servable
from tests.support.ranking_server import ranking_server, wait_for

ScoresOf = np.array([0.25, 0.5])
SERVED_BY = ("ctr", "3", "onnx")


def make_log(folder: Path, **settings: Any) -> tuple[RequestLog, Callable[[str], float]]:
    metrics = ServerMetrics(lambda: 0)

    def count(name: str) -> float:
        lines = metrics.text().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"mian_{name} "))

    return RequestLog(LogSettings(**{"fraction": 1.0, "folder": folder, "seconds": 3_600.0, **settings}), metrics), count


def request(place: int) -> ScoreRequest:
    return ScoreRequest({"item": [place, None]}, {"age": "\u00e9"}, {"hour": 1.5}, {"item": []})


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_rows_are_written_when_there_are_enough_and_at_the_end(tmp_path: Path) -> None:
    log, count = make_log(tmp_path, rows=4)
    for place in range(10):
        log.add(request(place), f"r{place}", SERVED_BY, ScoresOf)
        if place in (3, 7):
            wait_for(lambda place=place: count("logged_requests_total") == place + 1)
    log.close()
    assert [pq.read_metadata(path).num_rows for path in files(tmp_path)] == [4, 4, 2]
    assert pq.read_schema(files(tmp_path)[0]).equals(SCHEMA)
    logged = list(read_log(tmp_path))
    assert [row.request.request_id for row in logged] == [f"r{place}" for place in range(10)]
    assert logged[7].request.candidates == {"item": [7, None]}
    assert logged[7].request.user == {"age": "\u00e9"}
    assert (logged[7].request.candidate_context, logged[7].version) == (None, "3")
    np.testing.assert_array_equal(logged[7].probabilities, ScoresOf)
    assert count("log_dropped_requests_total") == 0


def test_a_row_does_not_wait_longer_than_it_may(tmp_path: Path) -> None:
    log, count = make_log(tmp_path, seconds=0.05)
    log.add(request(0), "a", SERVED_BY, ScoresOf)
    wait_for(lambda: count("logged_requests_total") == 1)
    log.close()
    assert len(files(tmp_path)) == 1


def test_a_full_disk_stops_the_log_for_a_while_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log, count = make_log(tmp_path, rows=2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for place in range(2):
            log.add(request(place), "lost", SERVED_BY, ScoresOf)
        wait_for(lambda: count("log_failures_total") == 1)
    for place in range(2):
        log.add(request(place), "paused", SERVED_BY, ScoresOf)
    assert count("log_dropped_requests_total") == 4
    monkeypatch.setattr(log, "_paused_until", 0.0)
    log.add(request(0), "kept", SERVED_BY, ScoresOf)
    log.close()
    assert [row.request.request_id for row in read_log(tmp_path)] == ["kept"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path not in files(tmp_path)]


def test_rows_that_wait_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "MOST_BYTES", 500)
    log, count = make_log(tmp_path, rows=1_000)
    for place in range(100):
        log.add(request(place), "a", SERVED_BY, ScoresOf)
    log.close()
    assert 1 < count("logged_requests_total") < 20
    assert count("logged_requests_total") + count("log_dropped_requests_total") == 100


@pytest.mark.parametrize("fraction", [0.0, 0.2, 1.0])
def test_a_fraction_is_drawn(tmp_path: Path, fraction: float) -> None:
    log, _ = make_log(tmp_path, fraction=fraction)
    assert sum(log.drawn() for _ in range(2_000)) == pytest.approx(2_000 * fraction, abs=150)
    log.close()


@pytest.mark.e2e
def test_served_requests_are_replayed_to_the_scores_that_were_served(
    servable: Path, tmp_path: Path, request_body: dict[str, Any]
) -> None:
    folder = tmp_path / "log"
    with ranking_server(servable, "--log-requests", "1", "--log-folder", str(folder), "--log-rows", "7") as server:
        for place in range(20):
            body = request_body | {"user": {"age": ["20s", 7, 2**63, None][place % 4], "visits": place}, "request_id": str(place)}
            assert server.post(body | ({"candidate_context": {"slot": [1, 2, 3]}} if place % 2 else {})).status_code == 200
        assert server.post(b"{").status_code == 400
        assert server.end() == 0
    logged = list(read_log(folder))
    assert [row.request.request_id for row in logged] == [str(place) for place in range(20)]
    one_user = OneUser(load_servable(servable))
    for row in logged:
        np.testing.assert_allclose(replay(row, one_user.encoder, one_user), row.probabilities, atol=1e-7)
    assert len({tuple(row.probabilities) for row in logged}) > 10


@pytest.mark.e2e
def test_a_crash_leaves_whole_files_alone(servable: Path, tmp_path: Path, request_body: dict[str, Any]) -> None:
    with ranking_server(servable, "--log-requests", "1", "--log-folder", str(tmp_path), "--log-rows", "5") as server:
        for _ in range(13):
            server.post(request_body)
        wait_for(lambda: server.metrics()["mian_logged_requests_total"] == 10)
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
    assert len(list(read_log(tmp_path))) == 10


@pytest.mark.e2e
def test_a_folder_that_can_no_longer_be_written_stops_no_answer(
    servable: Path, tmp_path: Path, request_body: dict[str, Any]
) -> None:
    folder = tmp_path / "log"
    with ranking_server(servable, "--log-requests", "1", "--log-folder", str(folder), "--log-rows", "1") as server:
        folder.rmdir()
        folder.write_text("a file in its place")
        assert server.post(request_body).status_code == 200
        wait_for(lambda: server.metrics()["mian_log_failures_total"] == 1)
        assert server.post(request_body).status_code == 200
        assert server.end() == 0


def test_servers_of_one_folder_write_no_file_twice_and_rows_lie_under_their_day(tmp_path: Path) -> None:
    logs = [make_log(tmp_path)[0] for _ in range(2)]
    for log in logs:
        log.add(request(0), "a", SERVED_BY, ScoresOf)
        log.add(request(1), "b", SERVED_BY, ScoresOf)
        log._rows[0]["time"] -= dt.timedelta(days=1)
        log.close()
    assert len(files(tmp_path)) == 4
    for path in files(tmp_path):
        (time,) = pq.ParquetFile(path).read(["time"])["time"].to_pylist()
        assert path.parent.name == f"day={time:%Y-%m-%d}"
