"""A sample of served requests as Parquet files, so that serving can be replayed and compared with evaluation."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import logging
import random
import secrets
import threading
import time
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mian.atomic_write import write_atomically
from mian.server.metrics import ServerMetrics
from mian.server.score_request import ScoreRequest
from mian.server.settings import LogSettings

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),
        ("request_id", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("engine", pa.string()),
        ("user", pa.string()),
        ("context", pa.string()),
        ("behaviors", pa.string()),
        ("candidates", pa.string()),
        ("candidate_context", pa.string()),
        ("probabilities", pa.list_(pa.float64())),
    ]
)
"""A row a request. The input is JSON text; ``candidate_context`` is null where the request had none."""
MOST_BYTES = 64 << 20
"""Of rows that wait to be written; requests drawn beyond that are dropped, and counted."""
PAUSE_SECONDS = 60.0
"""After a file that could not be written, nothing is logged for so long."""


class RequestLog:
    """Draws requests and writes them, in a thread of its own.

    A file appears under its name when it is whole: ``day=YYYY-MM-DD/requests-TIME-PROCESS-NUMBER.parquet``, the day in UTC and
    the process a drawn number: servers of several containers may share a folder. A process
    that is killed loses the rows that wait, at most those of :attr:`LogSettings.seconds`. A disk that is full stops the log for
    :data:`PAUSE_SECONDS`, never the server.

    Args:
        settings: how many are drawn, and where they go.
        metrics: where rows written and dropped are counted.
    """

    def __init__(self, settings: LogSettings, metrics: ServerMetrics) -> None:
        assert settings.folder is not None
        self._folder = settings.folder
        self._settings = settings
        self._metrics = metrics
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._first = 0.0
        self._number = 0
        self._process = secrets.token_hex(4)
        self._paused_until = 0.0
        self._changed = threading.Condition()
        self._closing = False
        self._writer = threading.Thread(target=self._write_files, name="request-log")
        self._writer.start()

    def drawn(self) -> bool:
        """Whether to log the next request."""
        return random.random() < self._settings.fraction

    def add(
        self, request: ScoreRequest, request_id: str, served_by: tuple[str, str, str], probabilities: npt.NDArray[np.float64]
    ) -> None:
        """Have a request written soon.

        Args:
            request: its raw values.
            request_id: see :class:`ScoreRequest`.
            served_by: the model's name, version and engine.
            probabilities: the answer, ``(N,)``.
        """
        texts = {
            name: _text(getattr(request, name)) for name in ("user", "context", "behaviors", "candidates", "candidate_context")
        }
        size = sum(len(text or "") for text in texts.values()) + probabilities.nbytes
        row: dict[str, Any] = dict(zip(("model", "version", "engine"), served_by, strict=True))
        row |= {"time": dt.datetime.now(dt.timezone.utc), "request_id": request_id, **texts, "probabilities": probabilities}
        with self._changed:
            if time.monotonic() < self._paused_until or self._bytes + size > MOST_BYTES:
                self._metrics.log_dropped.inc()
                return
            if not self._rows:
                self._first = time.monotonic()
            self._rows.append(row)
            self._bytes += size
            if len(self._rows) in (1, self._settings.rows):
                self._changed.notify()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()

    def _write_files(self) -> None:
        while True:
            with self._changed:
                while not self._is_due():
                    if self._closing:
                        return
                    due = self._first + self._settings.seconds - time.monotonic() if self._rows else None
                    self._changed.wait(due)
                rows, self._rows, self._bytes = self._rows, [], 0
            self._write(rows)

    def _is_due(self) -> bool:
        if not self._rows:
            return False
        old = time.monotonic() - self._first >= self._settings.seconds
        return self._closing or old or len(self._rows) >= self._settings.rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        for _, day in itertools.groupby(rows, lambda row: row["time"].date()):
            self._write_file(list(day))

    def _write_file(self, rows: list[dict[str, Any]]) -> None:
        self._number += 1
        now = rows[0]["time"]
        name = f"day={now:%Y-%m-%d}/requests-{now:%Y%m%dT%H%M%S}-{self._process}-{self._number:06}.parquet"
        try:
            content = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), content, compression="zstd")
            write_atomically(self._folder / name, content.getvalue())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the log, requests are answered
            log.error(
                "request log: %s: %s; %d requests are not in it, nor are those of the next %g s",
                name,
                error,
                len(rows),
                PAUSE_SECONDS,
            )
            self._metrics.log_failures.inc()
            self._metrics.log_dropped.inc(len(rows))
            with self._changed:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
        else:
            self._metrics.logged.inc(len(rows))


def _text(values: dict[str, Any] | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()
