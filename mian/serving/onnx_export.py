"""A model as an ONNX graph for one user and N candidates, beside the servable folder's other files."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim

from mian.contract import UNKNOWN_ID, Contract, Field
from mian.contract.document import LENGTH_COLUMN
from mian.models import ClickModel
from mian.scoring.one_user_encoder import Columns
from mian.scoring.onnx_scorer import OUTPUT, USER_INPUTS, WEIGHTS_KEY, OnnxScorer
from mian.scoring.servable_files import GRAPH_FILE
from mian.scoring.value_encoder import Column
from mian.serving.servable import Servable
from mian.serving.tensors import probabilities, tensors

#: The largest difference to the model's own probability at which a graph is written.
TOLERANCE = 1e-5
#: Rows that a graph is tried on, and how many of them share a user.
CHECKED_ROWS, CHECKED_CANDIDATES = 1000, 25
#: A graph holds fewer bytes of weights than this; those of larger models lie in a file beside it.
_LARGEST_GRAPH = 1 << 30


class ExportError(RuntimeError):
    """The model cannot be exported, or its graph gives other scores."""


class _OneUserGraph(nn.Module):
    """What is exported: columns of one user, then columns of N candidates, in; N probabilities out."""

    def __init__(self, model: ClickModel, names: Sequence[str], user_count: int, context: Sequence[str]) -> None:
        super().__init__()
        self.model, self._names, self._user_count, self._context = model, list(names), user_count, list(context)

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        named = list(zip(self._names, columns, strict=True))
        user, candidates = dict(named[: self._user_count]), dict(named[self._user_count :])
        user |= {name: candidates[name][:1] for name in self._context}  # of no effect beside the candidates' own
        return torch.sigmoid(self.model.score_candidates(self.model.encode_user(user), candidates).float())


def export_onnx(servable: Servable, folder: Path) -> float:
    """Write ``model.onnx`` into a folder, once it gives the scores of the model that it is made of.

    The graph takes the columns of one row for the user's fields and behaviors, ``(1,)`` and ``(1, T)``, and ``(N,)`` for those of
    candidates and context; N is free. It is tried on :data:`CHECKED_ROWS` rows, among them empty and full histories, unknown ids and
    missing numbers.

    Args:
        servable: the model.
        folder: where to; a graph that is there is replaced. One process at a time may export into it.

    Returns:
        The largest difference of a probability to that of the model's whole rows.

    Raises:
        ExportError: the model has an operator that ONNX lacks, or a probability differs by more than :data:`TOLERANCE`.
        OSError: the folder cannot be written.
    """
    for left in folder.glob(".export.*"):  # by an export that was killed
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=".export.", dir=folder))
    try:
        _write_graph(servable.model, servable.contract, staging / GRAPH_FILE)
        _note_weights(staging / GRAPH_FILE, servable.weights_sha256)
        difference = max(_differences(servable, OnnxScorer(staging)))
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the graph's probabilities differ from the model's by up to {difference:.1e}, more than {TOLERANCE:.0e}; it is not "
                "written. Serve the model on torch, and report its name and options, and the versions of torch and onnxscript"
            )
        for file in exported_files(staging):
            file.replace(folder / file.name)
        return difference
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_graph(model: ClickModel, contract: Contract, path: Path) -> None:
    users, candidates = next(_examples(contract, np.random.default_rng(0)))
    user = {USER_INPUTS + name: column for name, column in users.items()}
    columns = {**user, **candidates}
    context = [field.column for field in contract.group("context")]
    graph = _OneUserGraph(model, [*users, *candidates], len(users), context).eval()
    count = Dim("N", min=1, max=1 << 20)
    shapes = tuple({0: count} if number >= len(user) else None for number in range(len(columns)))
    weights = sum(weight.nbytes for weight in model.state_dict().values())
    try:
        with _without_remarks(), torch.inference_mode():
            torch.onnx.export(
                graph,
                tuple(tensors(columns).values()),
                str(path),
                input_names=list(columns),
                output_names=[OUTPUT],
                dynamic_shapes=(shapes,),
                dynamo=True,
                external_data=weights > _LARGEST_GRAPH,
                verbose=False,
            )
    except Exception as error:  # of many types; a model of one's own may have any operator
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"the model cannot be exported to ONNX: {first}") from error


def _note_weights(path: Path, digest: str) -> None:
    """Write into a graph of which weights it was made."""
    graph = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(graph, {WEIGHTS_KEY: digest})
    onnx.save(graph, str(path))


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep back what the exporter says of its own insides, hundreds of lines."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _differences(servable: Servable, scorer: OnnxScorer) -> Iterator[float]:
    """How far the graph is from whole rows, for each of some users."""
    examples = _examples(servable.contract, np.random.default_rng(1))
    for number in range(CHECKED_ROWS // CHECKED_CANDIDATES):
        user, candidates = next(examples)
        if number == 0:  # a single candidate
            candidates = {name: column[:1] for name, column in candidates.items()}
        count = len(next(iter(candidates.values())))
        rows = {name: column.repeat(count, axis=0) for name, column in user.items()} | candidates
        with torch.inference_mode():
            right = probabilities(servable.model(tensors(rows)))
        difference = np.abs(scorer.score(user, candidates) - right).max()
        yield float(difference)


def _examples(contract: Contract, random: np.random.Generator) -> Iterator[tuple[Columns, Columns]]:
    """Users and their candidates, drawn: ids of all vocabularies, unknown ones and missing numbers among them, histories of any length."""
    longest = contract.history.length
    lengths = [longest, 0, 1]
    while True:
        user: Columns = {}
        behaviors = contract.group("behaviors")
        if behaviors:
            length = lengths.pop(0) if lengths else int(random.integers(longest + 1))
            user[LENGTH_COLUMN] = np.array([length], np.int32)
            for field in behaviors:
                user[field.column] = np.where(np.arange(longest) < length, _drawn(contract, field, longest, random), 0)[
                    np.newaxis
                ]
        for field in contract.group("user"):
            user[field.column] = _drawn(contract, field, 1, random)
        candidates = {
            field.column: _drawn(contract, field, CHECKED_CANDIDATES, random)
            for field in (*contract.group("candidate"), *contract.group("context"))
        }
        yield user, candidates


def _drawn(contract: Contract, field: Field, count: int, random: np.random.Generator) -> Column:
    is_known = random.random(count) > 0.1
    if field.vocabulary is None:
        return np.where(is_known, random.standard_normal(count), 0.0).astype(np.float32)
    ids = random.integers(UNKNOWN_ID, contract.vocabulary(field.vocabulary).size, count)
    return np.where(is_known, ids, UNKNOWN_ID).astype(np.int32)


def exported_files(folder: Path) -> list[Path]:
    """The files that an export wrote into a folder, the graph last: it names the others."""
    return sorted(folder.glob(f"{GRAPH_FILE}*"), key=lambda file: file.name == GRAPH_FILE)
