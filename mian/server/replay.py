"""Reads the log of served requests and scores them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mian.scoring.one_user_encoder import OneUserEncoder
from mian.scoring.scorer import CandidateScorer
from mian.server.request_log import SCHEMA
from mian.server.score_request import ScoreRequest


@dataclass(frozen=True)
class LoggedRequest:
    """A row of the log.

    Attributes:
        request: its raw values.
        version: of the model that answered.
        probabilities: that it answered, ``(N,)``.
    """

    request: ScoreRequest
    version: str
    probabilities: npt.NDArray[np.float64]


def read_log(folder: Path) -> Iterator[LoggedRequest]:
    """All requests of a log, in the order of its files; files that are not whole have no such name and are left out.

    Args:
        folder: see :class:`mian.server.request_log.RequestLog`.
    """
    for path in sorted(folder.glob("day=*/requests-*.parquet")):
        for row in pq.ParquetFile(path).read(SCHEMA.names).to_pylist():
            parts: dict[str, Any] = {name: None if row[name] is None else msgspec.json.decode(row[name]) for name in _PARTS}
            yield LoggedRequest(
                ScoreRequest(**parts, request_id=row["request_id"]), row["version"], np.array(row["probabilities"], np.float64)
            )


def replay(logged: LoggedRequest, encoder: OneUserEncoder, scorer: CandidateScorer) -> npt.NDArray[np.float64]:
    """The probabilities that a model gives now, ``(N,)``, to be compared with :attr:`LoggedRequest.probabilities`.

    Args:
        logged: a row of the log.
        encoder: of the model.
        scorer: of the model.
    """
    request = logged.request
    user = encoder.user(request.user, request.context, request.behaviors)
    return scorer.score(user, encoder.candidates(user, request.candidates, request.candidate_context))


_PARTS = ("user", "context", "behaviors", "candidates", "candidate_context")
