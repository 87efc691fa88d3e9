"""Load on an HTTP server, from a process of its own: as many requests as it answers, or requests at Poisson times.

    python benchmarks/http_load.py URL BODIES.json --seconds 10 --connections 4
    python benchmarks/http_load.py URL BODIES.json --seconds 10 --rate 100

Prints one JSON line. With ``--rate`` a request leaves when it is due, whatever the answers do, and its time counts from then, so that a
server that falls behind is seen (no coordinated omission). Without it each connection sends the next request when it has the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ANSWER_SECONDS = 60.0


class Load:
    """Requests to one address.

    Args:
        url: of the requests.
        bodies: JSON texts, sent in turn.

    Attributes:
        seconds: of each answered request.
        failed: requests without an answer of status 200.
    """

    def __init__(self, url: str, bodies: list[bytes]) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._sent = 0
        self._idle: list[Connection] = []
        self.seconds: list[float] = []
        self.failed = 0

    async def ask(self, due: float) -> None:
        """Send the next request, and note how long after it was due its answer came."""
        content = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        try:
            connection = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            is_good = await asyncio.wait_for(_exchange(connection, content), ANSWER_SECONDS)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            is_good = False
        else:
            self._idle.append(connection)
        self.failed += not is_good
        if is_good:
            self.seconds.append(time.perf_counter() - due)

    async def closed(self, seconds: float, connections: int) -> None:
        """Each connection sends again when it was answered."""
        end = time.perf_counter() + seconds

        async def repeat() -> None:
            while (now := time.perf_counter()) < end:
                await self.ask(now)

        await asyncio.gather(*(repeat() for _ in range(connections)))

    async def open(self, seconds: float, rate: float) -> None:
        """Requests leave at the times of a Poisson process."""
        random = np.random.default_rng(0)
        due = time.perf_counter()
        end = due + seconds
        tasks = []
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.ask(due)))
            due += random.exponential(1 / rate)
        await asyncio.gather(*tasks)

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            with contextlib.suppress(OSError):
                writer.close()


async def _exchange(connection: Connection, content: bytes) -> bool:
    reader, writer = connection
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split(None, 2)[1] == b"200"


async def run(load: Load, seconds: float, connections: int, rate: float | None) -> dict[str, float]:
    """Load for some seconds; what came of it."""
    started = time.perf_counter()
    await (load.closed(seconds, connections) if rate is None else load.open(seconds, rate))
    taken = time.perf_counter() - started
    load.close()
    milliseconds = 1e3 * np.array(load.seconds or [float("nan")])
    p50, p99 = np.quantile(milliseconds, [0.5, 0.99])
    return {
        "requests_per_s": len(load.seconds) / taken,
        "answered": len(load.seconds),
        "failed": load.failed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


def main() -> None:
    """Load a server, and print one JSON line."""
    parser = argparse.ArgumentParser(description="Load on an HTTP server.")
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path, help="a JSON file: a list of bodies")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rate", type=float, help="requests a second, at Poisson times")
    given = parser.parse_args()
    bodies = [json.dumps(body).encode() for body in json.loads(given.bodies.read_text(encoding="utf-8"))]
    print(json.dumps(asyncio.run(run(Load(given.url, bodies), given.seconds, given.connections, given.rate))))


if __name__ == "__main__":
    main()
