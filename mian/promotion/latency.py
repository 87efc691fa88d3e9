"""How long one user and some candidates take, candidate and champion in turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

import pandas as pd
import torch

from mian.contract import Contract
from mian.promotion.contender import Contender
from mian.promotion.settings import LatencyConfig
from mian.scoring.one_user_encoder import Columns
from mian.scoring.scorer import CandidateScorer
from mian.scoring.servable_files import GRAPH_FILE
from mian.serving import OneUser, input_example

WARM_UP = 5


def request_milliseconds(contenders: list[Contender], settings: LatencyConfig, threads: int) -> tuple[str, list[float]]:
    """Time a request: one user with a whole history, encoded and scored.

    All are timed on ONNX Runtime where each of them has its graph (``jobs/export.py``) and the library is installed, else on PyTorch.

    Args:
        contenders: the models; each round times every one of them once.
        settings: how many candidates and rounds.
        threads: compute threads of a request.

    Returns:
        The engine, and for each model the median in milliseconds.
    """
    has_graphs = all((c.folder / GRAPH_FILE).exists() for c in contenders)
    engine = "onnx" if has_graphs and importlib.util.find_spec("onnxruntime") is not None else "torch"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        requests = [_Request(c, engine, settings.candidates, threads) for c in contenders]
        times: list[list[float]] = [[] for _ in requests]
        for number in range(WARM_UP + settings.rounds):
            for place, request in enumerate(requests):
                began = time.perf_counter()
                request.score()
                if number >= WARM_UP:
                    times[place].append(1e3 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(before)
    return engine, [statistics.median(each) for each in times]


class _Request:
    """One user, with values of the model's own vocabularies."""

    def __init__(self, contender: Contender, engine: str, candidates: int, threads: int) -> None:
        servable = contender.servable
        self._one = OneUser(servable)
        self._scorer: CandidateScorer = self._one
        if engine == "onnx":
            from mian.scoring.onnx_scorer import OnnxScorer  # the library is optional

            self._scorer = OnnxScorer(contender.folder, threads)
        length = servable.contract.history.length
        raw = input_example(servable.contract, str(contender.folder), max(length, 2))
        self._user, self._context, self._behaviors, self._candidates = _parts(servable.contract, raw, candidates)

    def score(self) -> None:
        encoder = self._one.encoder
        user: Columns = encoder.user(self._user, self._context, self._behaviors)
        self._scorer.score(user, encoder.candidates(user, self._candidates))


def _parts(contract: Contract, raw: pd.DataFrame, candidates: int) -> tuple[dict[str, Any], ...]:
    """The last of some raw rows as a request; candidates are those of the rows, over and over."""
    last = len(raw) - 1
    single = {group: {f.name: raw[f.column][last] for f in contract.group(group)} for group in ("user", "context")}
    behaviors = {field.name: list(raw[field.column][last]) for field in contract.group("behaviors")}
    lists = {field.name: [raw[field.column][i % len(raw)] for i in range(candidates)] for field in contract.group("candidate")}
    return single["user"], single["context"], behaviors, lists
