"""How a server starts, and how it ends: begun requests are answered, and what cannot start says why in one line."""

from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.mian.server.conftest import as_json
from tests.support.ranking_server import PATIENCE, RankingServer, ranking_server, start_server, wait_for

pytestmark = pytest.mark.e2e


def head(body: bytes) -> bytes:
    return b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)


def connect(server: RankingServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(60)
    return connection


def read_answer(connection: socket.socket) -> tuple[int, Any]:
    answer = b""
    while part := connection.recv(65_536):
        answer += part
    before, _, body = answer.partition(b"\r\n\r\n")
    return int(before.split()[1]), json.loads(body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_begun_requests_are_answered_and_no_others_are_taken(
    servable: Path, request_body: dict[str, Any], number: signal.Signals
) -> None:
    body = as_json(request_body)
    with ranking_server(servable) as server, connect(server) as idle:
        begun = [connect(server) for _ in range(4)]
        for connection in begun:
            connection.sendall(head(body) + body[:10])
        wait_for(lambda: server.metrics()["mian_requests_in_progress"] == 4)
        server.process.send_signal(number)
        assert idle.recv(100) == b"", "a connection without a request is closed"
        with pytest.raises(OSError):
            connect(server)
        for connection in begun:
            connection.sendall(body[10:])
        answers = [read_answer(connection) for connection in begun]
        assert [status for status, _ in answers] == [200] * 4
        assert server.wait() == 0
        assert "Traceback" not in server.said


def test_requests_under_load_are_all_answered_or_refused_at_the_door(servable: Path, request_body: dict[str, Any]) -> None:
    statuses: list[int] = []

    def ask(server: RankingServer) -> None:
        while True:
            try:
                with connect(server) as connection:
                    connection.sendall(head(body) + body)
                    status = connection.recv(12)
            except OSError:
                return
            if not status:
                return  # it waited at the door
            statuses.append(int(status.split()[1]))

    body = as_json(request_body)
    with ranking_server(servable) as server:
        threads = [threading.Thread(target=ask, args=[server]) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(statuses) > 100)
        assert server.end() == 0
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_is_ready_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with start_server("models:/ctr@champion", "--tracking-uri", uri) as server:
            silent.settimeout(PATIENCE)
            with silent.accept()[0]:  # it asks for the model, and waits
                server.process.send_signal(number)
                assert server.wait() == 0
        assert "Traceback" not in server.said


def test_while_it_drains_it_is_not_ready_and_answers(servable: Path, request_body: dict[str, Any]) -> None:
    with ranking_server(servable, "--drain-seconds", "60") as server:
        assert server.get("/ready").status_code == 200
        server.process.terminate()
        wait_for(lambda: server.get("/ready").status_code == 503)
        answer = server.post(request_body)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert server.end() == 0, "a second signal does not wait"


def test_more_requests_than_may_wait_are_told_to_come_again(servable: Path, request_body: dict[str, Any]) -> None:
    many = request_body | {"candidates": {name: values * 3_000 for name, values in request_body["candidates"].items()}}
    with ranking_server(servable, "--max-waiting", "1", "--max-candidates", "10000") as server:
        answers: list[requests.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(server.post(many))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {200, 503}
        assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 503} == {"1"}
        assert server.post(request_body).status_code == 200


def test_slow_bodies_keep_no_other_request_from_its_answer(servable: Path, request_body: dict[str, Any]) -> None:
    body = as_json(request_body)
    with ranking_server(servable, "--max-waiting", "2", "--max-seconds", "60") as server:
        slow = [connect(server) for _ in range(20)]
        for connection in slow:
            connection.sendall(head(body) + body[:10])
        wait_for(lambda: server.metrics()["mian_requests_in_progress"] == 20)
        assert server.post(request_body).status_code == 200
        for connection in slow:
            connection.close()


def test_a_connection_too_many_is_refused_and_those_that_are_open_keep_on(servable: Path, request_body: dict[str, Any]) -> None:
    with ranking_server(servable, "--max-connections", "3") as server, requests.Session() as session:
        assert session.get(server.url + "/health", timeout=60).status_code == 200
        silent = [connect(server) for _ in range(2)]
        refused = server.post(request_body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert session.get(server.url + "/health", timeout=60).status_code == 200
        assert session.post(server.url + "/v1/score", json=request_body, timeout=60).status_code == 200
        assert "mian_refused_connections_total 1.0" in session.get(server.url + "/metrics", timeout=60).text
        for connection in silent:
            connection.close()


def test_the_server_answers_while_a_request_is_scored(servable: Path, request_body: dict[str, Any]) -> None:
    many = {name: values * 3_000 for name, values in request_body["candidates"].items()}
    body = request_body | {"candidates": many}
    with ranking_server(servable, "--max-candidates", "10000") as server:
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(server.post(body).status_code)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.metrics()["mian_requests_in_progress"] >= 2)
        asked = 0
        while any(thread.is_alive() for thread in threads):
            assert server.get("/health").status_code == 200
            asked += 1
        assert asked > 3
        assert statuses == [200] * 8


@pytest.mark.parametrize("case", ["a taken port", "no model", "a damaged model", "no such address", "no store", "no graph"])
def test_what_cannot_start_says_why_in_one_line(servable: Path, tmp_path: Path, case: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port, away = taken.getsockname()[1], closed.getsockname()[1]
        damaged = tmp_path / "damaged"
        damaged.mkdir()
        (damaged / "model.json").write_text("{}")
        model, arguments, message = {
            "a taken port": (servable, ["--port", str(port)], "cannot be listened at"),
            "no model": (tmp_path / "nowhere", [], "no model that mian trained"),
            "a damaged model": (damaged, [], "no such file"),
            "no such address": ("models:/a/b/c", [], "not a registered model"),
            "no store": ("models:/mian@champion", ["--tracking-uri", f"http://127.0.0.1:{away}"], "does not answer"),
            "no graph": (servable, ["--engine", "onnx"], "model.onnx"),
        }[case]
        with start_server(model, *arguments) as server:
            assert server.wait() == 1
            assert "Traceback" not in server.said
            (line,) = [line for line in server.lines if line.startswith("error: ")]
            assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-candidates", "0"], "--max-candidates: 0 is no limit; give more than 0"),
        (["--threads", "0"], "--threads: 0 is no limit"),
        (["--max-seconds", "nan"], "--max-seconds: nan is no limit"),
        (["--max-seconds", "inf"], "--max-seconds: inf is no limit"),
        (["--max-waiting", "-1"], "--max-waiting: -1 is no limit; give 0 or more"),
        (["--reload-seconds", "nan"], "--reload-seconds: nan is no time"),
        (["--drain-seconds", "-5"], "--drain-seconds: -5.0 is no time"),
        (["--log-requests", "1", "--log-folder", "/dev/null/log"], "--log-folder: "),
        (["--log-requests", "2"], "--log-requests: 2.0 is no share"),
        (["--log-requests", "0.1"], "give --log-folder"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(servable: Path, arguments: list[str], message: str) -> None:
    with start_server(servable, *arguments) as server:
        assert server.wait() == 1
        assert message in server.said


def test_the_address_is_the_loopback_one_unless_another_is_given(server: RankingServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert requests.get(server.url + "/ready", timeout=10).json() == {"status": "ready"}
