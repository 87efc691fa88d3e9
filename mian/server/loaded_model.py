"""A model that is ready to score requests, and how it is made of a servable folder."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mian.contract import Contract, ContractError, read_contract
from mian.contract.decoder import decode_value
from mian.scoring.one_user_encoder import Columns, OneUserEncoder
from mian.scoring.raw_values import ServingInputError
from mian.scoring.scorer import CandidateScorer
from mian.scoring.servable_files import GRAPH_FILE, ServableError, read_description, vocabulary_tables
from mian.server.example_request import CANDIDATES, example_request
from mian.server.score_request import ScoreRequest
from mian.server.settings import Engine

Explanation = list[list[dict[str, Any]]]
Explain = Callable[[Columns, Columns, list[dict[str, Any]]], Explanation]
_Parts = tuple[str, OneUserEncoder, Mapping[str, pa.Array], CandidateScorer, Explain | None]


@dataclass(frozen=True)
class LoadedModel:
    """A model that scores; never changed, another one takes its place.

    Attributes:
        name: of the model in the registry, or of its folder.
        version: in the registry; of a folder when its latest file was written, and some digits of all.
        engine: ``onnx`` or ``torch``.
        contract: what the model was trained on.
        stand_ins: by field of the context the raw value that is read where a request leaves the field out.
        example: a request of known values, see :func:`mian.server.example_request.example_request`.
        loaded: when it was loaded.
    """

    name: str
    version: str
    engine: str
    contract: Contract
    stand_ins: Mapping[str, Any]
    example: Mapping[str, Any]
    encoder: OneUserEncoder = field(repr=False)
    scorer: CandidateScorer = field(repr=False)
    explainer: Explain | None = field(repr=False)
    loaded: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.timezone.utc))

    def score(self, request: ScoreRequest) -> npt.NDArray[np.float64]:
        """Probabilities of a click, ``(N,)``.

        Raises:
            ServingInputError: the values are not what the model takes.
        """
        return self.scorer.score(*self._encode(request))

    def explain(self, request: ScoreRequest) -> Explanation:
        """What the model looked at for each candidate, see :func:`mian.serving.explanation.explain_candidates`.

        Raises:
            ServingInputError: the engine or the model cannot say, or the values are not what the model takes.
        """
        if self.explainer is None:
            raise ServingInputError(
                "explain: the ONNX engine cannot explain a score; start the server with --engine torch", "explain"
            )
        return self.explainer(*self._encode(request), list(self._rows(request)))

    def _encode(self, request: ScoreRequest) -> tuple[Columns, Columns]:
        user = self.encoder.user(request.user, request.context, request.behaviors)
        return user, self.encoder.candidates(user, request.candidates, request.candidate_context)

    def _rows(self, request: ScoreRequest) -> Iterator[dict[str, Any]]:
        """The raw values of each candidate by column."""
        context = {**self.stand_ins, **request.context}
        own = {"candidate": request.candidates, "context": request.candidate_context or {}}
        shared = {"user": request.user, "context": context, "behaviors": request.behaviors}
        for place in range(len(next(iter([*own["candidate"].values(), *own["context"].values()])))):
            row = {part.column: shared.get(part.group, {}).get(part.name, []) for part in self.contract.fields}
            replaced = [part for part in self.contract.fields if part.name in own.get(part.group, ())]
            yield row | {part.column: own[part.group][part.name][place] for part in replaced}


def load_model(folder: Path, name: str, version: str, engine: Engine) -> LoadedModel:
    """Build a model of a servable folder, which is not needed afterwards, and try it on requests of its own.

    Args:
        folder: the servable.
        name: see :class:`LoadedModel`.
        version: see :class:`LoadedModel`.
        engine: ``auto`` is ONNX where the folder has a graph, else torch.

    Raises:
        ServableError: a file is missing or damaged, or the model's scores are not probabilities.
    """
    try:
        model = _build(folder, name, version, engine)
        _try(model)
    except (ContractError, ServingInputError) as error:
        raise ServableError(str(error)) from error
    return model


def _build(folder: Path, name: str, version: str, engine: Engine) -> LoadedModel:
    if engine == "onnx" or (engine == "auto" and (folder / GRAPH_FILE).exists()):
        try:
            from mian.scoring.onnx_scorer import OnnxScorer
        except ImportError as error:
            raise ServableError(
                f"the ONNX engine needs the package {error.name}: {error}; install it, or give --engine torch"
            ) from error
        contract = read_contract(str(folder))
        tables = vocabulary_tables(contract, str(folder))
        encoder = OneUserEncoder(contract, tables, read_description(folder).stand_ins)
        parts: _Parts = ("onnx", encoder, tables, OnnxScorer(folder, threads=1), None)
    else:
        parts = _on_torch(folder)
    used, encoder, vocabularies, scorer, explainer = parts
    contract = encoder.contract
    stand_ins = _raw_stand_ins(contract, vocabularies, encoder.stand_ins)
    example = example_request(contract, vocabularies)
    return LoadedModel(name, version, used, contract, stand_ins, example, encoder, scorer, explainer)


def _on_torch(folder: Path) -> _Parts:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # torch reads it when it is imported; requests are scored side by side
    try:
        from mian.serving.explanation import explain_candidates
        from mian.serving.one_user import OneUser
        from mian.serving.servable import load_servable
    except ImportError as error:
        raise ServableError(
            f"the torch engine needs the package {error.name}, which is not installed; "
            f"give the model a graph (jobs/export.py writes {GRAPH_FILE}), or install torch"
        ) from error
    servable = load_servable(folder)
    one_user = OneUser(servable)

    return "torch", one_user.encoder, servable.vocabularies, one_user, partial(explain_candidates, servable)


def _raw_stand_ins(contract: Contract, vocabularies: Mapping[str, pa.Array], stand_ins: Mapping[str, float]) -> dict[str, Any]:
    fields = {field.column: field for field in contract.group("context")}
    return {
        fields[column].name: decode_value(contract, vocabularies, fields[column], value) for column, value in stand_ins.items()
    }


def _try(model: LoadedModel) -> None:
    """Score requests with a history and without, and one of values that no vocabulary has, which is encoded another way.

    Raises:
        ServableError: scores are not finite, or no probabilities.
        ServingInputError: the request is not taken.
    """
    unknown = {part.name: ["\u00fcnknown" if part.is_text else None] * CANDIDATES for part in model.contract.group("candidate")}
    changes: tuple[dict[str, Any], ...] = ({}, {"behaviors": {}}, {"candidates": unknown})
    for change in changes:
        request = ScoreRequest(**{**model.example, **change})
        scores = model.score(request)
        count = len(next(iter(request.candidates.values())))
        if scores.shape != (count,) or not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1).any():
            raise ServableError(f"{model.name} {model.version}: scores of its example are no {count} probabilities: {scores[:5]}")
