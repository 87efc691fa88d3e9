"""Bodies that were made to harm: no answer but 200, 4xx and 503, and no memory that stays taken."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.ranking_server import RankingServer, wait_for

pytestmark = pytest.mark.e2e

DEEP = 100_000


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 65_536):
        yield b" " * 65_536


def candidates(item: str) -> bytes:
    context = b'"user":{"age":"20s","visits":3},"context":{"hour":1,"slot":1}'
    return b"{" + context + b',"candidates":{"item_id":[' + item.encode() + b'],"category":["c1"],"price":[1]}}'


def price(number: str) -> bytes:
    return candidates('"i1"').replace(b'"price":[1]', b'"price":[' + number.encode() + b"]")


HOSTILE: dict[str, tuple[bytes, set[int]]] = {
    "lists 100,000 deep": (b"[" * DEEP + b"]" * DEEP, {400}),
    "a value 90,000 deep": (candidates("[" * 90_000 + "]" * 90_000), {400}),
    "objects 30,000 deep": (b'{"user":' * 20_000 + b"1" + b"}" * 20_000, {400}),
    "not closed": (b'{"user":' * 1_000, {400}),
    "bytes that are not UTF-8": (candidates('"i1"').replace(b"i1", b"\xff\xfe"), {400}),
    "an overlong sequence": (candidates('"i1"').replace(b"i1", b"\xc0\x80"), {400}),
    "half of a surrogate pair": (candidates('"\\ud800"'), {400}),
    "NaN": (price("NaN"), {400}),
    "infinity": (price("-Infinity"), {400}),
    "1e400": (price("1e400"), {400}),
    "a number of 5,000 digits": (price("1" * 5_000), {400}),
    "an id of 2^63": (candidates("9223372036854775808"), {200}),
    "an id of -2^70": (candidates("-1180591620717411303424"), {200}),
    "an id of a million digits": (candidates("1" * 150_000), {400}),
    "an id of 100,000 characters": (candidates('"' + "x" * 100_000 + '"'), {200}),
    "a null character": (candidates('"a\\u0000b"'), {200}),
    "a key twice": (candidates('"i1"').replace(b'{"user"', b'{"user":{"age":1,"age":2,"visits":1},"user"'), {200}),
    "100,000 keys": (json.dumps({"user": {str(n): 0 for n in range(12_000)}}).encode(), {400}),
    "a field whose name is long": (b'{"user":{"' + b"y" * 150_000 + b'":1},"candidates":{}}', {400}),
    "no body": (b"", {400}),
    "a byte order mark": (b"\xef\xbb\xbf" + candidates('"i1"'), {400}),
    "UTF-16": (candidates('"i1"').decode().encode("utf-16"), {400}),
    "null": (b"null", {400}),
    "too long by one byte": (b" " * 200_001, {413}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_answered(server: RankingServer, name: str) -> None:
    body, statuses = HOSTILE[name]
    answer = server.post(body)
    assert answer.status_code in statuses
    if answer.status_code != 200:
        assert set(answer.json()) == {"error", "field"}
        assert len(answer.content) < 1_000
    assert server.get("/health").status_code == 200


def test_a_hundred_megabytes_are_refused_and_leave_nothing(server: RankingServer, request_body: dict[str, Any]) -> None:
    for body, _ in HOSTILE.values():
        server.post(body)
    before = server.resident_bytes()
    for _ in range(2):
        with contextlib.suppress(OSError):  # the client may not look at the answer before its body is sent
            assert server.post(chunks(100 << 20)).status_code == 413  # without a length, so that only counting helps
        for body, _ in HOSTILE.values():
            server.post(body)
    assert server.post(request_body).status_code == 200
    assert server.resident_bytes() <= 1.05 * before


def connect(server: RankingServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(30)
    return connection


HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


def test_a_slow_body_is_answered_by_408(server: RankingServer) -> None:
    with connect(server) as slow:
        slow.sendall(HEAD + b"{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_a_connection_whose_head_does_not_end_is_closed(server: RankingServer) -> None:
    with connect(server) as slow, connect(server) as silent, connect(server) as refused:
        slow.sendall(HEAD[:30])
        refused.sendall(HEAD.replace(b"1000", b"100000000"))
        assert refused.recv(10_000).startswith(b"HTTP/1.1 413")
        assert slow.recv(100) == b""
        assert silent.recv(100) == b""


def test_a_client_that_goes_away_while_it_sends_is_counted(server: RankingServer) -> None:
    gone = 'mian_requests_total{status="499"}'
    before = server.metrics().get(gone, 0)
    with connect(server) as client:
        client.sendall(HEAD + b"{")
        time.sleep(0.2)
    wait_for(lambda: server.metrics().get(gone, 0) == before + 1)
    assert server.metrics()["mian_requests_in_progress"] == 0
